"""Batches of padded sequences: a batch is a pure function of the seed and the step.

There is no state to save or restore: ``batch(step)`` gives the same arrays in any process, in any
order of calls.
"""

from collections.abc import Iterator, Sequence

import numpy as np

Batch = dict[str, np.ndarray]
"""``x`` float32 ``[B, T, D]``, zero after a row's end; ``lengths`` int32 ``[B]``; ``index`` int32
``[B]``, a row's place in the split. An empty row, which fills up a batch: length 0, index -1."""


class Batches:
    """Cuts a split into batches of whole sequences of about one length.

    Lengths are rounded up to the rungs of a ladder, of which the top one is the longest sequence
    and each lower one is smaller by the factor ``growth``; a batch is as long as the rung of its
    longest row. So few shapes occur, each of which a model is compiled for once. In every epoch the
    sequences are shuffled, put in the order of their rungs and cut every ``batch_size``; then the
    batches are shuffled. Where the count does not divide, the batch of the shortest sequences is
    filled up with empty rows.

    Attributes:
        steps_per_epoch: ceil(N / B).
        ladder: the padded lengths that may occur, ascending.
    """

    def __init__(
        self,
        sequences: Sequence[np.ndarray],
        batch_size: int,
        seed: int = 0,
        *,
        growth: float = 2**0.5,
    ):
        """Sorts the sequences by length; copies nothing.

        Args:
            sequences: N arrays ``[T, D]``, T >= 1.
            batch_size: B, the rows of every batch.
            seed: decides the order, together with the epoch.
            growth: the factor between two rungs; nearer to 1: less padding, more shapes.

        Raises:
            ValueError: no or an empty sequence; a batch size, seed or growth out of range.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, not {seed}")
        if not growth > 1:
            raise ValueError(f"growth must be greater than 1, not {growth}")
        if not sequences:
            raise ValueError("no sequences to make batches of")
        self._sequences = sequences
        self._size = batch_size
        self._seed = seed
        self._lengths = np.array([len(sequence) for sequence in sequences], np.int32)
        if not self._lengths.all():
            raise ValueError(f"sequence {int(np.argmin(self._lengths))} is empty; it needs a step")
        self.ladder = _ladder(int(self._lengths.min()), int(self._lengths.max()), growth)
        self._rungs = np.searchsorted(self.ladder, self._lengths)
        self.steps_per_epoch = -(-len(sequences) // batch_size)
        # The last epoch's order, kept for speed alone.
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def batch(self, step: int) -> Batch:
        """The batch of training step ``step``, counted from 0 through all epochs.

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
        return self._padded(order[place])

    def evaluation(self) -> Iterator[Batch]:
        """The whole split once, in a fixed order: the shortest sequences first.

        ``index`` tells where in the split each row belongs.
        """
        for rows in self._cut(np.argsort(self._lengths, kind="stable")):
            yield self._padded(rows)

    def _shuffled(self, epoch: int) -> np.ndarray:
        random = np.random.Generator(np.random.PCG64([self._seed, epoch]))
        order = random.permutation(len(self._sequences))
        return random.permutation(self._cut(order[np.argsort(self._rungs[order], kind="stable")]))

    def _cut(self, order: np.ndarray) -> np.ndarray:
        empty = self.steps_per_epoch * self._size - len(order)
        return np.pad(order, (empty, 0), constant_values=-1).reshape(-1, self._size)

    def _padded(self, rows: np.ndarray) -> Batch:
        # A batch has at least one row that is not empty, and its rows ascend by rung.
        steps = self.ladder[self._rungs[rows[-1]]]
        x = np.zeros((self._size, steps, *self._sequences[rows[-1]].shape[1:]), np.float32)
        lengths = np.zeros(self._size, np.int32)
        for row, index in enumerate(rows):
            if index >= 0:
                lengths[row] = self._lengths[index]
                x[row, : lengths[row]] = self._sequences[index]
        return {"x": x, "lengths": lengths, "index": rows.astype(np.int32)}


def _ladder(shortest: int, longest: int, growth: float) -> tuple[int, ...]:
    rungs = [longest]
    while (lower := min(int(np.ceil(rungs[-1] / growth)), rungs[-1] - 1)) >= shortest:
        rungs.append(lower)
    return tuple(reversed(rungs))
