"""Trains several members at once, which differ in rates and seeds alone, for searches."""

import contextlib
import dataclasses
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax.train import checkpoint
from surnn_jax.train.alone import lock_directory
from surnn_jax.train.distributed import HostAllReduce
from surnn_jax.train.optimizers import OptimizerConfig, make
from surnn_jax.train.population_step import (
    PopulationState,
    advance,
    begin_all,
    measure,
    update_best,
)
from surnn_jax.train.settings import Settings, check_same, identity
from surnn_jax.train.signals import Signals
from surnn_jax.train.state import keys
from surnn_jax.train.step import copy, init_state
from surnn_jax.train.task import Task
from surnn_jax.train.train_loop import run_epochs
from surnn_jax.typing import Params

RUNNING, OK, BEHIND, DIVERGED = "running", "ok", "behind", "diverged"


class HyperParameters(NamedTuple):
    """What sets a member apart.

    Attributes:
        learning_rate: the peak rate.
        weight_decay: as in `OptimizerConfig`.
        seed: of its initial parameters and of its noise.
    """

    learning_rate: float
    weight_decay: float
    seed: int


class TrialResult(NamedTuple):
    """What a member comes to, in plain Python numbers that JSON keeps exactly.

    Attributes:
        status: ``ok``; ``behind`` where it was in the worse half and taken out; ``diverged`` where
            a metric was not finite, or a loss, gradient or parameter more often than the settings
            let pass; ``running`` before the end.
        best_value: lowest value of the monitored metric, None before the first validation.
        best_epoch: the epoch of `best_value`, counted from 1; 0 before the first.
        stale: epochs since `best_epoch`.
        epochs: epochs begun.
        skipped: steps left out, at which a loss, gradient or parameter was not finite.
        seconds: its share of the time of the epochs that it took part in.
    """

    status: str = RUNNING
    best_value: float | None = None
    best_epoch: int = 0
    stale: int = 0
    epochs: int = 0
    skipped: int = 0
    seconds: float = 0.0


class Population(NamedTuple):
    """What a finished population comes to; K members.

    Attributes:
        params: the parameters of each member's best epoch, ``[K, ...]`` a leaf.
        outcomes: one a member.
        seconds: wall time over all resumptions, compilation and validation included.
    """

    params: Params
    outcomes: list[TrialResult]
    seconds: float


def fit_population(
    task: Task,
    optimizer: OptimizerConfig,
    members: Sequence[HyperParameters],
    *,
    batches: Callable[[int], Any],
    steps_per_epoch: int,
    evaluation: Callable[[], Iterable[Any]],
    settings: Settings,
    workdir: str | os.PathLike,
    config: dict[str, Any],
    halvings: Sequence[int] = (),
) -> Population:
    """Trains all members on the same batches in the same order, or goes on in the same `workdir`.

    Each member is trained and stops as `fit` would do it with its rates and its seed, to rounding,
    but for those that `halvings` takes out (successive halving: Jamieson & Talwalkar 2016,
    arXiv 1502.07943). One that diverges is frozen and marked, and does not touch the others'
    numbers. A population that was killed at any moment and called again ends with the same bits; a
    finished one returns at once.

    Args:
        task: what is trained.
        optimizer: how; `members` say at which rate and weight decay.
        members: K of them.
        batches: step, counted from 0 -> batch: a pure function.
        steps_per_epoch: steps between two validations.
        evaluation: gives the batches of the validation set, the same every time.
        settings: how long, and how to be safe; its seed is not looked at, members have their own,
            and each may leave out `skip_nonfinite` steps.
        workdir: the population's folder; made where it is missing.
        config: JSON-like: all else that decides the numbers, see `fit`.
        halvings: epochs, rising, after each of which the half of the running members (if odd, the
            smaller one) whose best validation is worst is taken out.

    Raises:
        ValueError: bad arguments, or `workdir` holds a population of another configuration.
        checkpoint.DamagedError: a checkpoint that is not what was saved.
        BlockingIOError: another process trains in `workdir`.
        Interrupted: after SIGTERM (exit code 143) or SIGINT (130); all is saved.
    """
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
    if not members:
        raise ValueError("a population needs a member")
    for member in members:  # Refuses rates out of range.
        dataclasses.replace(
            optimizer, learning_rate=member.learning_rate, weight_decay=member.weight_decay
        )
    if any(low >= high for low, high in itertools.pairwise((0, *halvings))):
        raise ValueError(f"halvings must be rising epochs, counted from 1, got {(*halvings,)}")
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    apart = {str(number): member._asdict() for number, member in enumerate(members)}
    ours = identity(
        settings, steps_per_epoch, {**config, "members": apart, "halvings": [*halvings]}
    )
    with lock_directory(workdir), Signals() as signals:
        run = _Run(
            task, optimizer, members, batches, steps_per_epoch, evaluation, settings, halvings
        )
        with contextlib.closing(run.open(workdir, ours)):
            run_epochs(run, signals)
    return Population(run.best, run.outcomes, run.taken)


