"""Runs the configurations that a command line asks for, each in a folder of its own."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from data.batches import Batches
from experiments.analysis import style
from experiments.runner import records
from experiments.runner.config import RecurrentConfig, TrainConfig
from experiments.runner.flags import LaunchOptions
from experiments.runner.records import Record
from surnn_jax import train
from surnn_jax.train import distributed as peers
from surnn_jax.train import sharding


class Prepared(NamedTuple):
    """What a run needs beside its configuration.

    Attributes:
        task: what is trained.
        feeds: batches by split.
    """

    task: train.Task
    feeds: dict[str, Batches]


def training_settings(
    config: TrainConfig, metric: str, steps_per_epoch: int, warmup: int = 0
) -> tuple[train.Settings, train.OptimizerConfig]:
    """How long to train, and with what.

    Args:
        config: what is asked for.
        metric: the figure that chooses the best epoch.
        steps_per_epoch: of the training batches.
        warmup: updates in which the learning rate rises.

    Raises:
        ValueError: a name that does not exist, or a number out of range.
    """
    settings = train.Settings(
        max_epochs=config.max_epochs,
        monitor=metric,
        patience=config.patience,
        seed=config.seed,
        skip_nonfinite=config.skip_nonfinite,
    )
    updates = config.max_epochs * steps_per_epoch // max(config.accumulate, 1)
    optimizer = train.OptimizerConfig(
        config.optimiser,
        config.learning_rate,
        schedule=config.schedule,
        total_steps=max(updates, warmup + 1 if warmup else 0),
        warmup=warmup,
        clip=config.clip,
        weight_decay=config.weight_decay,
        switch_scale=config.switch_scale,
        accumulate=config.accumulate,
    )
    return settings, optimizer


def count(params: Any) -> int:
    """How many numbers a tree of parameters holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def train_run(
    experiment: str,
    config: TrainConfig,
    prepared: Prepared,
    workdir: Path,
    asked: LaunchOptions,
    *,
    metric: str = "nll",
    warmup: int = 0,
) -> train.FitResult:
    """Trains in `workdir`, or finishes what is there.

    Args:
        experiment: its name.
        config: what is asked for.
        prepared: what it means.
        workdir: the run's folder.
        asked: what else the command line asks for.
        metric: the figure that chooses the best epoch.
        warmup: updates in which the learning rate rises.
    """
    task, feeds = prepared
    steps = feeds["train"].steps_per_epoch
    settings, optimizer = training_settings(config, metric, steps, warmup)
    return train.fit(
        task,
        train.make_optimizer(optimizer),
        batches=feeds["train"].batch,
        steps_per_epoch=steps,
        evaluation=feeds["valid"].evaluation,
        settings=dataclasses.replace(
            settings, restore=asked.restore, profile=asked.profile, tensorboard=asked.tensorboard
        ),
        workdir=workdir,
        config={"experiment": experiment, **dataclasses.asdict(config)},
        mesh=train.make_mesh(asked.mesh) if asked.mesh else None,
    )


def fit(
    experiment: str,
    config: RecurrentConfig,
    prepared: Prepared,
    workdir: Path,
    asked: LaunchOptions,
) -> tuple[train.FitResult, Record] | None:
    """Trains one recurrent layer in `workdir`, or finishes it; leaves its record and curves there.

    None where another process writes it.

    Args:
        experiment: its name.
        config: what is asked for.
        prepared: what it means.
        workdir: the run's folder.
        asked: what else the command line asks for.
    """
    done = train_run(experiment, config, prepared, workdir, asked)
    if not peers.is_first():
        return None
    record = record_of(
        experiment,
        config,
        prepared,
        done.params,
        best_epoch=done.best_epoch,
        steps=done.steps,
        seconds=done.seconds,
        command=asked.command,
    )
    records.write(record, workdir)
    about = f"{config.unit}, {config.dataset}"
    style.learning_curves(done.history, workdir / "curves.png", title=about)
    return done, record


def record_of(
    experiment: str, config: RecurrentConfig, prepared: Prepared, params: Any, **measured: Any
) -> Record:
    """Scores parameters on every split, for the record of a run of one recurrent layer.

    Args:
        experiment: its name.
        config: what was asked for.
        prepared: what it means.
        params: those to score.
        **measured: the fields of `Record` that nobody can work out afterwards: best_epoch, steps,
            seconds, command.
    """
    scores = scores_of(prepared, params)
    return Record(
        experiment=experiment,
        dataset=config.dataset,
        cell=config.cell,
        switch=config.switch_name,
        seed=config.seed,
        parameters=count(params),
        recurrent_parameters=count(params["recurrent"]),
        update_rate=scores["test"]["update_rate"],
        metrics=_recorded(scores),
        config=dataclasses.asdict(config),
        versions=records.versions(),
        **measured,
    )


