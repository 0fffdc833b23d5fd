"""What lra, pixels, synthetic and wikitext do with a configuration: train, score, record."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from experiments.analysis import style
from experiments.runner import launch, records
from experiments.runner.flags import LaunchOptions
from experiments.tasks.sequence import data
from experiments.tasks.sequence import figures as sequence_inside
from experiments.tasks.sequence.config import Config
from experiments.tasks.sequence.data import Prepared
from experiments.tasks.sequence.task import METRIC, TaskSpec, frames, model_of, switch_of, task_of
from surnn_jax import cells, scan, train
from surnn_jax.layers import backbone
from surnn_jax.train import distributed

SCORED = ("valid", "test")


def run_all(experiment: str, runs: Mapping[str, Config], asked: LaunchOptions) -> None:
    """Runs every configuration in a folder of its own, then compares them: see :func:`.launch.go`.

    Args:
        experiment: one of :data:`.sequence_data.EXPERIMENTS`.
        runs: name -> configuration.
        asked: what else the command line asks for.
    """
    (first, *_) = runs.values()
    launch.run_all(
        experiment,
        runs,
        asked,
        refuse=lambda config: check(experiment, config),
        run=lambda config, folder: run(experiment, config, folder, asked),
        metric=METRIC[data.kind_of(first.dataset)],
        summary=summary,
    )


def check(experiment: str, config: Config, *, shapes: bool = True) -> None:
    """Refuses a configuration before anything is read or compiled.

    Args:
        experiment: whose it is.
        config: what is asked for.
        shapes: whether to trace the model, on a stand-in for the data; takes about a second.

    Raises:
        ValueError: what is wrong and what would be right.
    """
    data.check(experiment, config)
    launch.training_settings(config, "nll", max(config.warmup, 0) + 1, config.warmup)
    problem = data.dummy_spec(config)
    model = model_of(config, problem)
    if shapes:
        task = task_of(config, problem)
        jax.eval_shape(task.init, jax.random.key(0), data.dummy_batch(config, problem))
    else:
        backbone.check(model.backbone)


def run(
    experiment: str, config: Config, workdir: Path, asked: LaunchOptions
) -> records.Record | None:
    """Trains one configuration in `workdir`, or finishes it, and leaves all its results there."""
    prepared = data.prepare(config, asked.data_dir)
    problem, feeds = prepared
    task, metric = task_of(config, problem), METRIC[problem.kind]
    if distributed.is_first():
        print(_about(config, problem, task, feeds["train"].batch(0)), flush=True)
    ready = launch.Prepared(task, feeds)
    fit = launch.train_run(
        experiment, config, ready, workdir, asked, metric=metric, warmup=config.warmup
    )
    if not distributed.is_first():
        return None
    scores = scores_of(task, fit.params, prepared)
    backbone = fit.params["backbone"]
    record = records.Record(
        experiment=experiment,
        dataset=config.dataset,
        cell=config.kinds,
        switch=config.switch_name,
        parameters=launch.count(fit.params),
        recurrent_parameters=launch.count(
            {name: part for name, part in backbone.items() if name.startswith("blocks_")}
        ),
        update_rate=scores["test"]["update_rate"],
        metrics=recorded(scores),
        best_epoch=fit.best_epoch,
        steps=fit.steps,
        seconds=fit.seconds,
        seed=config.seed,
        config=dataclasses.asdict(config),
        versions=records.versions(),
        command=asked.command,
    )
    records.write(record, workdir)
    sequence_inside.inspect(config, prepared, fit.params, workdir)
    title = f"{config.unit}, {config.dataset}"
    style.learning_curves(fit.history, workdir / "curves.png", metric=metric, title=title)
    return record


def scores_of(task: train.Task, params: Any, prepared: Prepared) -> dict[str, dict[str, float]]:
    """The metrics of the validation and the test split."""
    return {
        split: train.score(task, params, prepared.feeds[split].evaluation()) for split in SCORED
    }


class Again:
    """A finished run, to be scored again, looked at or exported: see :class:`.launch.Again`."""

    def __init__(self, config: Mapping[str, Any], data_dir: str | None):
        self._config = config = Config(**config)
        self._prepared = data.prepare(config, data_dir)
        self.task = task_of(config, self._prepared.problem)
        self.first = self._prepared.feeds["train"].batch(0)
        problem = self._prepared.problem
        self.model, self.inputs = model_of(config, problem), frames(problem, self.first["x"])
        self.wants = "bytes / 255" if problem.bytes else "numbers as they are"
        if problem.tokens is not None:
            self.wants = f"tokens, 0 to {problem.tokens - 1}"

    def metrics(self, params: Any) -> dict[str, float]:
        """What the record holds."""
        return recorded(scores_of(self.task, params, self._prepared))

    def show(self, record: records.Record, params: Any, folder: Path) -> None:
        """Pictures and what they were drawn from, as the run itself left them."""
        sequence_inside.inspect(self._config, self._prepared, params, folder)


def recorded(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What a record keeps of the scores: everything but the update rate of the whole."""
    return {
        f"{split}_{name}": value
        for split, values in scores.items()
        for name, value in values.items()
        if name != "update_rate"
    }


def summary(done: Mapping[str, records.Record]) -> str:
    """A table of finished runs, for the terminal."""
    what, _ = records.headline(next(iter(done.values())))
    width = max(16, *(len(name) + 2 for name in done))
    head = f"{'run':<{width}}{'test':>10}{'valid':>10}{'rate':>7}{'parameters':>12}{'s':>8}"
    lines = [f"{what} ({next(iter(done.values())).dataset})", head]
    for name, r in done.items():
        test, valid = (records.headline(r, split)[1] for split in ("test", "valid"))
        lines.append(
            f"{name or r.cell:<{width}}{test:10.5g}{valid:10.5g}"
            f"{r.update_rate:7.3f}{r.parameters:12,d}{r.seconds:8.1f}"
        )
    return "\n".join(lines)


def _about(config: Config, problem: TaskSpec, task: train.Task, batch: Any) -> str:
    """One line: what is about to be trained, and how its recurrent layers are scanned."""
    params = jax.eval_shape(task.init, jax.random.key(0), batch)
    said = [f"{config.unit} on {config.dataset}", f"{launch.count(params):,} parameters"]
    kinds = [name for name in config.names if name.removeprefix("su") in cells.CELLS]
    for name in dict.fromkeys(kinds):
        switch = switch_of(config, problem) if name not in cells.CELLS else None
        unit = scan.selective(name if switch is None else name.removeprefix("su"), switch)
        size = config.hidden or config.features
        dtype = "bfloat16" if config.precision == "bfloat16" else "float32"
        chosen = config.backend
        if chosen == "auto":
            steps = batch["x"].shape[1]
            chosen = scan.auto.choose(unit, size, steps, config.batch_size, dtype=dtype).backend
        said.append(f"{name}: back end {chosen}")
    return "; ".join(said)
