"""Batches from one long stream, for language models: a pure function of the seed and the step.

The stream is cut into rows that run side by side, and a model carries its state from one window of
a row to the next. Only the windows that are asked for are read, so the stream may lie on the disk.
"""

from collections.abc import Iterator

import numpy as np

from data.batches import ALL, Batch


class Streams:
    """Windows of B rows of a stream, to predict each token from those before it in its row.

    In every epoch the B rows lie end to end, each of ``steps_per_epoch`` windows of T tokens. They
    take up all of the stream but some tokens: at least T - 1, so that the seed and the epoch can
    move their common start and a token comes to stand in every place of a window.

    A batch is a dictionary: ``x`` int32 ``[B, T]``; ``y`` int32 ``[B, T]``, the token after each;
    ``fresh`` bool ``[B]``, whether the state must be reset because the window does not continue the
    previous one; ``lengths`` int32 ``[B]``, the steps of each row that count, T but for the
    end of an evaluation.

    Attributes:
        steps_per_epoch: windows of a row.

    Examples:
        >>> from data.streams import Streams
        >>> batch = Streams(np.arange(100, dtype=np.int32), batch_size=4, steps=5).batch(0)
        >>> batch["x"].shape, bool((batch["y"][:, :-1] == batch["x"][:, 1:]).all())
        ((4, 5), True)
    """

    def __init__(self, tokens: np.ndarray, batch_size: int, steps: int, seed: int = 0):
        """Copies nothing.

        Args:
            tokens: integers ``[N]``, such as ``split["x"][0]``.
            batch_size: B, the rows of every batch.
            steps: T, the tokens of a window.
            seed: decides the start of the rows, together with the epoch.

        Raises:
            ValueError: no stream of integers, or one too short for a window of each row; a batch
                size, number of steps or seed out of range.
        """
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("steps", steps, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise ValueError(f"a stream is integers [N], not {tokens.dtype} {list(tokens.shape)}")
        least = batch_size * steps + steps
        if len(tokens) < least:
            raise ValueError(
                f"{len(tokens)} tokens are too few for {batch_size} rows of {steps} steps, which "
                f"take {least}; choose fewer rows or steps"
            )
        self._tokens = tokens
        self._rows, self._steps, self._seed = batch_size, steps, seed
        self.steps_per_epoch = (len(tokens) - steps) // (batch_size * steps)

    def batch(self, step: int, rows: slice = ALL) -> Batch:
        """The batch of training step ``step``, counted from 0 through all epochs.

        Args:
            step: at least 0.
            rows: which of its B rows to read.

        Raises:
            ValueError: ``step`` is negative.
        """
        if step < 0:
            raise ValueError(f"step must be at least 0, not {step}")
        epoch, place = divmod(step, self.steps_per_epoch)
        row = self.steps_per_epoch * self._steps
        # The last token is predicted, but nothing from it.
        spare = len(self._tokens) - 1 - self._rows * row
        start = int(np.random.Generator(np.random.PCG64([self._seed, epoch])).integers(spare + 1))
        starts = start + row * np.arange(self._rows) + self._steps * place
        return self._windows(starts[rows], np.full(self._rows, self._steps)[rows], place == 0)

    def evaluation(self, rows: slice = ALL) -> Iterator[Batch]:
        """The whole stream once: every token but the first is predicted exactly once.

        The rows are of one length as far as that goes; a batch of one row reads the stream from end
        to end. Past the end of a row ``x`` and ``y`` are 0.
        """
        pairs = len(self._tokens) - 1
        starts = np.arange(self._rows + 1) * pairs // self._rows
        for offset in range(0, int(np.diff(starts).max()), self._steps):
            left = np.clip(np.diff(starts) - offset, 0, self._steps)
            yield self._windows(starts[:-1][rows] + offset, left[rows], offset == 0)

    def _windows(self, starts: np.ndarray, lengths: np.ndarray, fresh: bool) -> Batch:
        x = np.zeros((len(starts), self._steps), np.int32)
        y = np.zeros_like(x)
        for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            x[row, :length] = self._tokens[start : start + length]
            y[row, :length] = self._tokens[start + 1 : start + 1 + length]
        return {
            "x": x,
            "y": y,
            "fresh": np.full(len(starts), fresh),
            "lengths": lengths.astype(np.int32),
        }
