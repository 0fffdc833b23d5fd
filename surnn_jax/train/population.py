"""`fit_population`: trains several members at once that differ only in rates and seeds."""

import contextlib
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax.train import checkpoint
from surnn_jax.train.files import lock_directory
from surnn_jax.train.optimizers import OptimizerConfig, make
from surnn_jax.train.population_step import (
    PopulationState,
    evaluate_all,
    init_memory_all,
    train_step_all,
    update_best,
)
from surnn_jax.train.settings import Settings, identity
from surnn_jax.train.signals import Signals
from surnn_jax.train.state import make_keys
from surnn_jax.train.step import copy, init_state
from surnn_jax.train.task import Task
from surnn_jax.train.train_loop import Trainable, run_epochs
from surnn_jax.typing import Params

RUNNING, OK, BEHIND, DIVERGED = "running", "ok", "behind", "diverged"


class HyperParameters(NamedTuple):
    """The values in which members differ.

    Attributes:
        learning_rate: the peak rate.
        weight_decay: as in `OptimizerConfig`.
        seed: seed of the initial parameters and of all randomness.

    Examples:
        >>> from surnn_jax import train
        >>> rates = (0.1, 0.01)
        >>> members = [train.HyperParameters(rate, 0.0, seed) for rate in rates for seed in (0, 1)]
        >>> len(members), members[2].learning_rate
        (4, 0.01)
    """

    learning_rate: float
    weight_decay: float
    seed: int


class TrialResult(NamedTuple):
    """The result of one member, in plain Python numbers that JSON keeps exactly.

    Attributes:
        status: ``ok``; ``behind`` if a halving dropped it; ``diverged`` if a metric was not finite,
            or more losses, gradients or parameters than may be skipped; ``running`` before the end.
        best_value: lowest value of the monitored metric, None before the first validation.
        best_epoch: the epoch of `best_value`, counted from 1; 0 before the first.
        stale: epochs since `best_epoch`.
        epochs: epochs it took part in.
        skipped: steps skipped because a loss, gradient or parameter was not finite.
        seconds: its part of the time of the epochs it took part in.

    Examples:
        >>> from surnn_jax import train
        >>> train.TrialResult(status="ok", best_value=0.5, best_epoch=3).best_epoch
        3
    """

    status: str = RUNNING
    best_value: float | None = None
    best_epoch: int = 0
    stale: int = 0
    epochs: int = 0
    skipped: int = 0
    seconds: float = 0.0


