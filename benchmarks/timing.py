"""Variants raced against one another in one process, round by round."""

import ctypes
import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

TOLERANCE = 1e-3
"""Largest difference from the baseline's answer, as a share of the norm of what is compared.

float32 keeps 6e-8. Gradients are sums of thousands to millions of products, in another order and
with some cancellation: 1e-6 is usual, 1e-4 was seen. A term that is missing shows as more than
1e-2. What was found stands in each record as ``difference``.
"""


@dataclasses.dataclass(frozen=True)
class Entrant:
    """A variant in a race.

    Attributes:
        backend: its name in the records.
        call: runs it once and returns its answer, a tree of arrays, perhaps still under way.
        facts: fields of its record: ``schedule``, ``switch``, ``rate``, ``computed``, ``asked``.
        against: entrants of the same race, by their keys, whose time is divided by its own.
        wanted: the answer it has to give; None for one that is the measure itself.
        read: brings its answer into the form of `wanted`.
    """

    backend: str
    call: Callable[[], Any]
    facts: Mapping[str, Any]
    against: tuple[str, ...] = ()
    wanted: Callable[[], Any] | None = None
    read: Callable[[Any], Any] = lambda answer: answer


def race(
    entrants: Mapping[str, Entrant],
    rounds: int,
    seed: int = 0,
    tick: Callable[[], Any] = int,
    warm: int = 0,
    tolerance: float = TOLERANCE,
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Checks what everyone computes, then times everyone once a round, in a new order each.

    The first call of each compiles, the second warms up.

    Args:
        entrants: key -> variant.
        rounds: how often each is timed.
        seed: of the orders.
        tick: called ``len(entrants) * (rounds + 2)`` times, for a progress bar.
        warm: calls of the same entrant right before each that is timed. What takes milliseconds
            is bound by where its weights are; with 0 the entrant before has others in the cache.
        tolerance: of :func:`agree`.

    Returns:
        Key -> milliseconds of wall clock a round; key -> difference from what was wanted.

    Raises:
        ValueError: an answer is not the wanted one; nothing is timed then.
    """
    differences = {}
    for key, entrant in entrants.items():
        answer = entrant.read(jax.block_until_ready(entrant.call()))
        wanted = answer if entrant.wanted is None else entrant.wanted()
        differences[key] = agree(key, answer, wanted, tolerance)
        tick()
    for entrant in entrants.values():
        jax.block_until_ready(entrant.call())
        tick()
    times: dict[str, list[float]] = {key: [] for key in entrants}
    order, draw = list(entrants), random.Random(seed)
    for _ in range(rounds):
        draw.shuffle(order)
        for key in order:
            for _ in range(warm):
                jax.block_until_ready(entrants[key].call())
            start = time.perf_counter()
            jax.block_until_ready(entrants[key].call())
            times[key].append(1e3 * (time.perf_counter() - start))
            tick()
    return times, differences


def agree(name: str, answer: Any, wanted: Any, tolerance: float = TOLERANCE) -> float:
    """The largest difference of two trees, leaf by leaf, as a share of the wanted leaf's norm.

    Raises:
        ValueError: it is above `tolerance`, or something is not a number; names the leaf.
    """
    worst = 0.0
    found = jax.tree.leaves(answer)
    for (path, leaf), other in zip(jax.tree.leaves_with_path(wanted), found, strict=True):
        leaf, other = np.asarray(leaf, np.float64), np.asarray(other, np.float64)
        apart = float(np.linalg.norm(other - leaf) / max(np.linalg.norm(leaf), 1e-30))
        if not apart <= tolerance:  # so that NaN is caught
            raise ValueError(
                f"{name} computes something else than its baseline: {jax.tree_util.keystr(path)} "
                f"differs by {apart:.2g} of its norm, more than {tolerance}; nothing was timed"
            )
        worst = max(worst, apart)
    return worst


def milliseconds(times: Sequence[float]) -> float:
    """The median."""
    return float(np.median(times))


def spread(times: Sequence[float]) -> list[float]:
    """Minimum and both quartiles."""
    return [float(v) for v in np.percentile(times, (0, 25, 75))]


def speedup(base: Sequence[float], times: Sequence[float]) -> float:
    """The median over the rounds of base / variant.

    Not the ratio of the medians: a slow spell of a shared machine falls on all of a round and
    cancels within it.
    """
    return float(np.median(np.asarray(base) / np.asarray(times)))


def keep_memory() -> bool:
    """Tells glibc to keep freed memory; False where there is no glibc.

    Without it a fresh array of some megabytes is mapped, and its pages are touched for the first
    time, at every call: at 5 % updates that takes as long as the good kernel it is timed with.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):
        return False
    # One arena: those of threads are given back whatever the threshold is. The masked scan was as
    # fast as with several, those that need less memory than it were faster.
    trim_threshold, top_pad, most_mapped, most_arenas = -1, -2, -4, -8
    options = {trim_threshold: 2**31 - 1, top_pad: 64 << 20, most_mapped: 0, most_arenas: 1}
    return all(mallopt(option, value) for option, value in options.items())
