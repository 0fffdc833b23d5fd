"""One run: its steps, validation, early stopping, checkpoints, resumption."""

import hashlib
import math
import resource
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from surnn_jax.train import checkpoint, files
from surnn_jax.train.board import TensorBoardWriter, check_installed
from surnn_jax.train.distributed import HostAllReduce, barrier, is_first
from surnn_jax.train.evaluation import totals_of
from surnn_jax.train.settings import check_same
from surnn_jax.train.sharding import ShardingPlan
from surnn_jax.train.signals import Signals
from surnn_jax.train.state import Progress, TrainState, keys
from surnn_jax.train.step import copy, is_finite
from surnn_jax.train.watch import Profile

METRICS = "metrics.jsonl"
"""One line an epoch, decided by the command, the versions and the devices alone."""
SPEED = "speed.jsonl"
"""One line an epoch: what the clock and the system say."""
SKIPPED = "nonfinite.jsonl"
"""One line a step whose loss or gradient was not finite."""


class Trainer:
    """A run in progress: its state, what is pending on the device, what is on the disk."""

    def __init__(
        self, task, optimizer, batches, steps_per_epoch, evaluation, settings, workdir, mesh
    ):
        if settings.tensorboard:
            check_installed()
        self.what = (task, optimizer)
        first = batches(0)
        self.layout = ShardingPlan(mesh, first)
        self.programs, self.part = self.layout.programs, self.layout.part
        self.first = self.layout.batch(self.layout.own(first))
        self.batches, self.evaluation = batches, evaluation
        self.steps_per_epoch, self.settings, self.workdir = steps_per_epoch, settings, workdir
        self.started = time.perf_counter()
        self.init_key, self.key = self.layout.whole(lambda: keys(settings.seed))
        self.agreement = HostAllReduce()
        self.profile = Profile(workdir, settings.profile)
        self.pending = None
        self.waited, self.worked = 0.0, 0.0

    def open(self, ours: dict[str, Any]):
        """Restores what the workdir holds, or begins."""
        self.identity = ours
        folder = checkpoint.find(self.workdir, self.settings.restore)
        barrier("found")  # From here on the first process may change what is there.
        if folder is None:
            self._begin()
        else:
            self._restore(folder)
        self.started -= self.progress.seconds
        self.writer = checkpoint.Writer(self.workdir, None if folder is None else self.step)
        del self.first  # And its room on the devices.
        self.save()
        self.writer.wait()
        self.board = TensorBoardWriter(
            self.workdir, self.settings.tensorboard and is_first(), self.step
        )
        # Lines of work that is lost and will be done again go; so does one cut short by a kill.
        if is_first():
            files.write_lines(self.workdir / METRICS, self.progress.history)
            files.write_lines(self.workdir / SPEED, self.progress.speed)
            if self.progress.skipped or (self.workdir / SKIPPED).exists():
                files.write_lines(self.workdir / SKIPPED, self.progress.skipped)
        return self

    def _begin(self):
        if (self.workdir / METRICS).exists():
            raise ValueError(
                f"{self.workdir} has {METRICS} but no checkpoint: give another workdir"
            )
        self.state: TrainState = self.programs.init_state(*self.what, self.init_key, self.first)
        first = next(iter(self.evaluation(*self.part)), None)
        if first is None:
            raise ValueError("evaluation() gives no batch")
        first = self.layout.batch(first)
        task, params = self.what[0], self.state.params
        memory = self.programs.begin.eval_shape(task, params, first)
        names, after = self.programs.evaluate.eval_shape(task, params, first, memory)
        _check_growth("evaluate", memory, after)
        if task.memory is not None:
            step = self.programs.train_step
            trained, _ = step.eval_shape(*self.what, self.key, self.state, self.first)
            _check_growth("loss", self.state.memory, trained.memory)
        if self.settings.monitor not in names:
            there = ", ".join(names)
            raise ValueError(f"monitor: no metric {self.settings.monitor!r}; there are {there}")
        self.best = copy(self.state.params)
        self.progress = Progress(totals={}, history=[])
        self.step, self.saved = 0, None

    def _restore(self, folder: Path):
        record = checkpoint.read_record(folder)
        check_same(record, self.identity, self.workdir)
        shapes = self.programs.init_state.eval_shape(*self.what, self.init_key, self.first)
        shapes = self.layout.placed(shapes)
        self.state = checkpoint.read(folder, "state", shapes)
        self.best = checkpoint.read(folder, "best", shapes.params)
        self.progress = Progress(**record["progress"])
        self.step = int(self.state.step)
        self.saved = (self.step, len(self.progress.history))

    def close(self):
        self.profile.close()
        self.writer.close()
        self.board.close()

    @property
    def epochs(self) -> int:
        """Epochs that are over, validation included."""
        return len(self.progress.history)

    @property
    def finished(self) -> bool:
        patience = self.settings.patience
        stale = patience is not None and self.progress.stale >= patience
        return stale or self.epochs == self.settings.max_epochs

    def advance(self):
        """One step, which a trace calls by its number."""
        with jax.profiler.StepTraceAnnotation("train", step_num=self.step):
            self._advance()
        self.profile.step(self.state)

    def _advance(self):
        """Dispatches a step, then looks at the one before: the device never waits for us."""
        started = time.perf_counter()
        batch = self.batches(self.step, *self.part)
        self.waited += time.perf_counter() - started
        tolerant = self.settings.skip_nonfinite > 0
        self.state, measured = self.programs.train_step(
            *self.what, self.key, self.state, self.layout.batch(batch), tolerant
        )
        self.settle()
        self.pending = measured
        self.step += 1
        self.worked += time.perf_counter() - started

    def settle(self):
        """Takes in the metrics that are still on the device, those of step ``self.step - 1``."""
        if self.pending is None:
            return
        measured, self.pending = jax.device_get(self.pending), None
        loss, norm = (float(measured[name][0]) for name in ("loss", "grad_norm"))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._not_finite(loss, norm)
            return
        self.progress = self.progress._replace(totals=files.add(self.progress.totals, measured))
        self.board.write({"step/loss": loss, "step/grad_norm": norm}, self.step)

    def _not_finite(self, loss: float, norm: float):
        """Writes down the step and its batch, and stops the run when that was once too often."""
        step, before = self.step - 1, self.progress.skipped
        line = {"step": step, "epoch": self.epochs + 1, "loss": repr(loss), "grad_norm": repr(norm)}
        line |= _identity(self.batches(step))  # All of its rows, whoever held them.
        if is_first():
            files.append_line(self.workdir / SKIPPED, line)
        if len(before) >= self.settings.skip_nonfinite:
            already = f"; {len(before)} such steps were skipped before" if before else ""
            raise FloatingPointError(
                f"step {step} (epoch {self.epochs + 1}): loss {loss}, gradient norm {norm}, "
                f"batch of SHA-256 {line['sha256'][:12]}… (see {SKIPPED}){already}; the last "
                f"checkpoint, of step {self.saved[0]}, is kept in {self.workdir}"
            )
        self.progress = self.progress._replace(skipped=[*before, line])

    def validate(self, signals: Signals):
        """Ends an epoch, unless a signal comes first: then the epoch stays open."""
        self.settle()
        task, params = self.what[0], self.state.params
        totals = totals_of(
            task,
            params,
            self.evaluation(*self.part),
            self.layout,
            lambda: self.agreement.ask(signals.caught or 0, 0)[0] > 0,
        )
        if totals is None:
            return
        before, epoch = self.progress, self.epochs + 1
        try:
            values = {
                **files.means(before.totals, "train/"),
                **files.means(totals, "valid/"),
            }
        except FloatingPointError as error:
            raise FloatingPointError(f"epoch {epoch} (step {self.step}): {error}") from None
        value, seconds = values[f"valid/{self.settings.monitor}"], self.seconds
        lasted = seconds - (before.speed[-1]["seconds"] if before.speed else 0.0)
        line = {"epoch": epoch, "step": self.step, **values}
        if before.skipped:
            line["skipped"] = len(before.skipped)
        speed = {
            "epoch": epoch,
            "step": self.step,
            "seconds": seconds,
            "steps_per_second": self.steps_per_epoch / lasted,
            # Of the training time since the last validation in this process: reading batches.
            "input_share": self.waited / self.worked if self.worked else 0.0,
            "peak_bytes": _peak_bytes(),
        }
        self.waited, self.worked = 0.0, 0.0
        better = before.best_value is None or value < before.best_value
        if better:
            self.best = copy(self.state.params)
        self.progress = before._replace(
            totals={},
            history=[*before.history, line],
            speed=[*before.speed, speed],
            best_value=value if better else before.best_value,
            best_epoch=epoch if better else before.best_epoch,
            stale=0 if better else before.stale + 1,
            seconds=seconds,
        )
        if is_first():
            files.append_line(self.workdir / METRICS, line)
            files.append_line(self.workdir / SPEED, speed)
        self.board.write(values, self.step)
        clock = {f"speed/{name}": speed[name] for name in speed if name not in line}
        self.board.write(clock, self.step)

    def save(self):
        """Saves all that is new; nothing that is not finite."""
        self.settle()
        now = (self.step, self.epochs)
        # A step that is saved already is only saved anew if its validation has ended the run.
        if self.saved == now or (self.saved and self.saved[0] == now[0] and not self.finished):
            return
        if not is_finite((self.state.params, self.best)):
            raise FloatingPointError(f"step {self.step}: a parameter is not finite; not saved")
        self.progress = self.progress._replace(seconds=self.seconds)
        record = {**self.identity, "progress": self.progress._asdict()}
        self.writer.save(self.step, self.state, self.best, record)
        self.saved = now

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def shown(self) -> dict[str, float]:
        """What the progress bar says."""
        values = dict(self.progress.history[-1]) if self.progress.history else {}
        sums = self.progress.totals.items()
        values |= {f"train/{name}": total / weight for name, (total, weight) in sums if weight}
        values["epoch"] = self.epochs
        names = ("epoch", "train/loss", f"valid/{self.settings.monitor}", "train/update_rate")
        return {name.removeprefix("train/"): values[name] for name in names if name in values}


def _check_growth(what: str, before: Any, after: Any) -> None:
    """A memory that changes is compiled for anew, and could not be read back."""
    was, became = checkpoint.shapes(before), checkpoint.shapes(after)
    for name in sorted(was.keys() | became.keys()):
        if was.get(name) != became.get(name):
            raise ValueError(
                f"Task.{what}: the memory must keep its shapes and dtypes; {name or 'it'} was "
                f"{was.get(name, 'nothing')} and became {became.get(name, 'nothing')}"
            )


def _identity(batch: Any) -> dict[str, Any]:
    """What tells a batch from others: a sum over all of it, and which rows they are, if it says."""
    whole = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        array = np.asarray(leaf)
        whole.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        whole.update(array.tobytes())
    named = isinstance(batch, dict) and "index" in batch
    index = {"index": np.asarray(batch["index"]).tolist()} if named else {}
    return {"sha256": whole.hexdigest(), **index}


def _peak_bytes() -> int:
    """The most memory so far: of the first device, where it says so, else of the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    # Linux counts in KiB.
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(stats.get("peak_bytes_in_use", process))
