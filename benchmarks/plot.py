"""Draws records: time against the update rate, or against a size.

    python -m benchmarks.plot skip.jsonl --plot=skip.png
    python -m benchmarks.plot sweep.jsonl --plot=steps.png --against=steps
    python -m benchmarks.plot lengths.jsonl --plot=lengths.png --benchmark=lengths

One panel for each schedule, kind of switch and set of sizes; one line a back end, its quartiles
shaded; both axes logarithmic. Against the rate, the line `ideal` is the baseline's time at the
highest rate times the rate, and the plain GRU of Flax lies across where it ran along. Of
`benchmarks.lengths` there is a panel for time and one for each kind of memory, a line a model.
"""

import os
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from benchmarks.case import BACKENDS
from benchmarks.records import Record
from data import cli

TIMED = ("skip_scan", "minimal", "inference", "lengths")

AXES = {
    "rate": "open switches [%]",
    "features": "neurons H",
    "batch": "sequences at once B",
    "steps": "steps T",
}


def draw(records: Iterable[Record], path: str | os.PathLike, against: str = "rate") -> Any:
    """Draws the records with a time in them as a PNG.

    Args:
        records: as :func:`.records.read` gives them.
        path: the PNG.
        against: one of :data:`AXES`; records of `benchmarks.lengths` are drawn against the steps.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: they are not the timed records of one benchmark, or of lengths not of one size.
    """
    timed = list(records)
    benchmarks = {record["benchmark"] for record in timed}
    if len(benchmarks) != 1 or not benchmarks <= set(TIMED):
        found = ", ".join(sorted(benchmarks)) or "none"
        raise ValueError(f"a plot wants records of one of {', '.join(TIMED)}; got {found}")
    if benchmarks == {"lengths"}:
        return _lengths(timed, path)
    fixed = [name for name in ("features", "batch", "steps", "inputs") if name != against]
    if against != "rate":
        fixed.append("asked")
    panels: dict[tuple, list[Record]] = {}
    for record in timed:
        if record["schedule"] != "none":
            switch = "learned" if record["switch"] == "share" else record["switch"]
            key = (record["schedule"], switch, *(record[name] for name in fixed))
            panels.setdefault(key, []).append(record)
    return _panels(panels, timed, fixed, path, against)


