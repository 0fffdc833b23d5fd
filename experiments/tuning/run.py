"""Trains the groups of a search one after another, and keeps their winners."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from experiments.runner import experiment as experiments
from experiments.runner import launch, own, parameters, records
from experiments.runner.config import RecurrentConfig
from experiments.runner.experiment import Prepared
from experiments.tasks import registry
from experiments.tuning import journal
from experiments.tuning.journal import Trial, TrialLog
from experiments.tuning.protocols import Group, SearchSpace
from surnn_jax import train
from surnn_jax.train.files import lock_directory

_SAVE_SECONDS = 60.0


def run_search(
    space: SearchSpace,
    configs: Mapping[Group, RecurrentConfig],
    workdir: Path,
    data_dir: str | None,
    command: str,
) -> bool:
    """Runs every group that the journal has not.

    Args:
        space: the search space.
        configs: group -> configuration of its trials.
        workdir: the folder of the search.
        data_dir: folder of the originals, or None.
        command: for the records.

    Returns:
        Whether all groups are done; False if another process still runs some of them.

    Raises:
        ValueError: bad configuration or data, or a folder of another search.
        OSError: a folder or file is missing or cannot be read or written.
    """
    experiment = registry.load(space.experiment)
    # All of them, before any of them trains for hours.
    for config in configs.values():
        experiment.check(config)
    for config in {config.dataset: config for config in configs.values()}.values():
        own.load_splits(config, data_dir)
    workdir.mkdir(parents=True, exist_ok=True)
    log, groups, others = TrialLog(workdir, space.header()), list(configs), []
    last: tuple[tuple, train.Task] | None = None
    for number, group in enumerate(groups, 1):
        if _done(log.trials(), space, group):
            continue
        folder = workdir / group.name
        folder.mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock_directory(folder))
            except BlockingIOError:
                others.append(group)
                continue
            if _done(log.trials(), space, group):  # Another process had it until just now.
                continue
            left = journal.time_left(log.trials(), groups[number - 1 :])
            about = "" if left is None else f"; about {format_duration(left)} left"
            print(f"[{number}/{len(groups)}] {group.name}{about}", flush=True)
            config, kind = configs[group], (group.dataset, group.unit)
            prepared = experiment.prepare(config, data_dir)
            # A task does not depend on the seed: reusing it saves compiling again.
            if last is not None and last[0] == kind:
                prepared = prepared._replace(task=last[1])
            elif last is not None:
                launch.clear_caches()
            last = kind, prepared.task
            print(_run(space, group, config, prepared, folder, log, command), flush=True)
    others = [group for group in others if not _done(log.trials(), space, group)]
    if others:
        names = ", ".join(group.name for group in others)
        print(f"left to another process: {names}; run again for the table of all")
        return False
    for group in groups:
        shutil.rmtree(workdir / group.name / "population", ignore_errors=True)
    _check(log.trials(), groups, workdir)
    return True


def _done(trials: Sequence[Trial], space: SearchSpace, group: Group) -> bool:
    return sum(trial.group == group for trial in trials) == space.budget


def _run(
    space: SearchSpace,
    group: Group,
    config: RecurrentConfig,
    prepared: Prepared,
    folder: Path,
    log: TrialLog,
    command: str,
) -> str:
    """Trains all draws of a group, keeps the winner and writes the journal; returns a summary."""
    started = time.monotonic()
    feeds, draws = prepared.feeds, space.draws
    steps_per_epoch = feeds["train"].steps_per_epoch
    settings, optimizer = experiments.training_settings(config, prepared.metric, steps_per_epoch)
    members = [
        train.HyperParameters(
            draw["learning_rate"], draw.get("weight_decay", config.weight_decay), config.seed
        )
        for draw in draws
    ]
    done = train.fit_population(
        prepared.task,
        optimizer,
        members,
        batches=feeds["train"].batch,
        steps_per_epoch=steps_per_epoch,
        evaluation=feeds["valid"].evaluation,
        settings=dataclasses.replace(settings, save_seconds=_SAVE_SECONDS),
        workdir=folder / "population",
        config=experiments.identity_of(space.experiment, config, prepared),
        halvings=space.halvings(group.dataset),
    )
    trials = [
        Trial(
            *group,
            draw=number,
            learning_rate=member.learning_rate,
            weight_decay=member.weight_decay,
            status=outcome.status,
            valid_nll=outcome.best_value,
            best_epoch=outcome.best_epoch,
            epochs=outcome.epochs,
            skipped=outcome.skipped,
            seconds=outcome.seconds,
            budget=space.budget,
        )
        for number, (member, outcome) in enumerate(zip(members, done.outcomes, strict=True))
    ]
    best = journal.winner(trials)
    diverged = sum(trial.status == "diverged" for trial in trials)
    summary = f"{group.name}: all {space.budget} trials diverged"
    if best is not None:
        params = jax.tree.map(lambda leaf: leaf[best.draw], done.params)
        record = experiments.record_of(
            space.experiment,
            dataclasses.replace(
                config, learning_rate=best.learning_rate, weight_decay=best.weight_decay
            ),
            prepared,
            params,
            best_epoch=best.best_epoch,
            steps=best.epochs * steps_per_epoch,
            seconds=best.seconds,
            command=command,
            search={
                "protocol": space.protocol,
                "budget": space.budget,
                "seed": space.seed,
                "dataset": group.dataset,
                "unit": group.unit,
                "draw": best.draw,
                "diverged": diverged,
                "halvings": space.halvings(group.dataset),
                "seconds": done.seconds,
            },
        )
        parameters.write(params, folder)
        records.write(record, folder)
        summary = (
            f"{group.name}: test {record.metrics['test_nll']:.3f}, valid {best.valid_nll:.3f}, "
            f"draw {best.draw}, learning rate {best.learning_rate:.2g}, epoch {best.best_epoch} "
            f"of {best.epochs}; {diverged} of {space.budget} diverged; "
            f"{format_duration(time.monotonic() - started)}"
        )
    log.append(trials)
    shutil.rmtree(folder / "population")
    return summary


def _check(trials: Sequence[Trial], groups: Sequence[Group], workdir: Path) -> None:
    """Refuses a search that lacks the record of a winner."""
    for group in groups:
        won = journal.winner([trial for trial in trials if trial.group == group])
        if won is not None and not (workdir / group.name / records.FILE).is_file():
            raise ValueError(
                f"{workdir / group.name / records.FILE} is missing, though {journal.FILE} has the "
                "group as done: put it back, or search in another workdir"
            )


def format_duration(seconds: float) -> str:
    """Such as ``80 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
