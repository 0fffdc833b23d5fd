"""Makes batches ahead, while the model works on earlier ones."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(make: Callable[[int], Item], steps: Iterable[int], depth: int = 2) -> Iterator[Item]:
    """Makes a batch a step in a thread of its own, some steps ahead.

    Args:
        make: from a step, its batch; with ``jax.device_put`` in it, the copy to the device is made
            ahead, too. Is called for one step after the other, in one thread.
        steps: which batches, in this order; may be endless.
        depth: how many are kept ready.

    Returns:
        A generator of the batches. What ``make`` raises it raises, in the place of that batch.
        Closing it ends the thread, at the latest when the batch that it is making is done.

    Raises:
        ValueError: ``depth`` is below 1.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, not {depth}")
    return _prefetched(make, iter(steps), depth)


def _prefetched(make: Callable[[int], Item], steps: Iterator[int], depth: int) -> Iterator[Item]:
    with ThreadPoolExecutor(1, "prefetch") as thread:
        try:
            ahead = deque(thread.submit(make, step) for step in islice(steps, depth))
            while ahead:
                batch = ahead.popleft().result()
                ahead.extend(thread.submit(make, step) for step in islice(steps, 1))
                yield batch
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
