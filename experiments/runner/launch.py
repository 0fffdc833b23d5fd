"""Runs the configurations that a command line asks for, each in a folder of its own."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax

from data import columns
from experiments.analysis import curves
from experiments.runner import experiment as experiments
from experiments.runner import own, parameters, records
from experiments.runner.config import TrainConfig, identity
from experiments.runner.experiment import Experiment, Prepared
from experiments.runner.flags import LaunchOptions
from experiments.runner.records import Record
from surnn_jax import train
from surnn_jax.train import distributed, sharding

_MOST_BYTES = 2**20
"""Larger parameters are in the checkpoint alone."""


def run_all(
    experiment: Experiment, runs: Mapping[str, TrainConfig], options: LaunchOptions
) -> None:
    """Runs configurations one after another, then compares them in a table and a figure.

    Args:
        experiment: whose configurations they are.
        runs: name -> configuration; the name ``""`` stands for the folder itself.
        options: the folder is by default below ``runs/EXPERIMENT``, named after the runs.

    Raises:
        ValueError: bad configuration or data, or a folder of another run.
        OSError: a folder or file is missing or cannot be read or written.
    """
    if options.distributed:
        if not options.mesh:
            raise ValueError("distributed: say which devices share the work: --mesh=data:N")
        train.initialize_distributed(options.distributed)
    mesh = train.make_mesh(options.mesh) if options.mesh else None
    # All of them, before any of them trains for minutes.
    for config in runs.values():
        if config.own and not config.own_kind:
            raise ValueError(f"{experiment.name} reads no own files; leave out --data")
        experiment.check(config)
        if mesh is not None:
            sharding.check_rows(mesh, config.batch_size)
    (first, *_) = runs.values()
    name = options.preset or f"{first.dataset}-{first.unit}-{first.seed}"
    home = Path(options.workdir or f"runs/{experiment.name}/{name}")
    if home.exists() and not home.is_dir():
        raise NotADirectoryError(f"--workdir={home}: a file; name a folder")
    done, metric = {}, ""
    for number, (part, config) in enumerate(runs.items(), 1):
        if part and distributed.is_first():
            print(f"[{number}/{len(runs)}] {part}", flush=True)
        if number > 1:
            clear_caches()
        prepared = experiment.prepare(config, options.data_dir)
        metric = prepared.metric
        record = train_run(experiment.name, config, prepared, home / part, options)
        if record is not None:
            done[part] = record
        # Else the others would time out in their next sum, waiting for the first process.
        distributed.barrier("run")
    if not distributed.is_first():
        return
    if len(done) > 1:
        histories = {part: train.files.read_lines(home / part / "metrics.jsonl") for part in done}
        with drawing("curves.png"):
            curves.compare_curves(histories, home / "curves.png", metric=metric, title=name)
    if not done:  # Trials.
        return
    print(summary(done))
    print(f"pictures and result.json: {home}")


def train_run(
    experiment: str, config: TrainConfig, prepared: Prepared, workdir: Path, options: LaunchOptions
) -> Record | None:
    """Trains in `workdir`, or resumes there; writes record, curves and pictures into it.

    Args:
        experiment: its name.
        config: the run's configuration.
        prepared: its data and model.
        workdir: the run's folder.
        options: how to run.

    Returns:
        The record; None of a trial, and in all processes but the first, which writes everything.
    """
    first = distributed.is_first()
    if first and config.own:
        print(own.text(prepared.data), flush=True)
    if first and prepared.about is not None:
        print(prepared.about(), flush=True)
    begun = time.monotonic()
    trial = {"metric": prepared.metric, "config": identity(config)}
    try:
        fit = _fit(experiment, config, prepared, workdir, options)
    except FloatingPointError:
        if first and options.trial:  # JSON has no infinity.
            trial |= {"valid": "inf", "seconds": time.monotonic() - begun}
            train.files.write_json(workdir / records.TRIAL, trial)
        raise
    if not first:
        return None
    if options.trial:
        trial |= {"valid": fit.best_value, "epoch": fit.best_epoch, "seconds": fit.seconds}
        train.files.write_json(workdir / records.TRIAL, trial)
        return None
    _say(f"scoring epoch {fit.best_epoch}, the best, on {', '.join(prepared.scored)}")
    record = experiments.record_of(
        experiment,
        config,
        prepared,
        fit.params,
        best_epoch=fit.best_epoch,
        steps=fit.steps,
        seconds=fit.seconds,
        command=options.command,
    )
    if 4 * record.parameters <= _MOST_BYTES:
        parameters.write(fit.params, workdir)
    records.write(record, workdir)  # Last of what is kept: it says that the run is finished.
    _say("drawing")
    with drawing("the pictures of the run"):
        prepared.draw(record, fit.params, workdir)
    with drawing("curves.png"):
        path, title = workdir / "curves.png", f"{config.unit}, {config.dataset}"
        curves.learning_curves(fit.history, path, metric=prepared.metric, title=title)
    return record


def _fit(
    experiment: str, config: TrainConfig, prepared: Prepared, workdir: Path, options: LaunchOptions
) -> train.FitResult:
    """Trains, or resumes; for the arguments see :func:`train_run`."""
    feeds, steps = prepared.feeds, prepared.feeds["train"].steps_per_epoch
    settings, optimizer = experiments.training_settings(config, prepared.metric, steps)
    return train.fit(
        prepared.task,
        train.make_optimizer(optimizer),
        batches=feeds["train"].batch,
        steps_per_epoch=steps,
        evaluation=feeds["valid"].evaluation,
        settings=dataclasses.replace(
            settings,
            restore=options.restore,
            profile=options.profile,
            tensorboard=options.tensorboard,
        ),
        workdir=workdir,
        config=experiments.identity_of(experiment, config, prepared),
        mesh=train.make_mesh(options.mesh) if options.mesh else None,
    )


def _say(line: str) -> None:
    """What takes a while now, beside the results on stdout."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def drawing(what: str) -> Iterator[None]:
    """Turns an error into a warning: a picture that cannot be drawn ends no run."""
    try:
        yield
    except Exception as error:
        print(
            f"warning: {what} could not be drawn: {type(error).__name__}: "
            f"{' '.join(str(error).split())}; experiments.evaluate --show draws them later",
            file=sys.stderr,
        )


def summary(done: Mapping[str, Record]) -> str:
    """A table of finished runs, for the terminal."""
    first = next(iter(done.values()))
    unit, _ = records.headline(first)
    digits, better = (".3f", ", lower is better") if unit.startswith("nats") else (".5g", "")
    scored = {name.partition("_")[0] for name in first.metrics}
    splits = [split for split in ("test", "valid", "train") if split in scored]
    rows = [["run", *splits, "rate", "parameters", "s"]]
    for name, record in done.items():
        values = (records.headline(record, split)[1] for split in splits)
        rows.append(
            [
                name or record.cell,
                *(f"{value:{digits}}" for value in values),
                f"{record.update_rate:.3f}",
                f"{record.recurrent_parameters:,d}",
                f"{record.seconds:.1f}",
            ]
        )
    return "\n".join([f"{unit}{better} ({first.dataset})", *columns.lines(rows)])


def clear_caches() -> None:
    """Frees the programs that were compiled for a task.

    Each program takes about ten memory mappings, of which Linux allows a process 65,530: a search
    that kept all had used them up at its eighth unit and data set, and the compiler crashed.
    """
    jax.clear_caches()
