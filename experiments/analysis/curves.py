"""Learning curves: training and validation over the epochs of one run or of several.

Every function writes one PNG and returns the matplotlib figure.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.analysis.style import COLOURS, sheet

History = Sequence[Mapping[str, Any]]
"""One record an epoch: ``epoch``, ``train/nll``, ``valid/nll``, perhaps ``train/update_rate``."""

_FEW = 8
_UNITS = {"nll": "negative log-likelihood [nats a step]"}
_DASHES = ("-", "--", ":")


def learning_curves(
    history: History, path: str | os.PathLike, metric: str = "nll", title: str = ""
) -> Any:
    """Training and validation curve of one run, its best epoch marked.

    Below it the update rate, if the history has it.

    Args:
        history: as `History`, at least one epoch.
        path: the PNG.
        metric: the name after ``train/`` and ``valid/``.
        title: of the figure.

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
        title: of the figure.

    Raises:
        ValueError: no run, an empty history, or one without the metric.
    """
    if not histories:
        raise ValueError("no run to compare")
    return _curves(histories, path, metric, title)


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
                raise ValueError(f"{name}no {key} in the history, which has {', '.join(line)}")
    rate = "train/update_rate"
    columns = [*keys, rate] if rate in history[0] else keys
    series = [np.array([line[key] for line in history], float) for key in columns]
    return _Run(*series, *[None] * (4 - len(series)))


def _limits(runs: Iterable[_Run]) -> tuple[float, float, bool]:
    """The range to show, and whether it cuts the start of the curves.

    The first tenth of a run may lie ten times as high as the rest, which matters more.
    """
    every = [np.stack([run.train, run.valid]) for run in runs]
    late = [curve[:, len(curve[0]) // 10 :] for curve in every]
    lowest, highest = min(c.min() for c in every), max(c.max() for c in late)
    margin = 0.05 * (highest - lowest) or 0.05
    return lowest - margin, highest + margin, max(c.max() for c in every) > highest + margin
