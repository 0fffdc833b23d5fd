"""Figures: learning curves, a piece beside its prediction, and when each switch was open.

Every function writes one PNG and returns the matplotlib figure. matplotlib is imported on the first
call. Colours are those of Okabe and Ito, which stay apart for colour-blind eyes.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from data.sets.music import KEYS, LOWEST

DPI = 100

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#222222",
)  # fmt: skip
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
_DASHES = ("-", "--", ":")
GREY = "#8a8a8a"

_STYLE = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}

History = Sequence[Mapping[str, Any]]
"""One record an epoch: ``epoch``, ``train/nll``, ``valid/nll``, perhaps ``train/update_rate``."""


def learning_curves(
    history: History, path: str | os.PathLike, metric: str = "nll", title: str = ""
) -> Any:
    """Training and validation curve of one run, its best epoch marked.

    The update rate stands below where the history has it.

    Args:
        history: as `History`, at least one epoch.
        path: the PNG.
        metric: the name after ``train/`` and ``valid/``.
        title: what was trained.

    Raises:
        ValueError: an empty history, or one without the metric.
    """
    return _curves({"": history}, path, metric, title)


def compare_curves(
    histories: Mapping[str, History],
    path: str | os.PathLike,
    metric: str = "nll",
    title: str = "",
) -> Any:
    """The curves of several runs over one another: validation strong, training faint.

    Args:
        histories: label -> history of a run.
        path: the PNG.
        metric: the name after ``train/`` and ``valid/``.
        title: what was compared.

    Raises:
        ValueError: no run, an empty history, or one without the metric.
    """
    if not histories:
        raise ValueError("no run to compare")
    return _curves(histories, path, metric, title)


def piano_roll(
    truth: np.ndarray, probability: np.ndarray, path: str | os.PathLike, title: str = ""
) -> Any:
    """A piece, its prediction, and where the two part, under one another.

    Args:
        truth: ``[T, 88]`` of 0 and 1.
        probability: ``[T, 88]``; row t is what was expected of frame t before it was heard. A row
            of NaN was not predicted: it stays grey and does not count.
        path: the PNG.
        title: the piece and the model.

    Raises:
        ValueError: other shapes or values; a row of zeros, which predicts nothing.
    """
    truth, probability = _roll("truth", truth), np.asarray(probability, float)
    if probability.shape != truth.shape:
        raise ValueError(
            f"probability is {list(probability.shape)}, but truth is {list(truth.shape)}"
        )
    predicted = ~np.isnan(probability).all(1)
    known = probability[predicted]
    if not ((known >= 0) & (known <= 1)).all():
        raise ValueError("probability should lie in 0..1, or be NaN for a whole frame")
    if not known.any(1).all():
        frame = np.flatnonzero(predicted)[~known.any(1)][0]
        raise ValueError(f"frame {frame}: no key has a probability; NaN says 'not predicted'")

    # Within float32's reach of 0 and 1, as a sigmoid may round to them.
    heard = np.where(truth, probability, 1 - probability)
    nats = -np.log(np.clip(heard, 1e-7, 1))
    used = _used(truth, probability)
    with sheet(_width(len(truth)), 8.2, title, path) as figure:
        upper, middle, lower = axes = figure.subplots(3, sharex=True, sharey=True)
        _keys(upper, truth, used, _shades(BLACK), (0, 1))
        upper.set_title("Truth: the keys that sound")
        image = _keys(middle, probability, used, _shades(BLUE), (0, 1))
        middle.set_title("Prediction, made one frame ahead")
        figure.colorbar(image, ax=middle, label="probability", pad=0.01)
        signed, span = np.where(truth, nats, -nats), (-_MOST_NATS, _MOST_NATS)
        image = _keys(lower, signed, used, _shades(VERMILION, BLUE), span)
        mean = f": {nats[predicted].sum(1).mean():.2f} nats a frame" if predicted.any() else ""
        lower.set_title(f"Surprise{mean} (orange: not expected, came; blue: expected, stayed away)")
        bar = figure.colorbar(image, ax=lower, label="nats", pad=0.01, extend="both")
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        lower.set_xlabel("time [frames]")
        lower.locator_params(axis="x", integer=True)
        for axis in axes:
            axis.set_ylabel("key")
    return figure


def raster(
    table: np.ndarray,
    path: str | os.PathLike,
    title: str = "",
    inputs: np.ndarray | None = None,
) -> Any:
    """When each neuron's switch was open; neurons that seldom change below, restless ones above.

    Over it stands the share of open neurons at each step, at its side that of open steps for each
    neuron, and, where `inputs` are given, at the top the piece on the same time axis.

    Args:
        table: booleans ``[T, H]``.
        path: the PNG.
        title: the piece and the model.
        inputs: ``[T, 88]``, what the switches' layer read.

    Raises:
        ValueError: other shapes or values.
    """
    table = np.asarray(table)
    if table.ndim != 2 or not table.size or table.dtype != bool:
        raise ValueError(
            f"table should be booleans [T, H], but is {table.dtype} {list(table.shape)}"
        )
    steps, neurons = table.shape
    if inputs is not None and len(inputs) != steps:
        raise ValueError(f"table has {steps} steps, but inputs have {len(inputs)}")
    changes = np.count_nonzero(table[1:] != table[:-1], axis=0)
    order = np.lexsort((-table.mean(0), changes))
    heights = [1.6, 0.8, 3.2] if inputs is not None else [0.8, 3.2]
    with sheet(_width(steps), 1.2 * sum(heights) + 1, title, path) as figure:
        grid = figure.add_gridspec(len(heights), 2, width_ratios=[6, 1], height_ratios=heights)
        *above, share, main = [figure.add_subplot(grid[row, 0]) for row in range(len(heights))]
        side = figure.add_subplot(grid[-1, 1], sharey=main)
        main.imshow(
            table.T[order], cmap=_shades(BLUE), vmin=0, vmax=1, origin="lower", aspect="auto",
            extent=(0, steps, 0, neurons),
        )  # fmt: skip
        main.set(xlabel="time [steps]", ylabel="neuron")
        main.set_title("Open switches (slow neurons below, fast ones above)")
        main.locator_params(integer=True)
        share.stairs(100 * table.mean(1), np.arange(steps + 1), fill=True, color=BLUE, alpha=0.8)
        share.set(ylim=(0, 100), ylabel="open [%]")
        share.set_title(f"Neurons that update: {100 * table.mean():.1f} % over the sequence")
        side.stairs(
            100 * table.mean(0)[order], np.arange(neurons + 1), orientation="horizontal",
            fill=True, color=BLUE, alpha=0.8,
        )  # fmt: skip
        side.set(xlim=(0, 100), xlabel="open [%]")
        side.tick_params(labelleft=False)
        for axis in above:
            roll = _roll("inputs", inputs)
            _keys(axis, roll, _used(roll, roll), _shades(BLACK), (0, 1))
            axis.set_title("Input: the keys that sound")
            axis.set_ylabel("key")
        for axis in (*above, share):
            axis.sharex(main)
            axis.tick_params(labelbottom=False)
    return figure


_MOST_NATS = 4.0
_OCTAVE = 12


@contextmanager
def sheet(width: float, height: float, title: str, path: str | os.PathLike) -> Iterator[Any]:
    """An empty figure in the house style, `width` by `height` inches; saved at the end."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        # Not by pyplot, which would choose a window system and keep every figure.
        figure = Figure(figsize=(width, height), dpi=DPI)
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        yield figure
        figure.savefig(path, format="png")