class _Run:
    """A population in progress."""

    def __init__(
        self, task, optimizer, members, batches, steps_per_epoch, evaluation, settings, halvings
    ):
        self.task, self.optimizer, self.settings = task, optimizer, settings
        self.halvings = halvings
        self.batches, self.evaluation = batches, evaluation
        self.steps_per_epoch = steps_per_epoch
        self.started = time.perf_counter()
        self.agreement, self.before = HostAllReduce(), None
        self.together = jax.default_backend() != "cpu"
        self.init_keys, run_keys = zip(*(keys(member.seed) for member in members), strict=True)
        self.keys = jnp.stack(run_keys)
        self.rates = tuple(
            jnp.asarray([getattr(member, name) for member in members], jnp.float32)
            for name in ("learning_rate", "weight_decay")
        )

    def open(self, workdir: Path, ours: dict[str, Any]):
        """Restores what the workdir holds, or begins."""
        self.workdir, self.identity = workdir, ours
        folder = checkpoint.find(workdir, self.settings.restore)
        if folder is None:
            self.crowd = self._first()
            self.best = copy(self.crowd.states.params)
            self.outcomes = [TrialResult() for _ in self.init_keys]
            self.step, self.epochs, self.taken, self.saved = 0, 0, 0.0, None
        else:
            self._restore(folder)
        self.started -= self.taken
        self.writer = checkpoint.Writer(workdir, None if folder is None else self.step)
        if folder is None:
            self.save()
            self.writer.wait()
        return self

    def _first(self) -> PopulationState:
        # Compiled once for all, and the same bits as `fit` begins with.
        optimizer, batch = make(self.optimizer), self.batches(0)
        states = [init_state(self.task, optimizer, key, batch) for key in self.init_keys]
        return PopulationState(
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *states),
            jnp.ones(len(states), bool),
            jnp.zeros(len(states), jnp.int32),
        )

    def _restore(self, folder: Path):
        record = checkpoint.read_record(folder)
        check_same(record, self.identity, self.workdir)
        shapes = jax.eval_shape(self._first)
        self.crowd = checkpoint.read(folder, "state", shapes)
        self.best = checkpoint.read(folder, "best", shapes.states.params)
        progress = record["progress"]
        self.outcomes = [TrialResult(**outcome) for outcome in progress["outcomes"]]
        self.step, self.epochs = progress["step"], progress["epochs"]
        self.taken = progress["seconds"]
        self.saved = (self.step, self.epochs)

    def close(self):
        self.writer.close()

    @property
    def running(self) -> np.ndarray:
        return np.array([outcome.status == RUNNING for outcome in self.outcomes])

    @property
    def finished(self) -> bool:
        return not self.running.any()

    def advance(self):
        """Dispatches a step of all who run."""
        self.crowd = advance(
            self.task, self.optimizer, self.rates, self.keys, self.crowd,
            self.batches(self.step), self.settings.skip_nonfinite, self.together,
        )  # fmt: skip
        self.step += 1
        # The device never waits for us, and no more than two steps wait for it.
        jax.block_until_ready(self.before)
        self.before = copy(self.crowd.active)

    def validate(self, signals: Signals):
        """Ends an epoch, unless a signal comes first: then the epoch stays open."""
        params, active = self.crowd.states.params, self.crowd.active
        totals: dict[str, list[np.ndarray]] = {}
        memory = None
        for number, batch in enumerate(self.evaluation()):
            memory = begin_all(self.task, params, batch) if number == 0 else memory
            measured, memory = measure(self.task, params, active, batch, memory, self.together)
            for name, pair in measured.items():
                sums = totals.setdefault(name, [np.zeros(len(self.outcomes)) for _ in pair])
                for whole, part in zip(sums, pair, strict=True):
                    whole += np.asarray(part, np.float64)
            if signals.caught:
                return
        if self.settings.monitor not in totals:
            there = ", ".join(totals) or "none, as evaluation() gives no batch"
            raise ValueError(f"monitor: no metric {self.settings.monitor!r}; there are {there}")
        self._end_epoch(np.asarray(active), totals)

    def _end_epoch(self, active: np.ndarray, totals: dict[str, list[np.ndarray]]):
        self.epochs += 1
        values = {}
        for name, (total, weight) in totals.items():
            if not weight[active].all():
                raise ValueError(f"metric {name}: the weights sum to 0, so it has no mean")
            values[name] = total / np.where(active, weight, 1.0)
        finite = np.logical_and.reduce([np.isfinite(value) for value in values.values()])
        passed = self.seconds - sum(outcome.seconds for outcome in self.outcomes)
        share = passed / int(self.running.sum())
        better, skipped = np.zeros(len(self.outcomes), bool), self.crowd.skipped.tolist()
        for number, outcome in enumerate(self.outcomes):
            if outcome.status != RUNNING:
                continue
            outcome = outcome._replace(
                epochs=self.epochs, skipped=skipped[number], seconds=outcome.seconds + share
            )
            if active[number] and finite[number]:
                value = float(values[self.settings.monitor][number])
                better[number] = value < (
                    math.inf if outcome.best_value is None else outcome.best_value
                )
                outcome = self._judged(outcome, value, bool(better[number]))
            else:
                outcome = outcome._replace(status=DIVERGED)
            self.outcomes[number] = outcome
        if self.epochs in self.halvings:
            self._halve()
        self.best = update_best(self.best, self.crowd.states.params, jnp.asarray(better))
        self.crowd = self.crowd._replace(active=jnp.asarray(self.running))

    def _halve(self):
        """Takes out the worse half of those who run; of equals, the later ones."""
        running = [n for n, outcome in enumerate(self.outcomes) if outcome.status == RUNNING]
        running.sort(key=lambda number: self.outcomes[number].best_value)
        for number in running[math.ceil(len(running) / 2) :]:
            self.outcomes[number] = self.outcomes[number]._replace(status=BEHIND)

    def _judged(self, outcome: TrialResult, value: float, better: bool) -> TrialResult:
        outcome = outcome._replace(stale=0 if better else outcome.stale + 1)
        if better:
            outcome = outcome._replace(best_value=value, best_epoch=self.epochs)
        patience = self.settings.patience
        over = patience is not None and outcome.stale >= patience
        if over or self.epochs == self.settings.max_epochs:
            outcome = outcome._replace(status=OK)
        return outcome

    def save(self):
        """Saves all that is new; frozen members are finite."""
        now = (self.step, self.epochs)
        # A step that is saved already is only saved anew if its validation has ended the run.
        if self.saved == now or (self.saved and self.saved[0] == now[0] and not self.finished):
            return
        self.taken = self.seconds
        progress = {
            "outcomes": [outcome._asdict() for outcome in self.outcomes],
            "step": self.step,
            "epochs": self.epochs,
            "seconds": self.taken,
        }
        record = {**self.identity, "progress": progress}
        self.writer.save(self.step, self.crowd, self.best, record)
        self.saved = now

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def shown(self) -> dict[str, float]:
        """What the progress bar says."""
        values = [o.best_value for o in self.outcomes if o.best_epoch and o.status != DIVERGED]
        best = {"best": min(values)} if values else {}
        return {"epoch": self.epochs, "running": int(self.running.sum()), **best}
