"""Times variants against one another in one process, round by round."""

import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

TOLERANCE = 1e-3
"""Largest difference from the baseline's answer, as a share of the norm of what is compared.

float32 has 6e-8. Gradients are sums of thousands to millions of products, in different orders and
with some cancellation: 1e-6 is usual, 1e-4 was seen. A missing term shows as more than 1e-2. Each
record has the difference found as ``difference``.
"""


@dataclasses.dataclass(frozen=True)
class Entrant:
    """A variant in a race.

    Attributes:
        backend: its name in the records.
        call: runs it once and returns its answer, a tree of arrays, perhaps still being computed.
        facts: fields of its record: ``schedule``, ``switch``, ``rate``, ``computed``, ``asked``.
        against: keys of the entrants in the same race that it is compared with.
        wanted: returns the correct answer; None if its own counts as correct.
        read: converts its answer to the form of `wanted`.
    """

    backend: str
    call: Callable[[], Any]
    facts: Mapping[str, Any]
    against: tuple[str, ...] = ()
    wanted: Callable[[], Any] | None = None
    read: Callable[[Any], Any] = lambda answer: answer


def stream(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, frames: Any) -> Any:
    """Takes a step a frame, each waiting for the answer of the one before; the last answer."""
    for frame in frames:
        carry, out = step(carry, frame)
        jax.block_until_ready(out)
    return out


def race(
    entrants: Mapping[str, Entrant],
    rounds: int,
    seed: int = 0,
    tick: Callable[[], Any] = int,
    warm: int = 0,
    tolerance: float = TOLERANCE,
    cpu_time: bool = False,
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Checks all answers, then times each entrant once a round, each round in a new order.

    The first call of an entrant compiles, the second warms up.

    Args:
        entrants: key -> variant.
        rounds: how often each is timed.
        seed: of the orders.
        tick: called ``len(entrants) * (rounds + 2)`` times, for a progress bar.
        warm: untimed calls of the same entrant right before each timed one. A call of a few
            milliseconds depends on whether its weights are in the cache.
        tolerance: of :func:`agree`.
        cpu_time: time what the processors spend on this process instead of the wall clock.

    Returns:
        Key -> milliseconds of each round; key -> difference from the correct answer.

    Raises:
        ValueError: an answer is wrong; nothing is timed then.
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
    clock = time.process_time if cpu_time else time.perf_counter
    for _ in range(rounds):
        draw.shuffle(order)
        for key in order:
            for _ in range(warm):
                jax.block_until_ready(entrants[key].call())
            start = clock()
            jax.block_until_ready(entrants[key].call())
            times[key].append(1e3 * (clock() - start))
            tick()
    return times, differences


def agree(name: str, answer: Any, wanted: Any, tolerance: float = TOLERANCE) -> float:
    """The largest difference of two trees, leaf by leaf, as a share of the wanted leaf's norm.

    Raises:
        ValueError: it is above `tolerance` or not a number; names the leaf.
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

    Not the ratio of the medians: a slow spell of a shared machine hits a whole round and cancels.
    """
    return float(np.median(np.asarray(base) / np.asarray(times)))
