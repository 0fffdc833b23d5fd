"""One run: its steps, validation, early stopping, logs and resumption."""

import hashlib
import logging
import math
import resource
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from surnn_jax.train import checkpoint
from surnn_jax.train.distributed import is_first
from surnn_jax.train.evaluation import add, evaluate_batches, means
from surnn_jax.train.files import JsonLog
from surnn_jax.train.monitoring import Profile, TensorBoardWriter, check_installed
from surnn_jax.train.settings import Settings
from surnn_jax.train.sharding import ShardingPlan
from surnn_jax.train.signals import Signals
from surnn_jax.train.state import Progress, TrainState, make_keys
from surnn_jax.train.step import copy, is_finite
from surnn_jax.train.task import Task
from surnn_jax.train.train_loop import Trainable

METRICS = "metrics.jsonl"
"""One line an epoch; the configuration, the versions and the devices determine its values."""
SPEED = "speed.jsonl"
"""One line an epoch with times and memory."""
SKIPPED = "nonfinite.jsonl"
"""One line for each step whose loss or gradient was not finite."""


class Trainer(Trainable):
    """A run in progress: its state, the metrics still on the device, and its logs.

    Args:
        task: see `fitting.fit`, as for all arguments but `identity`.
        optimizer: the update rule.
        batches: step -> batch.
        evaluation: gives the batches of the validation set.
        mesh: the devices, or None.
        settings: see `Trainable`, as for the next three.
        steps_per_epoch: steps between two validations.
        workdir: the run's folder.
        identity: the values that determine the numbers.
    """

    state: TrainState
    extends = True

    def __init__(
        self,
        task: Task,
        optimizer: optax.GradientTransformation,
        batches: Callable[..., Any],
        evaluation: Callable[..., Iterable[Any]],
        mesh: jax.sharding.Mesh | None,
        *,
        settings: Settings,
        steps_per_epoch: int,
        workdir: Path,
        identity: dict[str, Any],
    ):
        if settings.tensorboard:
            check_installed()
        super().__init__(settings, steps_per_epoch, workdir, identity)
        self.task, self.optimizer = task, optimizer
        self.batches, self.evaluation = batches, evaluation
        first = batches(0)
        self.plan = ShardingPlan(mesh, first)
        self._first_batch = self.plan.shard_batch(self.plan.take_local(first))
        self._init_key, self._key = self.plan.replicate(lambda: make_keys(settings.seed))
        names = (METRICS, SPEED, SKIPPED)
        self.logs = {name: JsonLog(workdir / name, writes=is_first()) for name in names}
        self._profile = Profile(workdir, settings.profile)
        self._pending = None
        self._waited, self._worked = 0.0, 0.0

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record for every finished epoch."""
        return self.logs[METRICS].records

    def open(self) -> None:
        super().open()
        del self._first_batch  # Frees its memory on the devices.
        wanted = self.settings.tensorboard and is_first()
        self._tensorboard = TensorBoardWriter(self.workdir, wanted, self.step)
        for name, log in self.logs.items():
            log.cut(create=name != SKIPPED)

    def begin(self) -> None:
        if (self.workdir / METRICS).exists():
            raise ValueError(
                f"{self.workdir} has {METRICS} but no checkpoint: give another workdir"
            )
        compiled, task = self.plan.compiled, self.task
        self.state = compiled.init_state(task, self.optimizer, self._init_key, self._first_batch)
        batch = next(iter(self.evaluation(*self.plan.local_rows)), None)
        if batch is None:
            raise ValueError("evaluation() gives no batch")
        batch, params = self.plan.shard_batch(batch), self.state.params
        memory = compiled.init_memory.eval_shape(task, params, batch)
        metrics, after = compiled.evaluate.eval_shape(task, params, batch, memory)
        _check_memory("evaluate", memory, after)
        for name, metric in metrics.items():
            if not (isinstance(metric, tuple) and len(metric) == 2):
                raise ValueError(
                    f"evaluate: metric {name!r} must be a pair (sum, weight), so that batches of "
                    f"different sizes count right; got {metric}"
                )
        if task.memory is not None:
            trained, _ = compiled.train_step.eval_shape(
                task, self.optimizer, self._key, self.state, self._first_batch
            )
            _check_memory("loss", self.state.memory, trained.memory)
        if self.settings.monitor not in metrics:
            names = ", ".join(metrics)
            raise ValueError(f"monitor: no metric {self.settings.monitor!r}; there are {names}")
        self.best = copy(self.state.params)
        self.progress = Progress(totals={})

    def restore(self, folder: Path, record: dict[str, Any]) -> float:
        shapes = self.plan.compiled.init_state.eval_shape(
            self.task, self.optimizer, self._init_key, self._first_batch
        )
        shapes = self.plan.with_shardings(shapes)
        self.state = checkpoint.read(folder, "state", shapes)
        if folder.name != str(int(self.state.step)):
            raise checkpoint.CorruptCheckpointError(
                f"{folder} holds step {int(self.state.step)}: it was renamed"
            )
        self.best = checkpoint.read(folder, "best", shapes.params)
        if "logs" in record:
            self.progress = Progress(**record["progress"])
            self._read_logs(record["logs"])
        else:
            self._restore_format_1(record["progress"])
        self.step, self.epochs = int(self.state.step), self.progress.epochs
        return self.progress.seconds

    def _read_logs(self, marks: dict[str, Any]) -> None:
        for name, log in self.logs.items():
            try:
                log.read(marks[name])
            except ValueError as error:
                if self.settings.restore == "latest":
                    raise checkpoint.CorruptCheckpointError(
                        f"{error} (restore=latest_good begins a new file)"
                    ) from None
                logging.getLogger(__name__).warning("begins a new file: %s", error)

    def _restore_format_1(self, progress: dict[str, Any]) -> None:
        """Takes the records of all epochs from a checkpoint that holds them."""
        history, speed, skipped = (progress.pop(key) for key in ("history", "speed", "skipped"))
        self.progress = Progress(
            **progress,
            epochs=len(history),
            epoch_seconds=speed[-1]["seconds"] if speed else 0.0,
            num_skipped=len(skipped),
        )
        for name, records in ((METRICS, history), (SPEED, speed), (SKIPPED, skipped)):
            self.logs[name].restore(records)

    def close(self) -> None:
        self._profile.close()
        super().close()
        self._tensorboard.close()

    @property
    def finished(self) -> bool:
        patience = self.settings.patience
        stale = patience is not None and self.progress.stale >= patience
        return stale or self.epochs == self.settings.max_epochs

    def advance(self) -> None:
        """Does one step, which a profiler trace shows by its number."""
        with jax.profiler.StepTraceAnnotation("train", step_num=self.step):
            self._advance()
        self._profile.step(self.state)

    def _advance(self) -> None:
        """Dispatches a step, then reads the one before, so that the device never waits."""
        started = time.perf_counter()
        batch = self.batches(self.step, *self.plan.local_rows)
        self._waited += time.perf_counter() - started
        may_skip = self.settings.skip_nonfinite > 0
        batch = self.plan.shard_batch(batch)
        self.state, metrics = self.plan.compiled.train_step(
            self.task, self.optimizer, self._key, self.state, batch, may_skip
        )
        self._settle()
        self._pending = metrics
        self.step += 1
        self._worked += time.perf_counter() - started

    def _settle(self) -> None:
        """Takes in the metrics that are still on the device, those of step ``self.step - 1``."""
        if self._pending is None:
            return
        metrics, self._pending = jax.device_get(self._pending), None
        loss, norm = (float(metrics[name][0]) for name in ("loss", "grad_norm"))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._skip(loss, norm)
            return
        self.progress = self.progress._replace(totals=add(self.progress.totals, metrics))
        self._tensorboard.write({"step/loss": loss, "step/grad_norm": norm}, self.step)

    def _skip(self, loss: float, norm: float) -> None:
        """Logs a step that is not finite and its batch; raises if no more may be skipped."""
        step, before = self.step - 1, self.progress.num_skipped
        line = {"step": step, "epoch": self.epochs + 1, "loss": repr(loss), "grad_norm": repr(norm)}
        line |= _identify(self.batches(step))  # All rows of the batch, on every process.
        self.logs[SKIPPED].append(line)
        if before >= self.settings.skip_nonfinite:
            already = f"; {before} such steps were skipped before" if before else ""
            raise FloatingPointError(
                f"step {step} (epoch {self.epochs + 1}): loss {loss}, gradient norm {norm}, "
                f"batch of SHA-256 {line['sha256'][:12]}… (see {SKIPPED}){already}; the last "
                f"checkpoint, of step {self.saved[0]}, is kept in {self.workdir}"
            )
        self.progress = self.progress._replace(num_skipped=before + 1)

    def validate(self, signals: Signals) -> None:
        self._settle()
        totals = evaluate_batches(
            self.task,
            self.state.params,
            self.evaluation(*self.plan.local_rows),
            self.plan,
            lambda: self.all_reduce.max(signals.caught or 0, 0)[0] > 0,
        )
        if totals is not None:
            self._end_epoch(totals)

    def _end_epoch(self, totals: dict[str, tuple[float, float]]) -> None:
        before, epoch = self.progress, self.epochs + 1
        try:
            values = {**means(before.totals, "train/"), **means(totals, "valid/")}
        except FloatingPointError as error:
            raise FloatingPointError(f"epoch {epoch} (step {self.step}): {error}") from None
        value, seconds = values[f"valid/{self.settings.monitor}"], self.seconds
        line = {"epoch": epoch, "step": self.step, **values}
        if before.num_skipped:
            line["skipped"] = before.num_skipped
        speed = {
            "epoch": epoch,
            "step": self.step,
            "seconds": seconds,
            "steps_per_second": self.steps_per_epoch / (seconds - before.epoch_seconds),
            # The fraction of training time, since this process's last validation, in `batches`.
            "input_share": self._waited / self._worked if self._worked else 0.0,
            "peak_bytes": _peak_bytes(),
        }
        self._waited, self._worked = 0.0, 0.0
        better = before.best_value is None or value < before.best_value
        if better:
            self.best = copy(self.state.params)
        self.progress = before._replace(
            totals={},
            epochs=epoch,
            best_value=value if better else before.best_value,
            best_epoch=epoch if better else before.best_epoch,
            stale=0 if better else before.stale + 1,
            seconds=seconds,
            epoch_seconds=seconds,
        )
        self.epochs = epoch
        self.logs[METRICS].append(line)
        self.logs[SPEED].append(speed)
        times = {f"speed/{name}": speed[name] for name in speed if name not in line}
        self._tensorboard.write({**values, **times}, self.step)

    def record(self) -> dict[str, Any]:
        self._settle()
        if not is_finite((self.state.params, self.best)):
            raise FloatingPointError(f"step {self.step}: a parameter is not finite; not saved")
        self.progress = self.progress._replace(seconds=self.seconds)
        marks = {name: log.mark() for name, log in self.logs.items()}
        return {"progress": self.progress._asdict(), "logs": marks}

    def shown(self) -> dict[str, float]:
        values = dict(self.history[-1]) if self.history else {}
        totals = self.progress.totals.items()
        values |= {f"train/{name}": total / weight for name, (total, weight) in totals if weight}
        values["epoch"] = self.epochs
        names = ("epoch", "train/loss", f"valid/{self.settings.monitor}", "train/update_rate")
        return {name.removeprefix("train/"): values[name] for name in names if name in values}


def _check_memory(function: str, before: Any, after: Any) -> None:
    """Checks that a memory keeps its shapes: others compile anew and cannot be read back."""
    shapes_before, shapes_after = checkpoint.shapes(before), checkpoint.shapes(after)
    for name in sorted(shapes_before.keys() | shapes_after.keys()):
        if shapes_before.get(name) != shapes_after.get(name):
            raise ValueError(
                f"Task.{function}: the memory must keep its shapes and dtypes; {name or 'it'} was "
                f"{shapes_before.get(name, 'nothing')} and became "
                f"{shapes_after.get(name, 'nothing')}"
            )


def _identify(batch: Any) -> dict[str, Any]:
    """A hash of a whole batch, and its rows' indices if it has them."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    has_index = isinstance(batch, dict) and "index" in batch
    index = {"index": np.asarray(batch["index"]).tolist()} if has_index else {}
    return {"sha256": digest.hexdigest(), **index}


def _peak_bytes() -> int:
    """Peak memory so far: of the first device if it reports it, otherwise of the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    # Linux counts in KiB.
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(stats.get("peak_bytes_in_use", process))
