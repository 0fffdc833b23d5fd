"""`fit`, which trains one run."""

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax

from surnn_jax.train.files import lock_directory
from surnn_jax.train.settings import Settings, identity
from surnn_jax.train.signals import Signals
from surnn_jax.train.task import Task
from surnn_jax.train.train_loop import run_epochs
from surnn_jax.train.trainer import Trainer
from surnn_jax.typing import Params


class FitResult(NamedTuple):
    """The result of a finished run.

    Attributes:
        params: the parameters of the best epoch.
        last_params: the parameters after the last step.
        best_value: the monitored metric at the best epoch.
        best_epoch: counted from 1.
        steps: steps done.
        seconds: wall time over all resumptions, compilation and validation included.
        history: one record an epoch, as in ``metrics.jsonl``.

    Examples:
        >>> from surnn_jax import train
        >>> train.FitResult._fields
        ('params', 'last_params', 'best_value', 'best_epoch', 'steps', 'seconds', 'history')
    """

    params: Params
    last_params: Params
    best_value: float
    best_epoch: int
    steps: int
    seconds: float
    history: list[dict[str, Any]]


def fit(
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    batches: Callable[..., Any],
    steps_per_epoch: int,
    evaluation: Callable[..., Iterable[Any]],
    settings: Settings,
    workdir: str | os.PathLike,
    config: dict[str, Any],
    mesh: jax.sharding.Mesh | None = None,
) -> FitResult:
    """Trains, or resumes the run in the same `workdir`; a finished run returns at once.

    A finished run with more `max_epochs` trains on, and ends as if it had been asked for them at
    first. That needs an optimizer and a `config` that do not depend on them.

    A run that is killed at any moment and called again ends with the same bits, on the same kind
    and number of devices. In `workdir`, ``metrics.jsonl`` gets one line an epoch, the same in every
    run of one configuration; ``speed.jsonl`` gets times and memory.

    Args:
        task: the model and its loss.
        optimizer: the update rule.
        batches: step, counted from 0 -> batch: a pure function. If several processes share the
            work, each asks for its own rows: (step, slice of the rows) -> that part of the batch.
        steps_per_epoch: steps between two validations.
        evaluation: gives the batches of the validation set, the same every time. If several
            processes share the work, it is called with the slice of the rows to give.
        settings: how long to train, and how to recover.
        workdir: the run's folder; created if missing.
        config: JSON-like, everything else that determines the numbers. It is kept in the
            checkpoints, and a call with another one is refused.
        mesh: devices that share the work, see :func:`.sharding.make_mesh`; None for the first
            device alone. A run may resume on other devices, equal to rounding.

    Raises:
        ValueError: bad arguments, a batch that does not divide over the devices, or `workdir`
            holds a run of another configuration.
        checkpoint.CorruptCheckpointError: a checkpoint, or a log that goes with it, is not what was
            saved.
        FloatingPointError: a loss, gradient, metric or parameter that is not finite; nothing
            non-finite was saved.
        ModuleNotFoundError: events are asked for, and tensorboardX is missing.
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
        ...     done = train.fit(
        ...         task,
        ...         train.make_optimizer(train.OptimizerConfig("adam", 0.1)),
        ...         batches=lambda step: np.float32(3),
        ...         steps_per_epoch=100,
        ...         evaluation=lambda: [np.float32(3)],
        ...         settings=train.Settings(max_epochs=2, monitor="mse"),
        ...         workdir=folder,
        ...         config={},
        ...     )
        >>> done.steps, round(float(done.params["w"]), 1)
        (200, 3.0)
    """
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    values = identity(settings, steps_per_epoch, config)
    with lock_directory(workdir), Signals() as signals:
        run = Trainer(
            task,
            optimizer,
            batches,
            evaluation,
            mesh,
            settings=settings,
            steps_per_epoch=steps_per_epoch,
            workdir=workdir,
            identity=values,
        )
        with run.plan.context():
            run.open()
            with contextlib.closing(run):
                run_epochs(run, signals)
        best, last = (run.plan.gather(tree) for tree in (run.best, run.state.params))
    return FitResult(
        params=best,
        last_params=last,
        best_value=run.progress.best_value,
        best_epoch=run.progress.best_epoch,
        steps=run.step,
        seconds=run.progress.seconds,
        history=run.history,
    )