def scores_of(prepared: Prepared, params: Any) -> dict[str, dict[str, float]]:
    """The metrics of every split."""
    return {
        split: train.score(prepared.task, params, feed.evaluation())
        for split, feed in prepared.feeds.items()
    }


class Again:
    """A finished run of one recurrent layer, to be scored again, looked at or exported.

    Attributes:
        task: what was trained.
        first: a batch, for the shapes.
        model: the model itself, for :attr:`task` hides it.
        inputs: of that batch, as the model takes them, ``[B, T, …]``.
        wants: how such inputs are made from the data, in words.
        show: ``(record, params, folder)``: leaves pictures and sounds of it in a folder.
    """

    model: Any
    inputs: Any
    wants: str
    show: Callable[[Record, Any, Path], None]

    def __init__(self, prepared: Prepared):
        self._prepared = prepared
        self.task = prepared.task
        self.first = prepared.feeds["train"].batch(0)

    def metrics(self, params: Any) -> dict[str, float]:
        """What the record holds."""
        return _recorded(scores_of(self._prepared, params))


def _recorded(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{split}_nll": values["nll"] for split, values in scores.items()}


def summary(done: Mapping[str, Record]) -> str:
    """A table of finished runs of one recurrent layer, for the terminal."""
    first = next(iter(done.values()))
    width = max(14, *(len(name) + 2 for name in done))
    head = (
        f"{'run':<{width}}{'test':>8}{'valid':>8}{'train':>8}{'rate':>7}{'parameters':>12}{'s':>7}"
    )
    lines = [f"{records.headline(first)[0]}, lower is better ({first.dataset})", head]
    for name, r in done.items():
        test, valid, fitted = (r.metrics[f"{split}_nll"] for split in ("test", "valid", "train"))
        lines.append(
            f"{name or r.cell:<{width}}{test:8.3f}{valid:8.3f}{fitted:8.3f}{r.update_rate:7.2f}"
            f"{r.recurrent_parameters:12,d}{r.seconds:7.1f}"
        )
    return "\n".join(lines)


def clear_caches() -> None:
    """Gives back what was compiled for a task that is over.

    Each program takes about ten memory mappings, of which Linux allows a process 65,530: a search
    that kept all had used them up at its eighth unit and data set, and the compiler crashed.
    """
    jax.clear_caches()


def run_all(
    experiment: str,
    runs: Mapping[str, Any],
    asked: LaunchOptions,
    *,
    refuse: Callable[[Any], None],
    run: Callable[[Any, Path], Record | None],
    metric: str,
    summary: Callable[[Mapping[str, Record]], str],
) -> None:
    """Runs them one after another, then compares them.

    Args:
        experiment: its name.
        runs: name -> configuration; the name ``""`` stands for `workdir` itself.
        asked: what else the command line asks for; the folder is by default below
            ``runs/EXPERIMENT``, named by what is run.
        refuse: refuses a bad configuration.
        run: trains one configuration in a folder, or finishes it; None where another process
            writes what comes of it.
        metric: whose curves are compared.
        summary: a table of finished runs, for the terminal.

    Raises:
        ValueError: bad configuration or data, or a folder of another run.
        OSError: a folder or file is missing or cannot be read or written.
    """
    if asked.distributed:
        if not asked.mesh:
            raise ValueError("distributed: say which devices share the work: --mesh=data:N")
        train.initialize_distributed(asked.distributed)
    mesh = train.make_mesh(asked.mesh) if asked.mesh else None
    # All of them, before any of them trains for minutes.
    for config in runs.values():
        refuse(config)
        if mesh is not None:
            sharding.check_rows(mesh, config.batch_size)
    (first, *_) = runs.values()
    name = asked.preset or f"{first.dataset}-{first.unit}-{first.seed}"
    home = Path(asked.workdir or f"runs/{experiment}/{name}")
    done = {}
    for number, (part, config) in enumerate(runs.items(), 1):
        if part and peers.is_first():
            print(f"[{number}/{len(runs)}] {part}", flush=True)
        if number > 1:
            clear_caches()
        done[part] = run(config, home / part)
        peers.barrier("run")  # What comes next would wait for the first process, but not for ever.
    if not peers.is_first():
        return
    if len(done) > 1:
        histories = {part: train.files.read_lines(home / part / "metrics.jsonl") for part in done}
        style.compare_curves(histories, home / "curves.png", metric=metric, title=name)
    print(summary(done))
    print(f"pictures and result.json: {home}")
