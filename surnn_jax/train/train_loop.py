"""The loop that takes a run, or a population, from where it stands to its end."""

import time
from pathlib import Path
from typing import Any, Protocol

from surnn_jax.train.checkpoint import Writer
from surnn_jax.train.distributed import HostAllReduce, is_first
from surnn_jax.train.monitoring import Reporter
from surnn_jax.train.settings import Settings
from surnn_jax.train.signals import Interrupted, Signals
from surnn_jax.train.watch import StallWatchdog


class Trainable(Protocol):
    """What is driven.

    Attributes:
        settings: how long, and how to be safe.
        steps_per_epoch: steps between two validations.
        workdir: its folder.
        writer: of its checkpoints.
        agreement: what its processes were told.
        step: steps done.
        epochs: epochs that are over, validation included.
        finished: whether nothing is left to do.
    """

    settings: Settings
    steps_per_epoch: int
    workdir: Path
    writer: Writer
    agreement: HostAllReduce
    step: int

    @property
    def epochs(self) -> int: ...

    @property
    def finished(self) -> bool: ...

    def advance(self) -> None:
        """One step."""

    def validate(self, signals: Signals) -> None:
        """Ends an epoch, unless a signal comes first: then the epoch stays open."""

    def save(self) -> None:
        """Saves all that is new."""

    def shown(self) -> dict[str, Any]:
        """What the progress bar says."""


def run_epochs(run: Trainable, signals: Signals) -> None:
    """Trains to the end, or raises `Interrupted` once a signal is there."""
    if run.finished:
        return
    total = run.settings.max_epochs * run.steps_per_epoch
    with (
        Reporter(total, run.step, shown=is_first()) as reporter,
        StallWatchdog(reporter.say) as watch,
    ):
        if run.step:
            reporter.say(f"going on from step {run.step} in {run.workdir}")
        last_save = time.monotonic()
        while not run.finished:
            if _validation_next(run):
                run.validate(signals)
            else:
                run.advance()
            watch.step()
            due = time.monotonic() - last_save >= run.settings.save_seconds
            caught, due = run.agreement.ask(signals.caught or 0, due and is_first())
            if caught:
                run.save()
                run.writer.wait()
                reporter.say(f"told to stop; step {run.step} is saved in {run.workdir}")
                raise Interrupted(caught)
            # What a validation is about to change is saved after it.
            if due and not _validation_next(run):
                run.save()
                last_save = time.monotonic()
            if reporter.due():
                reporter.show(run.step, run.shown())
        run.save()
        reporter.show(run.step, run.shown())


def _validation_next(run: Trainable) -> bool:
    return run.step == (run.epochs + 1) * run.steps_per_epoch
