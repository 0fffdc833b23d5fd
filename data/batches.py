"""Batches of examples: a batch is a pure function of the seed and the step.

There is no state to save or restore: ``batch(step)`` gives the same arrays in any process, in any
order of calls.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data.storage import Ragged

Batch = dict[str, np.ndarray]
"""Every column by its name, in its own dtype: ``[B, T, ...]``, zero after a row's end, where it is
ragged, else ``[B, ...]``. ``lengths`` int32 ``[B]`` are those of ``x``, ``lengths_<name>`` those of
any other ragged column. ``index`` int32 ``[B]`` is a row's place in the split. An empty row, which
fills up a batch: length 0, index -1. A batch with such rows has ``lengths`` in any case, so that
what is averaged over steps can leave them out."""


ALL = slice(None)
"""All rows of a batch. If several processes share the work, each asks for some of the rows, and
only those are read."""


class Batches:
    """Batches of whole examples of similar length.

    Lengths are rounded up to the rungs of a ladder: the top one is the longest sequence, and each
    lower one is smaller by the factor ``bucket_growth``; a batch is as long as the rung of its
    longest row. So few shapes occur, and a model is compiled once for each. In every epoch the
    examples are shuffled, put in the order of their rungs and cut every ``batch_size``; then the
    batches are shuffled. If the count does not divide, the batch of the shortest
    sequences is filled up with empty rows.

    Attributes:
        steps_per_epoch: ceil(N / B).
        ladder: the padded lengths that may occur, ascending.

    Examples:
        >>> from data.batches import Batches
        >>> batches = Batches({"x": [np.ones((n, 3)) for n in (2, 4, 5, 5)]}, batch_size=2)
        >>> batches.steps_per_epoch, batches.ladder
        (2, (3, 4, 5))
        >>> sorted(batches.batch(0))
        ['index', 'lengths', 'x']
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray | Sequence[np.ndarray]],
        batch_size: int,
        seed: int = 0,
        *,
        bucket_growth: float = 2**0.5,
        max_length: int | None = None,
    ):
        """Sorts the examples by length; copies nothing.

        Args:
            columns: by name, such as ``Split.columns``: an array ``[N, ...]``, or N arrays
                ``[T, ...]``, T >= 1.
            batch_size: B, the rows of every batch.
            seed: decides the order, together with the epoch.
            bucket_growth: the factor between two rungs; closer to 1: less padding, more shapes.
            max_length: sequences are cut after so many steps; None keeps them whole.

        Raises:
            ValueError: no example, columns of different counts or an empty sequence; a batch size,
                seed, bucket_growth or max_length out of range.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, not {seed}")
        if not bucket_growth > 1:
            raise ValueError(f"bucket_growth must be greater than 1, not {bucket_growth}")
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1, not {max_length}")
        counts = {name: len(column) for name, column in columns.items()}
        self._count = min(counts.values(), default=0)
        if not self._count:
            raise ValueError("no examples to make batches of")
        if len(set(counts.values())) > 1:
            raise ValueError(f"columns of different counts: {counts}")
        self._columns = dict(columns)
        self._size = batch_size
        self._seed = seed
        self._lengths = {}
        for name, column in columns.items():
            if not isinstance(column, np.ndarray):
                lengths = _lengths(column)
                if not lengths.all():
                    raise ValueError(
                        f"{name} of example {int(np.argmin(lengths))} is empty; it needs a step"
                    )
                self._lengths[name] = (
                    lengths if max_length is None else np.minimum(lengths, max_length)
                )
        # The longest of an example's sequences decides where it goes.
        tops = np.maximum.reduce([*self._lengths.values(), np.ones(self._count, np.int32)])
        self.ladder = _ladder(int(tops.min()), int(tops.max()), bucket_growth)
        self._tops = tops
        self._rungs = np.searchsorted(self.ladder, tops)
        self.steps_per_epoch = -(-self._count // batch_size)
        # The last epoch's order, kept for speed alone.
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def batch(self, step: int, rows: slice = ALL) -> Batch:
        """The batch of training step ``step``, counted from 0 through all epochs.

        Args:
            step: at least 0.
            rows: which of its B rows to make; they equal those of the whole batch.

        Raises:
            ValueError: ``step`` is negative.
        """
        if step < 0:
            raise ValueError(f"step must be at least 0, not {step}")
        epoch, place = divmod(step, self.steps_per_epoch)
        known, order = self._order
        if known != epoch:
            order = self._shuffled(epoch)
            self._order = epoch, order
        return self._padded(order[place], rows)

    def evaluation(self, rows: slice = ALL) -> Iterator[Batch]:
        """The whole split once, in a fixed order: the shortest sequences first.

        ``index`` tells where in the split each row belongs.
        """
        for order in self._cut(np.argsort(self._tops, kind="stable")):
            yield self._padded(order, rows)

    def _shuffled(self, epoch: int) -> np.ndarray:
        random = np.random.Generator(np.random.PCG64([self._seed, epoch]))
        order = random.permutation(self._count)
        return random.permutation(self._cut(order[np.argsort(self._rungs[order], kind="stable")]))

    def _cut(self, order: np.ndarray) -> np.ndarray:
        empty = self.steps_per_epoch * self._size - len(order)
        return np.pad(order, (empty, 0), constant_values=-1).reshape(-1, self._size)

    def _padded(self, order: np.ndarray, part: slice) -> Batch:
        # The whole batch decides how long every part of it is.
        steps = self.ladder[self._rungs[order[order >= 0]].max()]
        rows = order[part]
        valid = rows >= 0
        kept = rows[valid]
        batch: Batch = {"index": rows.astype(np.int32)}
        for name, column in self._columns.items():
            if name not in self._lengths:
                batch[name] = np.zeros((len(rows), *column.shape[1:]), column.dtype)
                batch[name][valid] = column[kept]
                if name == "x" and column.ndim > 1 and (order < 0).any():
                    batch["lengths"] = np.where(valid, column.shape[1], 0).astype(np.int32)
                continue
            lengths = np.zeros(len(rows), np.int32)
            lengths[valid] = self._lengths[name][kept]
            first = column[int(order[-1])]  # Never an empty row: those come first.
            padded = np.zeros((len(rows), steps, *first.shape[1:]), first.dtype)
            for row, index in enumerate(rows):
                if index >= 0:
                    padded[row, : lengths[row]] = column[int(index)][: lengths[row]]
            batch[name] = padded
            batch["lengths" if name == "x" else f"lengths_{name}"] = lengths
        return batch


def _lengths(column: Sequence[np.ndarray]) -> np.ndarray:
    if isinstance(column, Ragged):
        return column.lengths.astype(np.int32)
    return np.array([len(sequence) for sequence in column], np.int32)


def _ladder(shortest: int, longest: int, growth: float) -> tuple[int, ...]:
    rungs = [longest]
    while (lower := min(int(np.ceil(rungs[-1] / growth)), rungs[-1] - 1)) >= shortest:
        rungs.append(lower)
    return tuple(reversed(rungs))