def _panels(
    panels: dict[tuple, list[Record]],
    timed: list[Record],
    fixed: list[str],
    path: str | os.PathLike,
    against: str,
) -> Any:
    # One style for all figures of the project.
    from experiments.analysis import style as figures

    names = _names(timed)
    colours = _colours(names)
    marks = [record for lines in panels.values() for record in lines]
    columns = min(2, len(panels))  # frozen and learned side by side
    rows = -(-len(panels) // columns)
    title = f"{timed[0]['benchmark']}: time of a call"
    with figures.sheet(4.4 * columns + 1.4, 3.9 * rows + 0.6, title, path) as figure:
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        for axis, (key, lines) in zip(axes.flat, panels.items(), strict=False):
            schedule, switch, *values = key
            sizes = dict(zip(fixed, values, strict=True))
            for name in names:
                own = [r for r in lines if r["backend"] == name]
                few = [r for r in own if r["switch"] == "share"]
                whole = [r for r in own if r["switch"] != "share"]
                _line(axis, name, whole, against, colours[name], "o-")
                _line(axis, f"{name}, 1/8 teach", few, against, colours[name], ".-.")
            if against == "rate":
                plain = [r for r in timed if r["schedule"] == "none"]
                plain = [r for r in plain if all(r[n] == v for n, v in sizes.items())]
                _ideal(axis, lines, plain, figures.GREY)
                _dense(axis, plain, figures.GREY)
            shape = ", ".join(f"{_LETTERS[name]}={value:g}" for name, value in sizes.items())
            axis.set_title(f"{schedule}, {switch}\n{shape}")
            # Panels share their axes, and with them the marks.
            _rule(axis, against, {_place(r, against, asked=True) for r in marks})
        for axis in axes[:, 0]:
            axis.set_ylabel("milliseconds")
        found = {}
        for axis in figure.axes:
            lines, labels = axis.get_legend_handles_labels()
            found |= dict(zip(labels, lines, strict=True))
        figure.legend(found.values(), found.keys(), loc="outside right upper")
    return figure


def _lengths(timed: list[Record], path: str | os.PathLike) -> Any:
    """Time and memory of a training step against the length of the sequence."""
    from experiments.analysis import style as figures

    sizes = {
        tuple((name, record[name]) for name in ("batch", "inputs", "features")) for record in timed
    }
    if len(sizes) != 1:
        raise ValueError(f"a plot over lengths wants records of one size; got {len(sizes)}")
    shape = ", ".join(f"{_LETTERS[name]}={value:g}" for name, value in next(iter(sizes)))
    names = list(dict.fromkeys(record["backend"] for record in timed))
    kinds = {
        "milliseconds": ("time of a training step", "milliseconds", 1),
        "kept_bytes": ("kept for the backward pass", "MB", 1e-6),
        "temporary_bytes": ("needed besides, at most", "MB", 1e-6),
    }
    title = f"One layer against the length of the sequence, {shape}"
    with figures.sheet(13, 4.2, title, path) as figure:
        for axis, (kind, (says, unit, scale)) in zip(
            figure.subplots(1, len(kinds)), kinds.items(), strict=True
        ):
            for name, colour in _colours(names).items():
                # Of a length measured twice the last counts.
                points = {r["steps"]: r[kind] * scale for r in timed if r["backend"] == name}
                axis.plot(*zip(*sorted(points.items()), strict=True), "o-", color=colour,
                          markersize=4, label=name)  # fmt: skip
            axis.set(ylabel=unit, title=says)
            _rule(axis, "steps", {record["steps"] for record in timed})
        figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper")
    return figure


def _colours(names: Sequence[str]) -> dict[str, str]:
    from experiments.analysis import style as figures

    return {name: figures.COLOURS[n % len(figures.COLOURS)] for n, name in enumerate(names)}


def _rule(axis: Any, against: str, marks: Iterable[float]) -> None:
    """Logarithmic axes with plain numbers, those of the lower at the marks."""
    axis.set(xscale="log", yscale="log", xlabel=AXES[against])
    axis.set_xticks(sorted(marks))
    axis.minorticks_off()
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(lambda value, _: f"{value:g}")
    axis.grid()


_LETTERS = {"features": "H", "batch": "B", "steps": "T", "inputs": "D", "asked": "rate"}


def _names(timed: list[Record]) -> list[str]:
    """The back ends that were timed with a schedule: ours, then the others."""
    found = {r["backend"] for r in timed if r["schedule"] != "none"}
    return sorted(found, key=lambda n: (BACKENDS.index(n) if n in BACKENDS else 99, n))


def _place(record: Record, against: str, asked: bool = False) -> float:
    if against != "rate":
        return record[against]
    return 100 * record["asked" if asked else "rate"]


def _line(
    axis: Any, label: str, lines: Sequence[Record], against: str, colour: str, style: str
) -> None:
    """Median and quartiles of one back end; of a point measured twice, the last counts."""
    points = {_place(record, against): record for record in lines}
    if points:
        places = sorted(points)
        times = [points[place]["milliseconds"] for place in places]
        axis.plot(places, times, style, color=colour, markersize=4, label=label)
        low, high = ([points[place]["spread"][side] for place in places] for side in (1, 2))
        axis.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


def _ideal(axis: Any, lines: Sequence[Record], plain: Sequence[Record], colour: str) -> None:
    """The rate times what the baseline takes; it computes everything at any rate."""
    bases = [r for r in lines if r["backend"] == r["baseline"]]
    base = max(bases or plain, key=lambda r: r["rate"])
    rates = sorted({r["rate"] for r in lines})
    times = [base["milliseconds"] * rate for rate in rates]
    axis.plot([100 * r for r in rates], times, "--", color=colour, linewidth=1.2, label="ideal")


def _dense(axis: Any, plain: Sequence[Record], colour: str) -> None:
    """A line across for what has no switch, however often it ran along."""
    for name in dict.fromkeys(r["backend"] for r in plain):
        time = statistics.median(r["milliseconds"] for r in plain if r["backend"] == name)
        label = name if "no switch" in name else f"{name}, no switch"
        axis.axhline(time, color=colour, linestyle=":", label=label)


def main(path: str) -> None:
    """Draws what the flags ask for."""
    from benchmarks import records

    values = flags.FLAGS
    if values.plot is None:
        raise ValueError("--plot=FILE.png is missing")
    found = [r for r in records.read(path) if r["benchmark"] == values.benchmark]
    draw(found, values.plot, values.against)


if __name__ == "__main__":
    cli.define_path("plot", None, "The PNG to draw")
    flags.DEFINE_enum("against", "rate", list(AXES), "What time is drawn against")
    flags.DEFINE_enum("benchmark", "skip_scan", list(TIMED), "Whose records are drawn")
    cli.run(main, "FILE")
