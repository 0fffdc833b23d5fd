"""Pictures as inline SVG: intervals, points, curves. Colours are classes of the style sheet."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.report.html import number, text
from experiments.report.significance import Estimate

WIDTH, HEIGHT = 270, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 36, 34
_SHAPES = ("circle", "square", "triangle", "diamond")


class Point(NamedTuple):
    """A mark of a chart.

    Attributes:
        x: its place.
        y: its place.
        series: whose colour and shape it has.
        label: shown when pointed at.
        hollow: drawn without a filling.
    """

    x: float
    y: float
    series: str
    label: str
    hollow: bool = False


class Axis(NamedTuple):
    """A scale.

    Attributes:
        title: with its unit.
        low: least value.
        high: greatest value.
        log: whether it is logarithmic.
    """

    title: str
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """0 at the least value, 1 at the greatest."""
        low, high, value = self._of(self.low), self._of(self.high), self._of(value)
        return (value - low) / (high - low)

    def _of(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self) -> list[float]:
        """A few round values within the range."""
        if self.log:
            found = [
                factor * 10**power
                for power in range(
                    math.floor(self._of(self.low)), math.ceil(self._of(self.high)) + 1
                )
                for factor in (1, 2, 5)
            ]
            inside = [value for value in found if self.low <= value <= self.high]
            whole = [v for v in inside if f"{v:e}".startswith("1.")]
            if len(inside) > 1:
                return whole if len(whole) >= 3 else inside
        step = 10 ** math.floor(math.log10(self.high - self.low))
        for factor in (0.2, 0.5, 1, 2):
            if (self.high - self.low) / (factor * step) <= 5:
                step *= factor
                break
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(place * step, 10) for place in range(first, last + 1)]


def axis(title: str, values: Sequence[float], log: bool = False, room: float = 0.08) -> Axis:
    """A scale on which all values have their place, and some room."""
    low, high = min(values), max(values)
    if log:
        spread = math.log10(high / low) or 0.3
        return Axis(title, low / 10 ** (room * spread), high * 10 ** (room * spread), True)
    spread = (high - low) or abs(high) * 0.2 or 1.0
    return Axis(title, low - room * spread, high + room * spread)


class Palette:
    """A colour and a shape for each series, in the order in which they are named."""

    def __init__(self, names: Sequence[str]):
        self._places = {name: place for place, name in enumerate(dict.fromkeys(names))}

    def kind(self, name: str) -> str:
        """The class of its colour."""
        return f"k{self._places[name] % 8}"

    def mark(self, name: str, x: float, y: float, hollow: bool = False, label: str = "") -> str:
        """Its mark at a place of a picture."""
        place = self._places[name]
        shape = _SHAPES[(place + place // 8) % len(_SHAPES)]
        look = f'class="mark {self.kind(name)}{" hollow" if hollow else ""}"'
        title = f"<title>{text(label)}</title>" if label else ""
        if shape == "circle":
            return f'<circle {look} cx="{x:.1f}" cy="{y:.1f}" r="3.8">{title}</circle>'
        if shape == "square":
            place = f'x="{x - 3.4:.1f}" y="{y - 3.4:.1f}" width="6.8" height="6.8"'
            return f"<rect {look} {place}>{title}</rect>"
        corners = [(0, -4.6), (4.4, 3.4), (-4.4, 3.4)]
        if shape == "diamond":
            corners = [(0, -4.8), (4.8, 0), (0, 4.8), (-4.8, 0)]
        places = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
        return f'<polygon {look} points="{places}">{title}</polygon>'

    def legend(self, names: Sequence[str]) -> str:
        """A line that names the marks."""
        items = []
        for name in self._places:
            if name in names:
                mark = self.mark(name, 6, 6)
                picture = f'<svg width="12" height="12" aria-hidden="true">{mark}</svg>'
                items.append(f"<li>{picture}{text(name)}</li>")
        return f'<ul class="legend">{"".join(items)}</ul>'


def scatter(
    title: str, x: Axis, y: Axis, points: Sequence[Point], palette: Palette, front: str = ""
) -> str:
    """Points.

    Args:
        title: of the chart.
        x: the horizontal scale.
        y: the vertical scale.
        points: what to draw.
        palette: their looks.
        front: ``max`` or ``min`` joins the points that no other one beats in both directions, if
            less of x is better and most or least of y.
    """
    drawn = [_front(x, y, points, front)] if front else []
    for point in points:
        place = _place(x, y, point.x, point.y)
        drawn.append(palette.mark(point.series, *place, point.hollow, point.label))
    return _chart(title, x, y, drawn)


def curves(
    title: str,
    x: Axis,
    y: Axis,
    series: Mapping[str, Sequence[tuple[float, float]]],
    palette: Palette,
) -> str:
    """Lines, one a series; values beyond the vertical scale are cut off."""
    drawn = []
    for name, values in series.items():
        places = [_place(x, y, *value) for value in values if y.low <= value[1] <= y.high]
        joined = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
        label = f"<title>{text(name)}</title>"
        drawn.append(
            f'<polyline class="curve {palette.kind(name)}" points="{joined}">{label}</polyline>'
        )
        drawn += [palette.mark(name, *place, label=name) for place in places[-1:]]
    return _chart(title, x, y, drawn)


def _place(x: Axis, y: Axis, across: float, up: float) -> tuple[float, float]:
    px = _LEFT + x.place(across) * (WIDTH - _LEFT - _RIGHT)
    py = HEIGHT - _BOTTOM - y.place(up) * (HEIGHT - _TOP - _BOTTOM)
    return px, py


def _front(x: Axis, y: Axis, points: Sequence[Point], better: str) -> str:
    sign = 1 if better == "max" else -1
    best, kept = -math.inf, []
    for point in sorted(points, key=lambda point: (point.x, -sign * point.y)):
        if sign * point.y > best:
            best = sign * point.y
            kept.append(_place(x, y, point.x, point.y))
    places = " ".join(f"{px:.1f},{py:.1f}" for px, py in kept)
    return f'<polyline class="front" points="{places}"/>'


def _chart(title: str, x: Axis, y: Axis, drawn: Sequence[str]) -> str:
    right, floor = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = [
        f'<text class="title" x="0" y="11">{text(title)}</text>',
        f'<text x="0" y="26">{text(y.title)}</text>',
    ]
    for value in y.ticks():
        _, py = _place(x, y, x.low, value)
        parts.append(f'<line class="ticks" x1="{_LEFT}" x2="{right}" y1="{py:.1f}" y2="{py:.1f}"/>')
        shown = f'x="{_LEFT - 5}" y="{py + 3.5:.1f}" text-anchor="end"'
        parts.append(f"<text {shown}>{_tick(value)}</text>")
    for value in x.ticks():
        px, _ = _place(x, y, value, y.low)
        parts.append(
            f'<line class="ticks" x1="{px:.1f}" x2="{px:.1f}" y1="{floor}" y2="{floor + 4}"/>'
        )
        parts.append(
            f'<text x="{px:.1f}" y="{floor + 15}" text-anchor="middle">{_tick(value)}</text>'
        )
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{floor}H{right}"/>')
    parts.append(f'<text x="{right}" y="{HEIGHT - 3}" text-anchor="end">{text(x.title)}</text>')
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    inner = "".join([*parts, *drawn])
    return (
        f'<figure><svg {size} role="img" aria-label="{text(title)}: {text(y.title)} against '
        f'{text(x.title)}">{inner}</svg></figure>'
    )


def _tick(value: float) -> str:
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e\N{MINUS SIGN}")
    return f"{value:,.10g}".replace("-", "\N{MINUS SIGN}")


def bar(found: Estimate, margin: float, reach: float, kind: str) -> str:
    """An interval of gains on a line through zero, with the band of what does not matter.

    Args:
        found: mean and interval.
        margin: half the width of the band.
        reach: the greatest gain that must fit.
        kind: class of its colour.
    """
    width, height = 150, 18

    def place(value: float) -> float:
        # The square root of a gain: small ones can be seen beside large ones.
        share = math.copysign(math.sqrt(min(1.0, abs(value) / reach)), value)
        return width / 2 + share * (width / 2 - 6)

    low, high, mean = place(found.low), place(found.high), place(found.mean)
    band = f'x="{place(-margin):.1f}" width="{place(margin) - place(-margin):.1f}"'
    parts = [
        f'<rect class="band" {band} y="1" height="{height - 2}"/>',
        f'<line class="zero" x1="{width / 2}" x2="{width / 2}" y1="0" y2="{height}"/>',
    ]
    if found.n > 1:
        ends = f'x1="{low:.1f}" x2="{high:.1f}" y1="{height / 2}" y2="{height / 2}"'
        parts.append(f'<line class="curve {kind}" {ends}/>')
    hollow = "" if found.n > 1 else " hollow"
    spot = f'cx="{mean:.1f}" cy="{height / 2}" r="3.4"'
    parts.append(f'<circle class="mark {kind}{hollow}" {spot}/>')
    about = f"{number(found.mean)}, from {number(found.low)} to {number(found.high)}"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="inline" {size} role="img" aria-label="{about}">{"".join(parts)}</svg>'