class PopulationResult(NamedTuple):
    """The result of a finished population of K members.

    Attributes:
        params: the parameters of each member's best epoch, ``[K, ...]`` a leaf.
        outcomes: one for each member.
        seconds: wall time over all resumptions, compilation and validation included.

    Examples:
        >>> from surnn_jax import train
        >>> train.PopulationResult._fields
        ('params', 'outcomes', 'seconds')
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
) -> PopulationResult:
    """Trains all members on the same batches in the same order, or resumes in the same `workdir`.

    Each member trains and stops as under `fit` with its rates and its seed, to rounding, unless
    `halvings` drops it (successive halving: Jamieson & Talwalkar 2016, arXiv 1502.07943). A member
    that diverges is frozen and marked, and does not change the others' numbers. A population that
    is killed at any moment and called again ends with the same bits; a finished one returns at
    once.

    Args:
        task: the model and its loss.
        optimizer: the update rule; `members` give its learning rate and weight decay.
        members: K of them.
        batches: step, counted from 0 -> batch: a pure function.
        steps_per_epoch: steps between two validations.
        evaluation: gives the batches of the validation set, the same every time.
        settings: how long to train, and how to recover. Members have seeds of their own, so its
            seed is ignored; each member may skip `skip_nonfinite` steps.
        workdir: the population's folder; created if missing.
        config: JSON-like, everything else that determines the numbers, see `fit`.
        halvings: epochs, rising. After each, the half of the running members with the worst best
            validation is dropped; the smaller half if their number is odd.

    Raises:
        ValueError: bad arguments, or `workdir` holds a population of another configuration.
        checkpoint.CorruptCheckpointError: a checkpoint that is not what was saved.
        BlockingIOError: another process trains in `workdir`.
        Interrupted: after SIGTERM (exit code 143) or SIGINT (130); all is saved.

    Examples:
        >>> import tempfile
        >>> from surnn_jax import train
        >>> def error(params, batch):
        ...     return jnp.square(params["w"] - batch)
        >>> task = train.Task(
        ...     init=lambda key, batch: {"w": jnp.zeros(())},
        ...     loss=lambda params, batch, key: (error(params, batch), {}),
        ...     evaluate=lambda params, batch: {"mse": (error(params, batch), jnp.ones(()))},
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = train.fit_population(
        ...         task,
        ...         train.OptimizerConfig("adam"),
        ...         [train.HyperParameters(rate, 0.0, seed=0) for rate in (0.1, 0.001)],
        ...         batches=lambda step: np.float32(3),
        ...         steps_per_epoch=100,
        ...         evaluation=lambda: [np.float32(3)],
        ...         settings=train.Settings(max_epochs=2, monitor="mse"),
        ...         workdir=folder,
        ...         config={},
        ...     )
        >>> done.params["w"].shape, done.outcomes[0].best_value < done.outcomes[1].best_value
        ((2,), True)
    """
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
    if not members:
        raise ValueError("a population needs a member")
    for member in members:  # Checks the ranges of the rates.
        dataclasses.replace(
            optimizer, learning_rate=member.learning_rate, weight_decay=member.weight_decay
        )
    if any(low >= high for low, high in itertools.pairwise((0, *halvings))):
        raise ValueError(f"halvings must be rising epochs, counted from 1, got {(*halvings,)}")
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    numbered = {str(number): member._asdict() for number, member in enumerate(members)}
    values = identity(
        settings, steps_per_epoch, {**config, "members": numbered, "halvings": [*halvings]}
    )
    with lock_directory(workdir), Signals() as signals:
        run = PopulationTrainer(
            task,
            optimizer,
            members,
            batches,
            evaluation,
            halvings,
            settings=settings,
            steps_per_epoch=steps_per_epoch,
            workdir=workdir,
            identity=values,
        )
        run.open()
        with contextlib.closing(run):
            run_epochs(run, signals)
    return PopulationResult(run.best, run.outcomes, run.saved_seconds)


class PopulationTrainer(Trainable):
    """A population in progress; for the arguments see `fit_population` and `Trainable`."""

    state: PopulationState

    def __init__(
        self,
        task: Task,
        optimizer: OptimizerConfig,
        members: Sequence[HyperParameters],
        batches: Callable[[int], Any],
        evaluation: Callable[[], Iterable[Any]],
        halvings: Sequence[int],
        *,
        settings: Settings,
        steps_per_epoch: int,
        workdir: Path,
        identity: dict[str, Any],
    ):
        super().__init__(settings, steps_per_epoch, workdir, identity)
        self.task, self.optimizer, self.halvings = task, optimizer, halvings
        self.batches, self.evaluation = batches, evaluation
        self.outcomes = [TrialResult() for _ in members]
        self.saved_seconds = 0.0
        self._vectorized = jax.default_backend() != "cpu"
        self._previous = None
        keys = [make_keys(member.seed) for member in members]
        self._init_keys = [init_key for init_key, _ in keys]
        self._keys = jnp.stack([key for _, key in keys])
        self._rates = tuple(
            jnp.asarray([getattr(member, name) for member in members], jnp.float32)
            for name in ("learning_rate", "weight_decay")
        )

    def begin(self) -> None:
        self.state = self._first_state()
        self.best = copy(self.state.states.params)

    def _first_state(self) -> PopulationState:
        # One compiled program for all members, and the bits with which `fit` begins.
        optimizer, batch = make(self.optimizer), self.batches(0)
        states = [init_state(self.task, optimizer, key, batch) for key in self._init_keys]
        return PopulationState(
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *states),
            jnp.ones(len(states), bool),
            jnp.zeros(len(states), jnp.int32),
        )

    def restore(self, folder: Path, record: dict[str, Any]) -> float:
        shapes = jax.eval_shape(self._first_state)
        self.state = checkpoint.read(folder, "state", shapes)
        self.best = checkpoint.read(folder, "best", shapes.states.params)
        progress = record["progress"]
        self.outcomes = [TrialResult(**outcome) for outcome in progress["outcomes"]]
        self.step, self.epochs = progress["step"], progress["epochs"]
        self.saved_seconds = progress["seconds"]
        return self.saved_seconds

    @property
    def running(self) -> np.ndarray:
        """Booleans ``[K]``: which members still train."""
        return np.array([outcome.status == RUNNING for outcome in self.outcomes])

    @property
    def finished(self) -> bool:
        return not self.running.any()

    def advance(self) -> None:
        self.state = train_step_all(
            self.task, self.optimizer, self._rates, self._keys, self.state,
            self.batches(self.step), self.settings.skip_nonfinite, self._vectorized,
        )  # fmt: skip
        self.step += 1
        # Waits for the step before: the device always has one to do, and never more than two.
        jax.block_until_ready(self._previous)
        self._previous = copy(self.state.active)

    def validate(self, signals: Signals) -> None:
        params, active = self.state.states.params, self.state.active
        totals: dict[str, list[np.ndarray]] = {}
        memory = None
        for number, batch in enumerate(self.evaluation()):
            memory = init_memory_all(self.task, params, batch) if number == 0 else memory
            metrics, memory = evaluate_all(
                self.task, params, active, batch, memory, self._vectorized
            )
            for name, pair in metrics.items():
                sums = totals.setdefault(name, [np.zeros(len(self.outcomes)) for _ in pair])
                for total, part in zip(sums, pair, strict=True):
                    total += np.asarray(part, np.float64)
            if signals.caught:
                return
        if self.settings.monitor not in totals:
            names = ", ".join(totals) or "none, as evaluation() gives no batch"
            raise ValueError(f"monitor: no metric {self.settings.monitor!r}; there are {names}")
        self._end_epoch(np.asarray(active), totals)

    def _end_epoch(self, active: np.ndarray, totals: dict[str, list[np.ndarray]]) -> None:
        self.epochs += 1
        values = {}
        for name, (total, weight) in totals.items():
            if not weight[active].all():
                raise ValueError(f"metric {name}: the weights sum to 0, so it has no mean")
            values[name] = total / np.where(active, weight, 1.0)
        finite = np.logical_and.reduce([np.isfinite(value) for value in values.values()])
        lasted = self.seconds - sum(outcome.seconds for outcome in self.outcomes)
        seconds = lasted / int(self.running.sum())
        better, skipped = np.zeros(len(self.outcomes), bool), self.state.skipped.tolist()
        for number, outcome in enumerate(self.outcomes):
            if outcome.status != RUNNING:
                continue
            outcome = outcome._replace(
                epochs=self.epochs, skipped=skipped[number], seconds=outcome.seconds + seconds
            )
            if active[number] and finite[number]:
                value = float(values[self.settings.monitor][number])
                better[number] = outcome.best_value is None or value < outcome.best_value
                outcome = self._judge(outcome, value, bool(better[number]))
            else:
                outcome = outcome._replace(status=DIVERGED)
            self.outcomes[number] = outcome
        if self.epochs in self.halvings:
            self._halve()
        self.best = update_best(self.best, self.state.states.params, jnp.asarray(better))
        self.state = self.state._replace(active=jnp.asarray(self.running))

    def _judge(self, outcome: TrialResult, value: float, better: bool) -> TrialResult:
        """The outcome after a validation, with early stopping."""
        outcome = outcome._replace(stale=0 if better else outcome.stale + 1)
        if better:
            outcome = outcome._replace(best_value=value, best_epoch=self.epochs)
        patience = self.settings.patience
        over = patience is not None and outcome.stale >= patience
        if over or self.epochs == self.settings.max_epochs:
            outcome = outcome._replace(status=OK)
        return outcome

    def _halve(self) -> None:
        """Drops the worse half of the running members; of equal ones, the later."""
        running = [n for n, outcome in enumerate(self.outcomes) if outcome.status == RUNNING]
        running.sort(key=lambda number: self.outcomes[number].best_value)
        for number in running[math.ceil(len(running) / 2) :]:
            self.outcomes[number] = self.outcomes[number]._replace(status=BEHIND)

    def record(self) -> dict[str, Any]:
        # All numbers are finite: a member that diverges keeps its last finite state.
        self.saved_seconds = self.seconds
        progress = {
            "outcomes": [outcome._asdict() for outcome in self.outcomes],
            "step": self.step,
            "epochs": self.epochs,
            "seconds": self.saved_seconds,
        }
        return {"progress": progress}

    def shown(self) -> dict[str, float]:
        values = [o.best_value for o in self.outcomes if o.best_epoch and o.status != DIVERGED]
        best = {"best": min(values)} if values else {}
        return {"epoch": self.epochs, "running": int(self.running.sum()), **best}
