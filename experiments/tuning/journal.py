"""The journal of a search: the result of every trial, failed ones included.

A file of JSON lines: first the search space, then one trial a line. ``crc`` at the end of a line is
the CRC-32 of the line without it. A last line that a kill cut short is removed, and its trial runs
again; any other damage is an error. Several processes may share a journal.
"""

import contextlib
import fcntl
import json
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from experiments.tuning.protocols import Group

FILE = "journal.jsonl"

_IDENTITY = ("experiment", "protocol", "budget", "search_seed", "changes")
"""The flags of a search; the rest of a header follows from them and from the program."""


class Trial(NamedTuple):
    """The result of one draw.

    Attributes:
        dataset: as the search names it.
        unit: as the search names it.
        seed: of the initial parameters, the noise and the order of the data.
        draw: its number.
        learning_rate: drawn.
        weight_decay: drawn, or 0.
        status: ``ok``; ``behind``, removed at a halving because others were ahead; ``diverged``, a
            number was not finite.
        valid_nll: lowest on the validation split; None if it diverged before the first.
        best_epoch: the epoch of that, counted from 1.
        epochs: epochs begun.
        skipped: steps left out, at which a loss or gradient was not finite.
        seconds: its share of the time of the trials that were trained with it.
        budget: draws of the group that it belongs to.
    """

    dataset: str
    unit: str
    seed: int
    draw: int
    learning_rate: float
    weight_decay: float
    status: str
    valid_nll: float | None
    best_epoch: int
    epochs: int
    skipped: int
    seconds: float
    budget: int

    @property
    def group(self) -> Group:
        """The group it belongs to."""
        return Group(self.dataset, self.unit, self.seed)


class TrialLog:
    """The journal of one search.

    Args:
        workdir: its folder, which exists.
        header: the search space, as `SearchSpace.header` gives it.

    Raises:
        ValueError: the journal is of another search, or damaged.
    """

    def __init__(self, workdir: Path, header: dict[str, Any]):
        self.path = workdir / FILE
        self._header = json.loads(json.dumps(header, allow_nan=False))
        with self._locked() as file:
            if not file.seek(0, os.SEEK_END):
                _write(file, [self._header])
            self._read(file)

    def trials(self) -> list[Trial]:
        """All finished trials, those of other processes included.

        Raises:
            ValueError: the journal is damaged.
        """
        with self._locked() as file:
            return self._read(file)

    def append(self, trials: Sequence[Trial]) -> None:
        """Adds trials that the journal does not have yet."""
        with self._locked() as file:
            have = {(trial.group, trial.draw) for trial in self._read(file)}
            _write(file, [t._asdict() for t in trials if (t.group, t.draw) not in have])

    @contextlib.contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file, locked, without a last line that a kill cut short."""
        with open(self.path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # Closing the file releases it.
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            yield file

    def _read(self, file: BinaryIO) -> list[Trial]:
        # Not at the top: it imports JAX, which takes seconds.
        from surnn_jax.train.settings import differences

        file.seek(0)
        header, *lines = (self._parsed(line, n) for n, line in enumerate(file, 1))
        for names in (_IDENTITY, self._header.keys() | header.keys()):
            stored, given = ({n: d[n] for n in names if n in d} for d in (header, self._header))
            if found := differences(stored, given):
                raise ValueError(
                    f"{self.path} is of a search with {'; '.join(found[:3])}: "
                    "give another workdir, or the old values"
                )
        trials = [self._trial(line, number) for number, line in enumerate(lines, 2)]
        seen = set()
        for number, trial in enumerate(trials, 2):
            if (trial.group, trial.draw) in seen:
                raise ValueError(f"{self.path}, line {number}: this trial is a repetition")
            seen.add((trial.group, trial.draw))
        return trials

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            fields = json.loads(line)
            stored = fields.pop("crc")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{self.path}, line {number}: damaged ({error!r})") from None
        if stored != _sum(fields):
            raise ValueError(f"{self.path}, line {number}: damaged, its crc is not {stored}")
        return fields

    def _trial(self, fields: dict[str, Any], number: int) -> Trial:
        if fields.keys() != set(Trial._fields):
            raise ValueError(
                f"{self.path}, line {number}: a trial has the fields {', '.join(Trial._fields)}"
            )
        return Trial(**fields)


def _write(file: BinaryIO, lines: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps({**line, "crc": _sum(line)}) + "\n" for line in lines)
    file.write(text.encode())
    file.flush()
    os.fsync(file.fileno())


def _sum(fields: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(fields, allow_nan=False).encode()):08x}"


def winner(trials: Sequence[Trial]) -> Trial | None:
    """The trial of lowest figure on the validation split; None if all diverged."""
    able = [t for t in trials if t.status != "diverged" and t.valid_nll is not None]
    return min(able, key=lambda t: (t.valid_nll, t.draw), default=None)


def time_left(trials: Sequence[Trial], groups: Sequence[Group]) -> float | None:
    """Seconds that `groups` will take, estimated from finished ones; None without any.

    The estimate for a group is the mean over those of its data set and unit; else over those of its
    data set; else over all.
    """
    took: dict[Group, float] = {}
    for trial in trials:
        took[trial.group] = took.get(trial.group, 0.0) + trial.seconds
    if not took:
        return None
    total = 0.0
    for group in groups:
        same = [s for g, s in took.items() if (g.dataset, g.unit) == (group.dataset, group.unit)]
        near = [s for g, s in took.items() if g.dataset == group.dataset]
        like = same or near or list(took.values())
        total += math.fsum(like) / len(like)
    return total
