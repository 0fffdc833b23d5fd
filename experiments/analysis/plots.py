"""Figures of a trained model: switches, rates over time, periods, memory, gradients.

Every function writes one PNG and returns the matplotlib figure. Those of several layers or runs
take one entry each, by its label.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.analysis.gates import Memory, UpdateRate
from experiments.analysis.gradients import Reach
from experiments.analysis.style import BLACK, BLUE, COLOURS, shades, sheet, width_of

_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_BINS_A_DECADE = 10
_FAINT = 1e-12
_SMOOTH_FROM = 200
"""Steps from which on a moving mean is drawn over the single steps."""


def raster(
    table: np.ndarray,
    path: str | os.PathLike,
    title: str = "",
    above: Callable[[Any], None] | None = None,
    above_height: float = 1.6,
) -> Any:
    """When each neuron's switch was open; neurons that seldom change below, restless ones above.

    Above it: the share of open neurons at each step; beside it: the share of open steps for each
    neuron.

    Args:
        table: booleans ``[T, H]``.
        path: the PNG.
        title: the piece and the model.
        above: draws the input of the layer on an axis at the top, over the same time; None for no
            such axis.
        above_height: of that axis, in units of 1.2 inches.

    Raises:
        ValueError: other shapes or values.
    """
    table = np.asarray(table)
    if table.ndim != 2 or not table.size or table.dtype != bool:
        raise ValueError(
            f"table should be booleans [T, H], but is {table.dtype} {list(table.shape)}"
        )
    steps, neurons = table.shape
    changes = np.count_nonzero(table[1:] != table[:-1], axis=0)
    order = np.lexsort((-table.mean(0), changes))
    heights = [above_height, 0.8, 3.2] if above is not None else [0.8, 3.2]
    with sheet(width_of(steps), 1.2 * sum(heights) + 1, title, path) as figure:
        grid = figure.add_gridspec(len(heights), 2, width_ratios=[6, 1], height_ratios=heights)
        *top, share, main = [figure.add_subplot(grid[row, 0]) for row in range(len(heights))]
        side = figure.add_subplot(grid[-1, 1], sharey=main)
        main.imshow(
            table.T[order], cmap=shades(BLUE), vmin=0, vmax=1, origin="lower", aspect="auto",
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
        for axis in top:
            above(axis)
        for axis in (*top, share):
            axis.sharex(main)
            axis.tick_params(labelbottom=False)
    return figure


def input_strip(x: np.ndarray, tokens: int | None) -> Callable[[Any], None]:
    """What :func:`raster` draws above it: the input of every step.

    Args:
        x: ``[T]`` or ``[T, D]``; a row a number.
        tokens: size of the vocabulary if `x` are tokens: 0 stays white, the last one, which marks a
            place to answer, is grey, and the others have a colour each. None for numbers: dark is
            high.
    """
    rows = np.asarray(x, np.float64).reshape(len(x), -1).T

    def draw(axis: Any) -> None:
        extent = (0, rows.shape[1], 0, len(rows))
        axis.set_yticks([])
        axis.tick_params(axis="x", length=0)
        for side in ("left", "bottom"):
            axis.spines[side].set_visible(False)
        if tokens is None:
            axis.imshow(rows, cmap="Greys", aspect="auto", extent=extent)
            axis.set_title("Input")
            return
        shown = np.where((rows > 0) & (rows < tokens - 1), rows, np.nan)
        axis.imshow(
            np.where(rows == tokens - 1, 0.35, np.nan), cmap="Greys", vmin=0, vmax=1,
            aspect="auto", extent=extent,
        )  # fmt: skip
        axis.imshow(
            shown, cmap="turbo", vmin=1, vmax=max(2, tokens - 2), aspect="auto", extent=extent
        )
        axis.set_title("Input: a colour for each token, white for noise, grey where to answer")

    return draw


def rate_over_time(
    rates: Mapping[str, UpdateRate], path: str | os.PathLike, title: str = ""
) -> Any:
    """The share of open neurons at each step, a panel a layer, all on the same axes.

    Args:
        rates: label -> :func:`.gates.update_rate` of a layer.
        path: the PNG.
        title: of the figure.

    Raises:
        ValueError: nothing to draw.
    """
    _some(rates)
    shown = {label: rate.by_step[~np.isnan(rate.by_step)] for label, rate in rates.items()}
    with sheet(9, 0.9 + 1.6 * len(shown), title, path) as figure:
        axes = figure.subplots(len(shown), sharex=True, sharey=True, squeeze=False)[:, 0]
        for axis, (label, share) in zip(axes, shown.items(), strict=True):
            steps = len(share)
            width = steps // 50 if steps >= _SMOOTH_FROM else 0
            axis.stairs(
                100 * share, np.arange(steps + 1), fill=True, color=BLUE,
                alpha=0.35 if width else 0.8,
            )  # fmt: skip
            name = f"{label}: {100 * rates[label].mean:.1f} % of its neurons update in a step"
            if width:
                mean = np.convolve(share, np.full(width, 1 / width), mode="valid")
                at = np.arange(len(mean)) + width / 2
                axis.plot(at, 100 * mean, color=BLACK, linewidth=1.2)
                name += f"; line: mean of {width} steps"
            axis.set_title(name)
            axis.set_ylabel("open [%]")
            axis.grid(axis="y")
        axes[0].set_ylim(0, None)
        axes[0].margins(x=0)
        axes[-1].set_xlabel("time [steps]")
        axes[-1].locator_params(axis="x", integer=True)
    return figure


def periods(measured: Mapping[str, np.ndarray], path: str | os.PathLike, title: str = "") -> Any:
    """Histograms of the neurons' periods, a panel a layer; its title counts those without one.

    Args:
        measured: label -> periods in steps ``[H]``, NaN for none, as :func:`.gates.periods`
            gives them in `between` or `dominant`.
        path: the PNG.
        title: of the figure; it should name which of the two is drawn.

    Raises:
        ValueError: nothing to draw.
    """
    _some(measured)
    known = {label: own[~np.isnan(own)] for label, own in measured.items()}
    every = np.concatenate(list(known.values()))
    if not every.size:
        raise ValueError("no period to draw: every one is NaN")
    low, high = np.log10(every.min()) - 0.05, np.log10(every.max()) + 0.05
    edges = np.logspace(low, high, max(2, round(_BINS_A_DECADE * (high - low)) + 1))
    with sheet(8, 1.2 + 1.5 * len(known), title, path) as figure:
        axes = figure.subplots(len(known), sharex=True, sharey=True, squeeze=False)[:, 0]
        for axis, (label, own) in zip(axes, known.items(), strict=True):
            whole = len(measured[label])
            without = (
                f", {whole - len(own)} without a measurable period" if len(own) < whole else ""
            )
            axis.stairs(np.histogram(own, edges)[0], edges, fill=True, color=BLUE, alpha=0.8)
            axis.set_title(f"{label}: {whole} neurons{without}")
            axis.set_ylabel("neurons")
            axis.grid(axis="y")
        axes[0].set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(0, None))
        axes[0].locator_params(axis="y", integer=True)
        axes[-1].set_xlabel("period [steps]")
        _plain(axes[-1].xaxis)
    return figure


def memory_survival(
    memories: Mapping[str, Memory], path: str | os.PathLike, title: str = ""
) -> Any:
    """How long values stay, bit for bit: by stretches, and by the share of all memory in them.

    Args:
        memories: label -> :func:`.gates.memory` of a layer.
        path: the PNG.
        title: of the figure.

    Raises:
        ValueError: nothing to draw, or a layer that never updated.
    """
    _some(memories)
    for label, own in memories.items():
        if not own.longest:
            raise ValueError(f"{label}: nothing was ever written, so nothing was kept")
    with sheet(10, 4.4, title, path) as figure:
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        for number, (label, own) in enumerate(memories.items()):
            colour, dashes = _look(number)
            steps = np.arange(1, own.longest + 1)
            for axis, share in ((left, own.survival), (right, own.held)):
                axis.plot(
                    steps, 100 * share[1 : own.longest + 1], color=colour, linestyle=dashes,
                    label=label, marker="o", markevery=[-1], markersize=4,
                )  # fmt: skip
        left.set_title("Stretches: values kept for n steps or more")
        right.set_title("Memory (neurons × steps) in such stretches")
        for axis in (left, right):
            axis.set(xscale="log", yscale="log", xlabel="kept unchanged for n steps or more")
            axis.grid()
            _plain(axis.xaxis)
            _plain(axis.yaxis)
        left.set_ylabel("share [%]")
        figure.legend(*left.get_legend_handles_labels(), loc="outside right upper")
    return figure


def gradient_reach(
    reaches: Mapping[str, Reach], path: str | os.PathLike, title: str = "", *, steps: int
) -> Any:
    """The gradient that reaches earlier steps, on a logarithmic axis; a gradient of 0 is a gap.

    Values below 1e-12, which a sum in float32 no longer notices, are off the picture.

    Args:
        reaches: label -> :func:`.gradients.gradient_reach` of a run.
        path: the PNG.
        title: of the figure.
        steps: T, the length of the sequences; the last step has 1.

    Raises:
        ValueError: nothing to draw.
    """
    _some(reaches)
    with sheet(9, 4.4, title, path) as figure:
        axis = figure.subplots()
        for number, (label, reach) in enumerate(reaches.items()):
            colour, dashes = _look(number)
            share = np.append(reach.relative, 1.0)
            axis.plot(
                np.append(reach.times, steps - 1), np.where(share > 0, share, np.nan),
                color=colour, linestyle=dashes, label=label, marker="o", markersize=3.5,
            )  # fmt: skip
        axis.set(yscale="log", xlabel="time t [steps]")
        axis.set_ylabel(r"$|\partial L/\partial h_t|\ /\ |\partial L/\partial h_{\mathrm{last}}|$")
        axis.locator_params(axis="x", integer=True)
        axis.set_xlim(0, steps)
        if axis.get_ylim()[0] < _FAINT:
            axis.set_ylim(bottom=_FAINT)
            axis.set_title(f"Values below {_FAINT:g} are off the picture")
        axis.grid(axis="y")
        figure.legend(loc="outside right upper")
    return figure


def _some(entries: Mapping[str, Any]) -> None:
    if not entries:
        raise ValueError("nothing to draw")


def _look(number: int) -> tuple[str, Any]:
    """Colour and dashes, so that neighbours differ in both."""
    return COLOURS[number % len(COLOURS)], _DASHES[number % len(_DASHES)]


def _plain(axis: Any) -> None:
    """Plain numbers at decades and, if these are few, between."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    few = np.log10(high / low) < 2.5
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(lambda value, _: f"{value:g}")
