"""The jobs of a reproduction: trials of draws, then the winner with every seed.

A job is one training run in a folder of its own. What a folder holds says how far the job is, so
nothing is lost when a process is killed, and several processes can work on one folder.
"""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from experiments.runner import records
from experiments.runner.config import TrainConfig, from_record, identity
from experiments.runner.records import PARAMETERS
from experiments.tuning import effort
from experiments.tuning.matrix import Entry

KEPT = ("metrics.jsonl", "inside.json")
"""Small files of a run that are published beside its record: learning curve, a look inside."""


class Job(NamedTuple):
    """One process to run.

    Attributes:
        command: its command line.
        folder: where it works; what it leaves there says that it is done.
        share: the part of the whole budget that it trains on.
        config: what a trial is to have trained, as its result says it.
    """

    command: tuple[str, ...]
    folder: Path
    share: float = 1.0
    config: Mapping[str, Any] | None = None

    @contextlib.contextmanager
    def claim(self) -> Iterator[int | None]:
        """Holds the job, so that no other process starts it.

        Yields:
            The descriptor of the lock, which a child may inherit; None if another process has it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "claim", os.O_CREAT | os.O_RDWR)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield descriptor
        finally:
            os.close(descriptor)


class Work(Protocol):
    """The jobs of one line of a table, as far as they are known: later ones follow from results."""

    name: str

    def ready(self) -> list[Job]:
        """Jobs that can be run now and are not done."""

    def done(self, job: Job) -> bool:
        """Whether a job has left its result."""

    def left(self) -> list[float]:
        """The shares of the budget of all jobs that are not done, known yet or not."""

    def seconds(self) -> float | None:
        """What the whole budget takes, by the jobs that are done; None if none is."""

    def recorded(self) -> int:
        """How many results are there."""


class Ladder:
    """One model on one task: trials of its draws, then the winner with every seed.

    Args:
        entry: the model and the task.
        workdir: the folder of the reproduction.
        results: the folder of the committed records; what is there is not run again.
        device: ``cpu`` for short presets, ``gpu`` for full ones.
        seeds: of the winner.
    """

    def __init__(
        self,
        entry: Entry,
        workdir: Path,
        results: Path,
        device: str = "cpu",
        seeds: Sequence[int] = effort.SEEDS,
    ):
        self.name, self.entry, self.device, self.seeds = entry.name, entry, device, seeds
        self._home, self._results = workdir / entry.name, results
        self.draws = effort.draws(entry.task)

    def ready(self) -> list[Job]:
        """Jobs that can be run now and are not done.

        Raises:
            ValueError: every draw diverged, or a result is damaged.
        """
        if (search := self._recorded_search()) is not None:
            chosen = search["draw"]
        else:
            left = [draw.number for draw in self.draws]
            for divisor, count in effort.ROUNDS:
                jobs = [self._draw(number, divisor) for number in left[:count]]
                if missing := [job for job in jobs if not self.done(job)]:
                    return missing
                left = effort.best(self.round(divisor), count)
            chosen = left[0]
        self._check_runs(chosen)
        jobs = [self._seed(chosen, seed) for seed in self.seeds]
        return [job for job in jobs if not self.done(job)]

    def done(self, job: Job) -> bool:
        """Whether a job has left its result."""
        if job.share < 1:
            return _figure(job) is not None
        return self.record(job.folder.name) is not None

    def left(self) -> list[float]:
        """The shares of the budget of all jobs that are not done, known yet or not."""
        shares, able = [], len(self.draws)
        if self._recorded_search() is None:
            for divisor, count in effort.ROUNDS:
                found = self.round(divisor)
                shares += [1 / divisor] * max(0, min(count, able) - len(found))
                able -= sum(not math.isfinite(figure) for figure in found.values())
        return shares + [1.0] * (len(self.seeds) - self.recorded())

    def seconds(self) -> float | None:
        """What the whole budget takes, by the jobs that are done; None if none is."""
        runs = [run.seconds for seed in self.seeds if (run := self.record(f"seed-{seed}"))]
        for divisor, _ in () if runs else reversed(effort.ROUNDS):
            folders = self._home.glob(f"draw-*-of-{divisor}")
            trials = [found for folder in folders if (found := _trial(folder))]
            # One that diverged ended before its part of the budget.
            runs += [divisor * one["seconds"] for one in trials if math.isfinite(one["valid"])]
        return sum(runs) / len(runs) if runs else None

    def recorded(self) -> int:
        """How many seeds have a result."""
        return sum(self.record(f"seed-{seed}") is not None for seed in self.seeds)

    def round(self, divisor: int) -> dict[int, float]:
        """Draw -> validation figure of the finished trials of one round."""
        figures = {d.number: _figure(self._draw(d.number, divisor)) for d in self.draws}
        return {number: figure for number, figure in figures.items() if figure is not None}

    def record(self, name: str) -> records.Record | None:
        """The record of a winner's run, such as ``seed-0``: the committed one, or the run's own."""
        for folder in (self._results / self.name / name, self._home / name):
            if (folder / records.FILE).exists():
                return records.read(folder / records.FILE)
        return None

    def publish(self) -> list[Path]:
        """Copies finished results to the committed ones; returns the folders that are new.

        Each record says how the search chose its draw. Its learning curve and what was seen inside
        go with it, and the parameters of seed 0 if they are small.

        Raises:
            ValueError: a run is not of the draw that the search chose, or the search is not there.
        """
        new = []
        for seed in self.seeds:
            run, kept = self._home / f"seed-{seed}", self._results / self.name / f"seed-{seed}"
            if not (run / records.FILE).exists() or (kept / records.FILE).exists():
                continue
            search = self._recorded_search() or self._search()
            self._check_runs(search["draw"])
            kept.mkdir(parents=True, exist_ok=True)
            for name in (*KEPT, *[PARAMETERS][: seed == self.seeds[0]]):
                if (run / name).exists():
                    shutil.copyfile(run / name, kept / name)
            # Last: a folder with a record is not looked at again.
            record = records.read(run / records.FILE)
            records.write(record._replace(search=search), kept)
            new.append(kept)
        return new

    def _search(self) -> dict[str, Any]:
        """How the trials of the folder chose a draw."""
        rounds, able = [self.round(divisor) for divisor, _ in effort.ROUNDS], effort.DRAWS
        for (divisor, count), found in zip(effort.ROUNDS, rounds, strict=True):
            able, wanted = sum(map(math.isfinite, found.values())), min(count, able)
            if len(found) < wanted:
                raise ValueError(
                    f"{self._home}: trials on a part of 1/{divisor} are missing, so that nothing "
                    "says how the draw was chosen; run them again"
                )
        return effort.summary(self.draws, rounds, effort.best(rounds[-1])[0])

    def _recorded_search(self) -> dict[str, Any] | None:
        """How the draw was chosen that committed records were trained with."""
        for seed in self.seeds:
            found = self.record(f"seed-{seed}")
            if found is not None and found.search is not None:
                return found.search
        return None

    def _check_runs(self, draw: int) -> None:
        """Compares the records of all seeds, own and committed ones, with what they should be.

        Else seeds of two recipes would stand in one row.

        Raises:
            ValueError: one is of another configuration.
        """
        for seed in self.seeds:
            wanted = self._drawn(draw, seed)
            for home in (self._home, self._results / self.name):
                path = home / f"seed-{seed}" / records.FILE
                if not path.exists():
                    continue
                found = from_record(type(wanted), records.read(path).config, path)
                if _plain(found) != _plain(wanted):
                    raise ValueError(_another(path.parent, "run"))

    def _drawn(self, number: int, seed: int) -> TrainConfig:
        """The configuration of a draw."""
        rates = {name: getattr(self.draws[number], name) for name in effort.SPACE}
        return dataclasses.replace(self.entry.config(self.device), seed=seed, **rates)

    def _draw(self, number: int, divisor: int) -> Job:
        config = self._drawn(number, seed=0)
        examples, epochs = effort.budget((config.examples, config.max_epochs), divisor)
        flags = (f"--train_examples={examples}", f"--max_epochs={epochs}", "--seed=0", "--trial")
        job = self._job(f"draw-{number}-of-{divisor}", number, flags, 1 / divisor)
        config = dataclasses.replace(config, examples=examples, max_epochs=epochs)
        return job._replace(config=_plain(config))

    def _seed(self, draw: int, seed: int) -> Job:
        return self._job(f"seed-{seed}", draw, (f"--seed={seed}",), 1.0)

    def _job(self, name: str, number: int, flags: tuple[str, ...], share: float) -> Job:
        draw, folder = self.draws[number], self._home / name
        preset = f"--preset={self.entry.preset(self.device)}"
        rates = (f"--learning_rate={draw.learning_rate}", f"--weight_decay={draw.weight_decay}")
        command = _command(self.entry.program, preset, *rates, *flags, f"--workdir={folder}")
        return Job(command, folder, share)


class SearchGroup:
    """One unit on one data set of a search by :mod:`experiments.search`, with three seeds.

    Args:
        experiment: ``music`` or ``speech``.
        protocol: of the search.
        dataset: its name.
        unit: its name.
        flags: of the search, beside these.
        workdir: the folder of the reproduction.
        results: the folder of the committed records; what is there is not run again.
    """

    def __init__(
        self,
        experiment: str,
        protocol: str,
        dataset: str,
        unit: str,
        flags: tuple[str, ...],
        workdir: Path,
        results: Path,
    ):
        self.name = f"{protocol}/{dataset}/{unit}"
        self._stem, self._group = f"{protocol}-{dataset}-{unit}", f"{dataset}-{unit}"
        self._folder, self._results = workdir / self.name, results
        names = {"experiment": experiment, "protocol": protocol, "datasets": dataset, "units": unit}
        self._flags = (*(f"--{name}={value}" for name, value in names.items()), *flags)
        self._flags += (f"--workdir={self._folder}",)

    def ready(self) -> list[Job]:
        """The search, if a seed is missing."""
        if not self.left():
            return []
        return [Job(_command("search", *self._flags), self._folder)]

    def done(self, job: Job) -> bool:
        """Whether every seed has a result."""
        del job
        return self.recorded() == len(effort.SEEDS)

    def left(self) -> list[float]:
        """The share of the budget that the missing seeds take."""
        missing = len(effort.SEEDS) - self.recorded()
        return [missing / len(effort.SEEDS)] if missing else []

    def seconds(self) -> float | None:
        """What all seeds take, by the trials of the records."""
        took = [
            record.search["seconds"]
            for seed in effort.SEEDS
            if (record := self._record(seed)) and record.search and "seconds" in record.search
        ]
        return len(effort.SEEDS) * sum(took) / len(took) if took else None

    def recorded(self) -> int:
        """How many seeds have a result."""
        return sum(self._record(seed) is not None for seed in effort.SEEDS)

    def _record(self, seed: int) -> records.Record | None:
        for path in (
            self._results / f"{self._stem}-{seed}.json",
            self._results / f"{self._stem}-{seed}" / records.FILE,
            self._folder / f"{self._group}-{seed}" / records.FILE,
        ):
            if path.exists():
                return records.read(path)
        return None


def _command(program: str, *flags: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"experiments.{program}", *flags)


def _plain(config: TrainConfig) -> dict[str, Any]:
    """The identity of a configuration as a file holds it."""
    return json.loads(json.dumps(identity(config)))


def _another(folder: Path, what: str) -> str:
    return (
        f"{folder}: holds a {what} of another configuration, perhaps of an older version of the "
        "preset; delete this folder"
    )


def _trial(folder: Path) -> Mapping[str, Any] | None:
    """What a trial left; None if it is not done. The figure of one that diverged is infinite."""
    path = folder / records.TRIAL
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
            raise ValueError("no result of a trial")
        return {**found, **{name: float(found[name]) for name in ("valid", "seconds")}}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: damaged ({error}); delete this folder") from None


def _figure(job: Job) -> float | None:
    """The best validation figure of a trial; infinite if it diverged, None if it is not done.

    Raises:
        ValueError: the folder holds the result of another configuration.
    """
    trial = _trial(job.folder)
    if trial is None:
        return None
    if trial["config"] != job.config:
        raise ValueError(_another(job.folder, "trial"))
    return trial["valid"]