def _curves(
    histories: Mapping[str, History], path: str | os.PathLike, metric: str, title: str
) -> Any:
    runs = {label: _series(label, history, metric) for label, history in histories.items()}
    several, rates = len(runs) > 1, any(run.rate is not None for run in runs.values())
    with sheet(10.5 if several else 8, 6 if rates else 4.5, title, path) as figure:
        upper, *below = figure.subplots(
            1 + rates, sharex=True, squeeze=False, height_ratios=[3, 1][: 1 + rates]
        )[:, 0]
        for number, (label, run) in enumerate(runs.items()):
            look = {
                "color": COLOURS[number % len(COLOURS)],
                "linestyle": _DASHES[number // len(COLOURS) % len(_DASHES)],
                "marker": "." if len(run.epoch) < _FEW else "",
            }
            best = int(np.argmin(run.valid))
            name = f"{label}: " if label else ""
            name += f"best {run.valid[best]:.3f} at epoch {run.epoch[best]:g}"
            upper.plot(run.epoch, run.train, **look, alpha=0.4, linewidth=1.2)
            upper.plot(run.epoch, run.valid, **look, label=name)
            upper.plot(run.epoch[best], run.valid[best], "o", color=look["color"], markersize=7)
            if run.rate is not None:
                below[0].plot(run.epoch, 100 * run.rate, **look, clip_on=False)
        low, high, cut = _limits(runs.values())
        upper.set_ylim(low, high)
        upper.set_ylabel(_UNITS.get(metric, metric))
        start = "; the start is off the top" if cut else ""
        upper.set_title(f"Validation (strong) and training (faint); dot: the best epoch{start}")
        if several:
            figure.legend(loc="outside right upper")
        else:
            upper.legend()
        for axis in below:
            axis.set(ylim=(0, 100), ylabel="updated [%]")
            axis.set_title("Share of neurons updated in a step, in training")
        for axis in (upper, *below):
            axis.grid(axis="y")
        (below or [upper])[-1].set_xlabel("epoch")
        upper.locator_params(axis="x", integer=True)
    return figure


class _Run(NamedTuple):
    epoch: np.ndarray
    train: np.ndarray
    valid: np.ndarray
    rate: np.ndarray | None


def _series(label: str, history: History, metric: str) -> _Run:
    name = f"{label}: " if label else ""
    if not history:
        raise ValueError(f"{name}an empty history has no curve")
    keys = ["epoch", f"train/{metric}", f"valid/{metric}"]
    for key in keys:
        for line in history:
            if key not in line:
                raise ValueError(f"{name}no {key} in the history; there are {', '.join(line)}")
    rate = "train/update_rate"
    columns = [*keys, rate] if rate in history[0] else keys
    series = [np.array([line[key] for line in history], float) for key in columns]
    return _Run(*series, *[None] * (4 - len(series)))


def _limits(runs: Iterable[_Run]) -> tuple[float, float, bool]:
    """What of the curves to show, and whether that cuts their start.

    The first tenth of a run may lie ten times as high as the rest, which is what one wants to see.
    """
    every = [np.stack([run.train, run.valid]) for run in runs]
    late = [curve[:, len(curve[0]) // 10 :] for curve in every]
    lowest, highest = min(c.min() for c in every), max(c.max() for c in late)
    margin = 0.05 * (highest - lowest) or 0.05
    return lowest - margin, highest + margin, max(c.max() for c in every) > highest + margin


_FEW = 8
_UNITS = {"nll": "negative log-likelihood [nats a step]"}


def _roll(name: str, roll: np.ndarray) -> np.ndarray:
    roll = np.asarray(roll)
    if roll.ndim != 2 or roll.shape[1] != KEYS or not len(roll):
        raise ValueError(f"{name} should be [T, {KEYS}], but is {list(roll.shape)}")
    if not np.isin(roll, (0, 1)).all():
        raise ValueError(f"{name} should hold 0 and 1 alone")
    return roll.astype(bool)


def _keys(
    axis: Any, values: np.ndarray, used: tuple[int, int], colours: Any, span: tuple[float, float]
) -> Any:
    """Draws ``[T, 88]`` as an image, cropped to the keys ``used[0]`` to ``used[1] - 1``."""
    low, high = used
    image = axis.imshow(
        values[:, low:high].T.astype(float), cmap=colours, origin="lower", aspect="auto",
        vmin=span[0], vmax=span[1],
        extent=(0, len(values), LOWEST + low - 0.5, LOWEST + high - 0.5),
    )  # fmt: skip
    octaves = [note for note in range(LOWEST + low, LOWEST + high) if note % _OCTAVE == 0]
    axis.set_yticks(octaves, [f"C{note // _OCTAVE - 1}" for note in octaves])
    axis.set_axisbelow(False)
    axis.grid(axis="y", color=GREY, linewidth=0.5, alpha=0.5)
    return image


def _used(truth: np.ndarray, probability: np.ndarray) -> tuple[int, int]:
    """First and last + 1 of the keys that matter, an octave at least, so that a C is among them."""
    used = np.flatnonzero(truth.any(0) | (np.nan_to_num(probability) > 0.05).any(0))
    if not used.size:
        return 0, KEYS
    low, high = int(used[0]), int(used[-1]) + 1
    low = max(0, min(low, KEYS - _OCTAVE, (low + high - _OCTAVE) // 2))
    return low, max(high, low + _OCTAVE)


def _shades(colour: str, negative: str | None = None) -> Any:
    """White for 0, `colour` for the most, `negative` for the least; grey for what is missing."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = ["white", colour] if negative is None else [negative, "white", colour]
    return LinearSegmentedColormap.from_list("", ends).with_extremes(bad="#e8e8e8")


def _width(steps: int) -> float:
    return float(np.clip(3 + 0.07 * steps, 7.5, 16))
