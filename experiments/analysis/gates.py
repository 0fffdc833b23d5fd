"""How often, when and for how long the neurons of a trained model update.

The functions take the update mask of one recurrent layer, a NumPy array of booleans, true if a
neuron updates: ``[T, H]`` if the batch shares it, else ``[B, T, H]``. With `lengths`, integers
``[B]``, steps beyond them do not count. A layer's run holds its mask as numbers:
``np.asarray(run.update_mask) == 1``. How far back a gradient reaches is measured in
:mod:`experiments.analysis.gradients`.
"""

import math
from typing import NamedTuple

import numpy as np

_RARE = 0.01


class UpdateRate(NamedTuple):
    """How often neurons updated.

    Attributes:
        mean: share of valid steps at which a neuron was open, over all neurons.
        by_neuron: ``[H]``, the same of each neuron.
        by_step: ``[T]``, share of open neurons at each step; NaN if no example is that long.
        dead: share of neurons that were never open.
        rare: share of neurons that were open at less than 1 % of the steps, dead ones included.
        always: share of neurons that were always open.
    """

    mean: float
    by_neuron: np.ndarray
    by_step: np.ndarray
    dead: float
    rare: float
    always: float


def update_rate(table: np.ndarray, lengths: np.ndarray | None = None) -> UpdateRate:
    """How often the neurons of a layer updated, over examples, neurons and time.

    Raises:
        ValueError: a table or lengths of another kind, or no valid step.
    """
    examples = _examples(table, lengths)
    opened, count = np.zeros(table.shape[-2:]), np.zeros(table.shape[-2])
    for own in examples:
        opened[: len(own)] += own
        count[: len(own)] += 1
    by_neuron = opened.sum(0) / count.sum()
    by_step = np.full(len(count), np.nan)
    np.divide(opened.mean(1), count, out=by_step, where=count > 0)
    return UpdateRate(
        float(by_neuron.mean()),
        by_neuron,
        by_step,
        float((by_neuron == 0).mean()),
        float((by_neuron < _RARE).mean()),
        float((by_neuron == 1).mean()),
    )


class Periods(NamedTuple):
    """The periods that can be read off a table, in steps, ``[H]`` each.

    Attributes:
        between: median time from one opening (closed before, open now) to the next; NaN for a
            neuron that opened less than twice.
        dominant: period of the strongest line in the power spectrum, averaged over examples (of
            equals the slowest); NaN for a neuron that never changed, or if fewer than two such
            periods fit in.
        strength: the share of the power that lies in that line. A sine has 1; pulses that fill a
            small share d of the steps about 2 d; noise of T steps some 30 / T.
    """

    between: np.ndarray
    dominant: np.ndarray
    strength: np.ndarray


def periods(table: np.ndarray, lengths: np.ndarray | None = None) -> Periods:
    """The rhythm of every neuron. `between` is its median alone: beside it stands the spectrum.

    If the batch shares the table, only the longest example is read.

    Raises:
        ValueError: a table or lengths of another kind, or no valid step.
    """
    examples = [own for own in _examples(table, lengths) if len(own)]
    if table.ndim == 2:
        examples = [max(examples, key=len)]
    neurons = table.shape[-1]
    whose, gaps = [], []
    for own in examples:
        neuron, step = np.nonzero((own[1:] & ~own[:-1]).T)
        same = neuron[1:] == neuron[:-1]
        whose.append(neuron[1:][same])
        gaps.append(np.diff(step)[same])
    whose, gaps = np.concatenate(whose), np.concatenate(gaps)
    between = np.full(neurons, np.nan)
    for neuron in np.unique(whose):
        between[neuron] = np.median(gaps[whose == neuron])
    return Periods(between, *_spectrum(examples, neurons))


