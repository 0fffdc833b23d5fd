"""The training loop: epochs, validation, early stopping, checkpoints, resumption."""

import math
import time
from pathlib import Path
from typing import Any

import jax

from surnn_jax.train import checkpoint, metrics
from surnn_jax.train.interrupt import Interrupted, Signals
from surnn_jax.train.report import Reporter
from surnn_jax.train.score import totals_of
from surnn_jax.train.settings import refuse_other
from surnn_jax.train.state import Progress, TrainState, keys
from surnn_jax.train.step import begin, copy, evaluate, init_state, is_finite, train_step

METRICS = "metrics.jsonl"


class Run:
    """A run in progress: its state, what is pending on the device, what is on the disk."""

    def __init__(self, task, optimiser, batches, steps_per_epoch, evaluation, settings, workdir):
        self.what = (task, optimiser)
        self.batches, self.evaluation = batches, evaluation
        self.steps_per_epoch, self.settings, self.workdir = steps_per_epoch, settings, workdir
        self.started = time.perf_counter()
        self.init_key, self.key = keys(settings.seed)
        self.pending = None
        self.waited, self.worked = 0.0, 0.0

    def open(self, ours: dict[str, Any]):
        """Restores what the workdir holds, or begins."""
        self.identity = ours
        folder = checkpoint.find(self.workdir, self.settings.restore)
        if folder is None:
            self._begin()
        else:
            self._restore(folder)
        self.started -= self.progress.seconds
        self.writer = checkpoint.Writer(self.workdir, None if folder is None else self.step)
        self.save()
        # Lines of work that is lost and will be done again go; so does one cut short by a kill.
        metrics.write_lines(self.workdir / METRICS, self.progress.history)
        return self

    def _begin(self):
        if (self.workdir / METRICS).exists():
            raise ValueError(
                f"{self.workdir} has {METRICS} but no checkpoint: give another workdir"
            )
        batch = self.batches(0)
        self.state: TrainState = init_state(*self.what, self.init_key, batch)
        first = next(iter(self.evaluation()), None)
        if first is None:
            raise ValueError("evaluation() gives no batch")
        task, params = self.what[0], self.state.params
        memory = begin.eval_shape(task, params, first)
        names, after = evaluate.eval_shape(task, params, first, memory)
        _refuse_growth("evaluate", memory, after)
        if task.memory is not None:
            trained, _ = train_step.eval_shape(*self.what, self.key, self.state, batch)
            _refuse_growth("loss", self.state.memory, trained.memory)
        if self.settings.monitor not in names:
            there = ", ".join(names)
            raise ValueError(f"monitor: no metric {self.settings.monitor!r}; there are {there}")
        self.best = copy(self.state.params)
        self.progress = Progress(totals={}, history=[])
        self.step, self.saved = 0, None

    def _restore(self, folder: Path):
        record = checkpoint.read_record(folder)
        refuse_other(record, self.identity, self.workdir)
        shapes = init_state.eval_shape(*self.what, self.init_key, self.batches(0))
        self.state = checkpoint.read(folder, "state", shapes)
        self.best = checkpoint.read(folder, "best", shapes.params)
        self.progress = Progress(**record["progress"])
        self.step = int(self.state.step)
        self.saved = (self.step, len(self.progress.history))

    def close(self):
        self.writer.close()

    @property
    def epochs(self) -> int:
        """Epochs that are over, validation included."""
        return len(self.progress.history)

    @property
    def finished(self) -> bool:
        patience = self.settings.patience
        stale = patience is not None and self.progress.stale >= patience
        return stale or self.epochs == self.settings.max_epochs

    @property
    def validation_next(self) -> bool:
        return self.step == (self.epochs + 1) * self.steps_per_epoch

    def go(self, signals: Signals) -> None:
        """Trains to the end, or raises `Interrupted` once a signal is there."""
        if self.finished:
            return
        with Reporter(self.settings.max_epochs * self.steps_per_epoch, self.step) as reporter:
            if self.step:
                reporter.say(f"going on from step {self.step} in {self.workdir}")
            last_save = time.monotonic()
            while not self.finished:
                if self.validation_next:
                    self.validate(signals)
                else:
                    self.advance()
                if signals.caught:
                    self.save()
                    reporter.say(f"told to stop; step {self.step} is saved in {self.workdir}")
                    raise Interrupted(signals.caught)
                waited = time.monotonic() - last_save
                if waited >= self.settings.save_seconds and not self.validation_next:
                    self.save()
                    last_save = time.monotonic()
                if reporter.due():
                    reporter.show(self.step, self.shown())
            self.save()
            reporter.show(self.step, self.shown())

    def advance(self):
        """Dispatches a step, then looks at the one before: the device never waits for us."""
        started = time.perf_counter()
        batch = self.batches(self.step)
        self.waited += time.perf_counter() - started
        self.state, measured = train_step(*self.what, self.key, self.state, batch)
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
            raise FloatingPointError(
                f"step {self.step - 1} (epoch {self.epochs + 1}): loss {loss}, gradient norm "
                f"{norm}; the last checkpoint, of step {self.saved[0]}, is kept in {self.workdir}"
            )
        self.progress = self.progress._replace(totals=metrics.add(self.progress.totals, measured))

    def validate(self, signals: Signals):
        """Ends an epoch, unless a signal comes first: then the epoch stays open."""
        self.settle()
        totals = totals_of(self.what[0], self.state.params, self.evaluation(), signals)
        if totals is None:
            return
        before, epoch = self.progress, self.epochs + 1
        try:
            values = {
                **metrics.means(before.totals, "train/"),
                **metrics.means(totals, "valid/"),
            }
        except FloatingPointError as error:
            raise FloatingPointError(f"epoch {epoch} (step {self.step}): {error}") from None
        value, seconds = values[f"valid/{self.settings.monitor}"], self.seconds
        lasted = seconds - (before.history[-1]["seconds"] if before.history else 0.0)
        line = {
            "epoch": epoch,
            "step": self.step,
            **values,
            "seconds": seconds,
            "steps_per_second": self.steps_per_epoch / lasted,
            # Of the training time since the last validation in this process: reading batches.
            "input_share": self.waited / self.worked if self.worked else 0.0,
        }
        self.waited, self.worked = 0.0, 0.0
        better = before.best_value is None or value < before.best_value
        if better:
            self.best = copy(self.state.params)
        self.progress = Progress(
            totals={},
            history=[*before.history, line],
            best_value=value if better else before.best_value,
            best_epoch=epoch if better else before.best_epoch,
            stale=0 if better else before.stale + 1,
            seconds=seconds,
        )
        metrics.append_line(self.workdir / METRICS, line)

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


def _refuse_growth(what: str, before: Any, after: Any) -> None:
    """A memory that changes is compiled for anew, and could not be read back."""
    was, became = checkpoint.shapes(before), checkpoint.shapes(after)
    for name in sorted(was.keys() | became.keys()):
        if was.get(name) != became.get(name):
            raise ValueError(
                f"Task.{what}: the memory must keep its shapes and dtypes; {name or 'it'} was "
                f"{was.get(name, 'nothing')} and became {became.get(name, 'nothing')}"
            )
