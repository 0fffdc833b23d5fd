"""The jobs of a reproduction: trials of draws, then the winner with every seed.

A job is one training run in a folder of its own. What a folder holds says how far the job is, so
nothing is lost when a process is killed, and several processes can work on one folder.
"""

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.runner import records
from experiments.tuning import effort
from experiments.tuning.matrix import Entry

TRIAL = "trial.json"
"""What a trial leaves: its best validation figure, and the seconds it took."""

_NONFINITE = "nonfinite.jsonl"


class Job(NamedTuple):
    """One training run.

    Attributes:
        entry: the model and the task.
        name: its folder below that of the entry, such as ``draw-2-of-8`` or ``seed-0``.
        flags: of the program, the preset included.
    """

    entry: Entry
    name: str
    flags: tuple[str, ...]

    @property
    def trial(self) -> bool:
        """Whether it helps to choose a draw; else it trains the winner."""
        return self.name.startswith("draw")

    @property
    def share(self) -> float:
        """The part of the whole budget that it trains on."""
        return 1 / int(self.name.rpartition("-")[2]) if self.trial else 1.0


class Ladder:
    """The jobs of one entry, as far as they are known: later ones follow from earlier results.

    Args:
        entry: the model and the task.
        workdir: the folder of the reproduction.
        device: ``cpu`` for short presets, ``gpu`` for full ones.
        seeds: of the winner.
        data_dir: folder of the originals, or None.
    """

    def __init__(
        self,
        entry: Entry,
        workdir: Path,
        device: str = "cpu",
        seeds: Sequence[int] = effort.SEEDS,
        data_dir: str | None = None,
    ):
        self.entry, self.device, self.seeds, self.data_dir = entry, device, seeds, data_dir
        self.home = workdir / entry.name
        self.draws = effort.draws(entry.task)

    def ready(self) -> list[Job]:
        """Jobs whose flags are known and that are not done.

        Raises:
            ValueError: every draw diverged, or a result is damaged.
        """
        left = list(range(len(self.draws)))
        for divisor, count in effort.ROUNDS:
            if count < len(left):
                left = effort.best(self.round(before), count)
            jobs = [self._draw(number, divisor) for number in left]
            if missing := [job for job in jobs if not self.done(job)]:
                return missing
            before = divisor
        winner = self.winner()
        return [job for job in map(lambda seed: self._seed(winner, seed), self.seeds)
                if not self.done(job)]

    def jobs_left(self) -> list[float]:
        """The shares of the budget of all jobs that are not done, known or not."""
        shares = []
        for divisor, count in effort.ROUNDS:
            done = len(self.round(divisor))
            shares += [1 / divisor] * (count - min(done, count))
        done = sum((self.home / f"seed-{seed}" / records.FILE).exists() for seed in self.seeds)
        return shares + [1.0] * (len(self.seeds) - done)

    def round(self, divisor: int) -> dict[int, float]:
        """Draw -> validation figure of the finished trials of one round."""
        found = {}
        for draw in self.draws:
            figure = self._figure(self.home / f"draw-{draw.number}-of-{divisor}")
            if figure is not None:
                found[draw.number] = figure
        return found

    def winner(self) -> int:
        """The draw that is trained on the whole budget."""
        return effort.best(self.round(effort.ROUNDS[-1][0]))[0]

    def search(self) -> dict:
        """What the record of the winner says of its search."""
        rounds = [self.round(divisor) for divisor, _ in effort.ROUNDS]
        return effort.summary(self.draws, rounds, self.winner())

    def done(self, job: Job) -> bool:
        """Whether a job has left its result."""
        folder = self.folder(job)
        if job.trial:
            return self._figure(folder) is not None
        return (folder / records.FILE).exists()

    def folder(self, job: Job) -> Path:
        """Where a job trains."""
        return self.home / job.name

    @contextlib.contextmanager
    def claim(self, job: Job) -> Iterator[int | None]:
        """Holds a job, so that no other process starts it: the descriptor of the lock, or None."""
        folder = self.folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "claim", os.O_CREAT | os.O_RDWR)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield descriptor
        finally:
            os.close(descriptor)

    def _figure(self, folder: Path) -> float | None:
        """The best validation figure of a trial; infinite if it diverged, None if not done."""
        try:
            trial = json.loads((folder / TRIAL).read_bytes())
        except FileNotFoundError:
            return math.inf if (folder / _NONFINITE).exists() else None
        except ValueError as error:
            raise ValueError(f"{folder / TRIAL}: damaged ({error}); delete this folder") from None
        return float(trial["valid"])

    def _draw(self, number: int, divisor: int) -> Job:
        config = self.entry.config(self.device)
        examples, epochs = effort.budget((config.examples, config.max_epochs), divisor)
        flags = (f"--train_examples={examples}", f"--max_epochs={epochs}", "--trial", "--seed=0")
        return self._job(f"draw-{number}-of-{divisor}", number, flags)

    def _seed(self, winner: int, seed: int) -> Job:
        return self._job(f"seed-{seed}", winner, (f"--seed={seed}",))

    def _job(self, name: str, number: int, flags: tuple[str, ...]) -> Job:
        draw = self.draws[number]
        preset = f"--preset={self.entry.preset(self.device)}"
        rates = (f"--learning_rate={draw.learning_rate}", f"--weight_decay={draw.weight_decay}")
        folders = (f"--workdir={self.home / name}",)
        folders += (f"--data_dir={self.data_dir}",) if self.data_dir else ()
        return Job(self.entry, name, (preset, *rates, *flags, *folders))