def _spectrum(examples: list[np.ndarray], neurons: int) -> tuple[np.ndarray, np.ndarray]:
    """`dominant` and `strength`."""
    longest = max(map(len, examples))
    size = _FINE * 2 ** math.ceil(math.log2(longest))
    power = np.zeros((size // 2 + 1, neurons), np.float32)
    for own in examples:
        window = np.hanning(len(own) + 2)[1:-1, None].astype(np.float32)
        # So that the windowed signal has no mean, which would leak into the long periods.
        ripple = window * (own - (window * own).sum(0) / window.sum())
        power += np.abs(np.fft.rfft(ripple, size, axis=0)) ** 2
    # If openings last one step, every overtone is as strong as the fundamental.
    around = np.pad(power, ((1, 1), (0, 0)))
    peaks = (power >= around[:-2]) & (power >= around[2:]) & (power >= _TIE * power.max(0))
    peak = peaks.argmax(0)
    lobe = 2 * size / longest  # half the width of a line, by the window
    line = np.where(np.abs(np.arange(len(power))[:, None] - peak) <= lobe, power, 0).sum(0)
    still = np.all([(own == own[:1]).all(0) for own in examples], axis=0)
    unknown = still | (peak < lobe)
    dominant = np.where(unknown, np.nan, size / np.maximum(peak, 1))
    return dominant, np.where(unknown, np.nan, line / np.maximum(power.sum(0), 1e-30))


# Points of the spectrum, as a multiple of the resolution of the length. A line between two points
# looks weaker, by less than 1 % here.
_FINE = 8
_TIE = 0.95


class Memory(NamedTuple):
    """For how long values stayed, bit for bit.

    A stretch begins with the update that writes a value and ends before the next one, or with the
    sequence; one overwritten by the next step lasts 1 step. The value before the first update was
    not written, and does not count.

    Attributes:
        counts: integers ``[T + 1]``, how many stretches lasted n steps.
    """

    counts: np.ndarray

    @property
    def longest(self) -> int:
        """The longest stretch, in steps; 0 if nothing was ever written."""
        return int(np.flatnonzero(self.counts).max(initial=0))

    def quantile(self, share: float) -> float:
        """The shortest length that at least `share` of the stretches do not exceed.

        NaN if there is no stretch.
        """
        if not self.counts.any():
            return math.nan
        reached = np.cumsum(self.counts) >= share * self.counts.sum()
        return float(np.argmax(reached & (self.counts > 0)))

    @property
    def survival(self) -> np.ndarray:
        """``[T + 1]``: the share of stretches of n steps or more."""
        return _tail(self.counts)

    @property
    def held(self) -> np.ndarray:
        """``[T + 1]``: the share of memory in stretches of n steps or more.

        Memory is counted in neurons × steps: a stretch of 100 steps counts 100 times.
        """
        return _tail(self.counts * np.arange(len(self.counts)))


def _tail(weights: np.ndarray) -> np.ndarray:
    total = weights.sum()
    return np.cumsum(weights[::-1])[::-1] / total if total else np.full(len(weights), np.nan)


def memory(table: np.ndarray, lengths: np.ndarray | None = None) -> Memory:
    """How long neurons kept their values, over all neurons and examples.

    Raises:
        ValueError: a table or lengths of another kind, or no valid step.
    """
    examples = _examples(table, lengths)
    counts = np.zeros(table.shape[-2] + 1, np.int64)
    for own in examples:
        neuron, step = np.nonzero(own.T)
        until = np.full(len(step), len(own))
        until[:-1] = np.where(neuron[1:] == neuron[:-1], step[1:], len(own))
        counts += np.bincount(until - step, minlength=len(counts))
    return Memory(counts)


class Depth(NamedTuple):
    """How many updates lie between the state after step t and the end, ``[T]`` each.

    Means over the examples that have a step t, NaN if none has.

    Attributes:
        mean: updates that a neuron undergoes after t, on average over neurons: the paper's
            O(pT), p being the update rate (arXiv 2603.02226).
        longest: those of the neuron that undergoes most.
        chain: steps after t at which any neuron updates. A gradient that goes from neuron to
            neuron can pass that many updates if a candidate reads the whole state: it is the
            depth of the longest path, on which gradients may vanish.
        dense: steps after t: the value of all three for a unit without a switch.
    """

    mean: np.ndarray
    longest: np.ndarray
    chain: np.ndarray
    dense: np.ndarray


def effective_depth(table: np.ndarray, lengths: np.ndarray | None = None) -> Depth:
    """The number of updates from each step to the end.

    Raises:
        ValueError: a table or lengths of another kind, or no valid step.
    """
    examples = _examples(table, lengths)
    totals, count = np.zeros((4, table.shape[-2])), np.zeros(table.shape[-2])
    for own in examples:
        if len(own):
            opened = own.cumsum(0)
            after = opened[-1] - opened
            busy = own.any(1).cumsum()
            left = np.arange(len(own))[::-1]
            rows = (after.mean(1), after.max(1), busy[-1] - busy, left)
            totals[:, : len(own)] += np.stack(rows)
            count[: len(own)] += 1
    means = np.full_like(totals, np.nan)
    np.divide(totals, count, out=means, where=count > 0)
    return Depth(*means)


class AtEvents(NamedTuple):
    """Update rates at events and elsewhere; NaN if there is no such step.

    Attributes:
        at: share of open switches at events.
        elsewhere: the same at all other valid steps.
        neurons_at: ``[H]``, `at` of each neuron.
        neurons_elsewhere: ``[H]``, `elsewhere` of each neuron.
    """

    at: float
    elsewhere: float
    neurons_at: np.ndarray
    neurons_elsewhere: np.ndarray


def rate_at_events(
    table: np.ndarray, events: np.ndarray, lengths: np.ndarray | None = None
) -> AtEvents:
    """Whether the switches open for the informative steps.

    Args:
        table: as everywhere here.
        events: booleans ``[B, T]``, true for informative steps.
        lengths: as everywhere here.

    Raises:
        ValueError: a table, events or lengths of another kind, or no valid step.
    """
    events = np.asarray(events)
    if events.ndim != 2 or events.dtype != bool:
        raise ValueError(
            f"events should be booleans [B, T], but are {events.dtype} {list(events.shape)}"
        )
    if lengths is None:
        lengths = np.full(len(events), events.shape[1])
    examples = _examples(table, lengths)
    if events.shape != (len(examples), table.shape[-2]):
        raise ValueError(
            f"events are {list(events.shape)}, but the table has {len(examples)} examples of "
            f"{table.shape[-2]} steps"
        )
    opened, count = np.zeros((2, table.shape[-1])), np.zeros((2, 1))
    for own, event in zip(examples, events, strict=True):
        for which, chosen in enumerate((event[: len(own)], ~event[: len(own)])):
            opened[which] += own[chosen].sum(0)
            count[which] += chosen.sum()
    rates = np.full_like(opened, np.nan)
    np.divide(opened, count, out=rates, where=count > 0)
    return AtEvents(float(rates[0].mean()), float(rates[1].mean()), *rates)


def agreement(one: np.ndarray, two: np.ndarray, lengths: np.ndarray | None = None) -> float:
    """Whether two models open for the same steps of the same examples, whichever neurons do.

    Args:
        one: the table of a layer of one model.
        two: that of the other; it may have another number of neurons.
        lengths: as everywhere here.

    Returns:
        The correlation of the shares of open neurons over all valid steps: 1 if both open most at
        the same ones, 0 if they know nothing of each other; NaN if one of them never changes.

    Raises:
        ValueError: tables or lengths of another kind, different sizes, or no valid step.
    """
    shares = [[own.mean(1) for own in _examples(table, lengths)] for table in (one, two)]
    if [*map(len, shares[0])] != [*map(len, shares[1])]:
        raise ValueError(
            f"the tables {list(one.shape)} and {list(two.shape)} are not of the same examples"
        )
    first, second = (np.concatenate(own) for own in shares)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def summary(
    table: np.ndarray, lengths: np.ndarray | None = None, events: np.ndarray | None = None
) -> dict[str, float]:
    """One number of each kind for the record of a run; unknown ones are left out.

    Args:
        table: as everywhere here.
        lengths: as everywhere here.
        events: as :func:`rate_at_events` takes them, or None.

    Returns:
        Rates and shares in 0..1, periods, memory and depths in steps. ``depth`` and its kin are
        those from the first step.

    Raises:
        ValueError: as the functions above.
    """
    rate, kept = update_rate(table, lengths), memory(table, lengths)
    rhythm, depth = periods(table, lengths), effective_depth(table, lengths)
    between = rhythm.between[~np.isnan(rhythm.between)]
    found = {
        "update_rate": rate.mean,
        "dead": rate.dead,
        "rare": rate.rare,
        "always_open": rate.always,
        "period_median": float(np.median(between)) if between.size else math.nan,
        "memory_median": kept.quantile(0.5),
        "memory_p90": kept.quantile(0.9),
        "memory_p99": kept.quantile(0.99),
        "memory_longest": float(kept.longest),
        "depth": float(depth.mean[0]),
        "depth_longest": float(depth.longest[0]),
        "depth_chain": float(depth.chain[0]),
        "depth_dense": float(depth.dense[0]),
    }
    if events is not None:
        split = rate_at_events(table, events, lengths)
        found |= {"rate_at_events": split.at, "rate_elsewhere": split.elsewhere}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _examples(table: np.ndarray, lengths: np.ndarray | None) -> list[np.ndarray]:
    """The valid part ``[T_b, H]`` of every example; one example of a shared table and no lengths.

    Raises:
        ValueError: a table or lengths of another kind, or no valid step.
    """
    table = np.asarray(table)
    if table.ndim not in (2, 3) or table.dtype != bool:
        raise ValueError(
            "table should be booleans [T, H] or [B, T, H], "
            f"but is {table.dtype} {list(table.shape)}"
        )
    if lengths is None:
        found = [table] if table.ndim == 2 else list(table)
    else:
        lengths = np.asarray(lengths)
        batch = lengths.shape if table.ndim == 2 else table.shape[:1]
        steps = table.shape[-2]
        if lengths.ndim != 1 or lengths.shape != batch or lengths.dtype.kind not in "iu":
            wanted = "[B]" if table.ndim == 2 else list(batch)
            raise ValueError(
                f"lengths should be integers {wanted}, "
                f"but are {lengths.dtype} {list(lengths.shape)}"
            )
        if ((lengths < 0) | (lengths > steps)).any():
            raise ValueError(f"lengths should lie in 0..{steps}, the steps of the table")
        tables = [table] * len(lengths) if table.ndim == 2 else table
        found = [own[:length] for own, length in zip(tables, lengths, strict=True)]
    if not sum(own.size for own in found):
        raise ValueError("the table has no valid step")
    return found
