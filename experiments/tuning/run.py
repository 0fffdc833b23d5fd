"""Trains the groups of a search one after another, and keeps what they come to."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

import data
from experiments.report import searches
from experiments.runner import launch, records
from experiments.runner.config import RecurrentConfig
from experiments.tasks.music import experiment as music_runs
from experiments.tasks.speech import experiment as speech_runs
from experiments.tuning import journal
from experiments.tuning.journal import Trial, TrialLog
from experiments.tuning.protocols import SEARCH, Group, SearchSpace
from surnn_jax import train
from surnn_jax.train import checkpoint
from surnn_jax.train.files import lock_directory

_RUNS = {part.EXPERIMENT: part for part in (music_runs, speech_runs)}
_SAVE_SECONDS = 60.0


def run_search(
    space: SearchSpace,
    configs: Mapping[Group, RecurrentConfig],
    workdir: Path,
    data_dir: str | None,
    command: str,
) -> None:
    """Runs every group that the journal has not, then prints the table of all.

    Args:
        space: what is searched.
        configs: group -> what its trials have in common.
        workdir: the folder of the search.
        data_dir: folder of the originals, or None.
        command: for the records.

    Raises:
        ValueError: bad configuration or data, or a folder of another search.
        OSError: a folder or file is missing or cannot be read or written.
    """
    runs = _RUNS[space.experiment]
    # All of them, before any of them trains for hours.
    for config in configs.values():
        runs.refuse_bad(config)
    for dataset in dict.fromkeys(config.dataset for config in configs.values()):
        data.load(dataset, "train", data_dir)
    workdir.mkdir(parents=True, exist_ok=True)
    book, groups, others = TrialLog(workdir, space.header()), list(configs), []
    last: tuple[tuple, train.Task] | None = None
    for number, group in enumerate(groups, 1):
        if _done(book.trials(), space, group):
            continue
        folder = workdir / group.name
        folder.mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock_directory(folder))
            except BlockingIOError:
                others.append(group)
                continue
            if _done(book.trials(), space, group):  # Another process had it until just now.
                continue
            left = journal.time_left(book.trials(), groups[number - 1 :])
            about = "" if left is None else f"; about {format_duration(left)} left"
            print(f"[{number}/{len(groups)}] {group.name}{about}", flush=True)
            config, kind = configs[group], (group.dataset, group.unit)
            prepared = runs.prepare(config, data_dir)
            # A task knows nothing of the seed: with the one before, nothing is compiled anew.
            if last is not None and last[0] == kind:
                prepared = prepared._replace(task=last[1])
            elif last is not None:
                launch.clear_caches()
            last = kind, prepared.task
            print(_run(space, group, config, prepared, folder, book, command), flush=True)
    others = [group for group in others if not _done(book.trials(), space, group)]
    if others:
        names = ", ".join(group.name for group in others)
        print(f"left to another process: {names}; run again for the table of all")
        return
    for group in groups:
        shutil.rmtree(workdir / group.name / "population", ignore_errors=True)
    _check(book.trials(), groups, workdir)
    print(searches.of_folder(workdir))


def _done(trials: Sequence[Trial], space: SearchSpace, group: Group) -> bool:
    return sum(trial.group == group for trial in trials) == space.budget


def _run(
    space: SearchSpace,
    group: Group,
    config: RecurrentConfig,
    prepared: launch.Prepared,
    folder: Path,
    book: TrialLog,
    command: str,
) -> str:
    """Trains all draws of a group, keeps the winner and writes the journal; says what came out."""
    started = time.monotonic()
    feeds, draws = prepared.feeds, space.draws
    settings, optimizer = launch.training_settings(config, "nll", feeds["train"].steps_per_epoch)
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
        steps_per_epoch=feeds["train"].steps_per_epoch,
        evaluation=feeds["valid"].evaluation,
        settings=dataclasses.replace(settings, save_seconds=_SAVE_SECONDS),
        workdir=folder / "population",
        config={"experiment": space.experiment, **dataclasses.asdict(config)},
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
    said = f"{group.name}: all {space.budget} trials diverged"
    if best is not None:
        params = jax.tree.map(lambda leaf: leaf[best.draw], done.params)
        won = dataclasses.replace(
            config, learning_rate=best.learning_rate, weight_decay=best.weight_decay
        )
        found = {
            "protocol": space.protocol,
            "budget": space.budget,
            "seed": space.seed,
            "dataset": group.dataset,
            "unit": group.unit,
            "draw": best.draw,
            "diverged": diverged,
            "halvings": space.halvings(group.dataset),
            "seconds": done.seconds,
        }
        record = launch.record_of(
            space.experiment,
            won,
            prepared,
            params,
            best_epoch=best.best_epoch,
            steps=best.epochs * feeds["train"].steps_per_epoch,
            seconds=best.seconds,
            command=command,
        )
        record = record._replace(config={**record.config, SEARCH: found})
        checkpoint.save_best(folder, best.best_epoch, params, {"config": record.config})
        records.write(record, folder)
        said = (
            f"{group.name}: test {record.metrics['test_nll']:.3f}, valid {best.valid_nll:.3f}, "
            f"draw {best.draw}, learning rate {best.learning_rate:.2g}, epoch {best.best_epoch} "
            f"of {best.epochs}; {diverged} of {space.budget} diverged; "
            f"{format_duration(time.monotonic() - started)}"
        )
    book.append(trials)
    shutil.rmtree(folder / "population")
    return said


def _check(trials: Sequence[Trial], groups: Sequence[Group], workdir: Path) -> None:
    """Refuses to speak of a search whose winners are gone."""
    for group in groups:
        won = journal.winner([trial for trial in trials if trial.group == group])
        if won is not None and not (workdir / group.name / records.FILE).is_file():
            raise ValueError(
                f"{workdir / group.name / records.FILE} is missing, though {journal.FILE} has the "
                "group as done: put it back, or search in another workdir"
            )


def format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
