"""The loop that both trainers share: one run, and a population of runs."""

import abc
import sys
import time
from pathlib import Path
from typing import Any

from surnn_jax.train import checkpoint
from surnn_jax.train.distributed import HostAllReduce, barrier, is_first
from surnn_jax.train.monitoring import Reporter, StallWatchdog
from surnn_jax.train.settings import Settings, check_same
from surnn_jax.train.signals import Interrupted, Signals
from surnn_jax.typing import Params

COMPILING = "compiling: the first step, and the first validation, take longer"


class Trainable(abc.ABC):
    """A resumable training in one folder: what `run_epochs` drives.

    This class opens and saves checkpoints and keeps the time. A subclass says what is trained: it
    defines the abstract methods, and keeps `state`, `best`, `step` and `epochs` up to date.

    Attributes:
        settings: how long to train, and how to recover.
        steps_per_epoch: steps between two validations.
        workdir: the run's folder.
        identity: the values that determine the numbers, see `settings.identity`.
        state: a tree of arrays on the device, see `checkpoint.Writer.save`.
        best: the parameters of the best epoch.
        step: steps done.
        epochs: finished epochs, validation included.
        saved: (step, epochs) of the last checkpoint, None before the first.
        resumed: whether it goes on from a checkpoint.
        all_reduce: the largest of a number over the processes of the run.
    """

    state: Any
    best: Params
    extends = False
    """Whether a run goes on if it is given more epochs than it began with."""

    def __init__(
        self,
        settings: Settings,
        steps_per_epoch: int,
        workdir: Path,
        identity: dict[str, Any],
    ):
        self.settings, self.steps_per_epoch = settings, steps_per_epoch
        self.workdir, self.identity = workdir, identity
        self.step, self.epochs = 0, 0
        self.saved: tuple[int, int] | None = None
        self.resumed = False
        self.all_reduce = HostAllReduce()
        self._started = time.perf_counter()

    @abc.abstractmethod
    def begin(self) -> None:
        """Makes the state before the first step."""

    @abc.abstractmethod
    def restore(self, folder: Path, record: dict[str, Any]) -> float:
        """Reads the state, `step` and `epochs` from a checkpoint; returns its wall time."""

    @property
    @abc.abstractmethod
    def finished(self) -> bool:
        """Whether training is over."""

    @abc.abstractmethod
    def advance(self) -> None:
        """Does one step."""

    @abc.abstractmethod
    def validate(self, signals: Signals) -> None:
        """Ends an epoch, unless a signal comes first: then the epoch stays open."""

    @abc.abstractmethod
    def record(self) -> dict[str, Any]:
        """All but `state` and `best` that a checkpoint needs, as JSON; checks what is saved.

        Raises:
            FloatingPointError: a number is not finite, so nothing may be saved.
        """

    @abc.abstractmethod
    def shown(self) -> dict[str, float]:
        """Values for the progress bar."""

    @property
    def seconds(self) -> float:
        """Wall time so far over all resumptions, without work that was lost and redone."""
        return time.perf_counter() - self._started

    def open(self) -> None:
        """Restores the newest checkpoint in the folder, or begins and saves step 0.

        Raises:
            CorruptCheckpointError: a checkpoint that is not what was saved.
            ValueError: the folder holds a run of another configuration.
        """
        folder = checkpoint.find(self.workdir, self.settings.restore)
        barrier("found")  # From here on the first process may change what is in the folder.
        if folder is None:
            if is_first():
                print(COMPILING, file=sys.stderr, flush=True)
            self.begin()
        else:
            record = checkpoint.read_record(folder)
            check_same(record, self.identity, self.workdir, extends=self.extends)
            self._started -= self.restore(folder, record)
            self.saved = (self.step, self.epochs)
            self.resumed = True
        self.writer = checkpoint.Writer(self.workdir, None if folder is None else self.step)
        self.save()
        self.writer.wait()

    def save(self) -> None:
        """Saves a checkpoint if there is something new."""
        now = (self.step, self.epochs)
        # A step that is saved already is only saved again if its validation has ended the run.
        if self.saved == now or (self.saved and self.saved[0] == now[0] and not self.finished):
            return
        record = {**self.identity, **self.record()}
        self.writer.save(self.step, self.state, self.best, record)
        self.saved = now

    def close(self) -> None:
        """Waits for the last save and ends all threads."""
        self.writer.close()


def run_epochs(run: Trainable, signals: Signals) -> None:
    """Trains to the end.

    Raises:
        Interrupted: a signal came; all is saved.
    """
    if run.finished:
        return
    total = run.settings.max_epochs * run.steps_per_epoch
    with (
        Reporter(total, run.step, shown=is_first()) as reporter,
        StallWatchdog(reporter.say) as watchdog,
    ):
        if run.step:
            reporter.say(f"resuming from step {run.step} in {run.workdir}")
        if run.resumed:
            reporter.say(COMPILING)
        last_save = time.monotonic()
        while not run.finished:
            if _validation_next(run):
                run.validate(signals)
            else:
                run.advance()
            watchdog.step()
            due = time.monotonic() - last_save >= run.settings.save_seconds
            caught, due = run.all_reduce.max(signals.caught or 0, due and is_first())
            if caught:
                run.save()
                run.writer.wait()
                reporter.say(f"stopped by a signal; step {run.step} is saved in {run.workdir}")
                raise Interrupted(caught)
            # Right before a validation, which changes the record, the save waits for it.
            if due and not _validation_next(run):
                run.save()
                last_save = time.monotonic()
            if reporter.due():
                reporter.show(run.step, run.shown())
        run.save()
        reporter.show(run.step, run.shown())


def _validation_next(run: Trainable) -> bool:
    return run.step == (run.epochs + 1) * run.steps_per_epoch
