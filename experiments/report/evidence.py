"""The committed records as groups of comparable runs: one task, one protocol, many models."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from experiments.report import collect
from experiments.report.collect import Located, configuration
from experiments.report.suites import SUITES
from experiments.report.verdicts import Compared
from experiments.runner.records import Record, headline
from experiments.tuning import matrix

Model = tuple[str, str]
"""Cell and switch, as :class:`PaperTable` names its units."""

EQUAL, SINGLE = "equal effort", "one seed, rates set by hand"

MARGINS = {
    "accuracy, %": ("points", 1.0),
    "perplexity": ("nats a word", 0.02),
    "mean squared error": ("log of the error", 0.2),
    "relative error": ("log of the error", 0.1),
    "nats a frame": ("nats a frame", 0.05),
    "nats a step": ("nats a step", 0.05),
}
"""Unit of the tables -> unit of a gain, and the gain that matters."""


_LEAST = 1e-12
"""Errors below it count as it: it is less than float32 can show of a figure of about 1."""


class Group(NamedTuple):
    """Runs that may be compared: the same data, budget and way of tuning.

    Attributes:
        suite: ``music``, ``chung`` or ``surnn``.
        dataset: its name.
        title: of the task.
        protocol: ``chung``, ``controlled``, :data:`EQUAL` or :data:`SINGLE`.
        draws: of its search, in words, or the budget of equal effort; empty for a single run.
        steps: the longest sequence, if the task has a fixed one, else 0.
        runs: model -> its runs by seed; a model with two configurations is left out.
        left_out: models with two configurations.
    """

    suite: str
    dataset: str
    title: str
    protocol: str
    draws: str
    steps: int
    runs: dict[Model, list[Located]]
    left_out: tuple[Model, ...]

    @property
    def unit(self) -> str:
        """The unit of its figures."""
        return headline(next(iter(self.runs.values()))[0].record)[0]

    @property
    def short(self) -> str:
        """The title without what is smaller, but for the steps."""
        name, *less = self.title.replace(" (made here)", "").split(", ")
        return ", ".join([name, *(part for part in less if part.endswith("steps"))])

    @property
    def updates(self) -> int:
        """Training steps of its longest run."""
        return max(record.steps for runs in self.runs.values() for _, record in runs)

    @property
    def anchor(self) -> str:
        """The name of its table on the page."""
        words = f"{self.suite} {self.protocol} {self.title} {self.draws}".lower()
        return re.sub(r"[^a-z0-9]+", "-", words).strip("-")

    @property
    def place(self) -> dict[str, Any]:
        """What every :class:`Compared` of this group has."""
        return {"link": f"#{self.anchor}", "updates": self.updates}

    def compare(self, first: Sequence[Model], second: Sequence[Model]) -> Compared | None:
        """The gains of the mean of some models over that of others; None if one was not run."""
        if not all(model in self.runs for model in (*first, *second)):
            return None
        unit, margin = MARGINS[self.unit]
        left, right = self._by_seed(first), self._by_seed(second)
        seeds = sorted(left.keys() & right.keys())
        if not seeds:
            return None
        gains = {seed: left[seed] - right[seed] for seed in seeds}
        shown = [self._shown(models, seeds) for models in (first, second)]
        return Compared(self.short, unit, margin, gains, *shown, **self.place)

    def _by_seed(self, models: Sequence[Model]) -> dict[int, float]:
        """Mean goodness of some models, by the seeds that all have."""
        rows = [{r.seed: goodness(r) for _, r in self.runs[model]} for model in models]
        seeds = set.intersection(*(set(row) for row in rows))
        return {seed: sum(row[seed] for row in rows) / len(rows) for seed in seeds}

    def _shown(self, models: Sequence[Model], seeds: Sequence[int]) -> float:
        values = [
            headline(r)[1] for model in models for _, r in self.runs[model] if r.seed in seeds
        ]
        return sum(values) / len(values)

    def rate(self, model: Model) -> float:
        """The mean update rate of a model."""
        rates = [record.update_rate for _, record in self.runs[model]]
        return sum(rates) / len(rates)


def goodness(record: Record) -> float:
    """The test figure on a scale on which more is better and differences can be averaged."""
    unit, value = headline(record)
    if unit == "accuracy, %":
        return value
    # An error of exactly 0 has no logarithm.
    return -value if unit.startswith("nats") else -math.log(max(value, _LEAST))


def groups() -> list[Group]:
    """The groups of all committed records, in the order of the tables."""
    found: dict[tuple, list[Located]] = {}
    for suite in SUITES:
        known = list(SUITES[suite].datasets)
        for located in collect.located(suite):
            record = located.record
            name = dataset_of(record)
            place = known.index(name) if name in known else len(known)
            key = (suite, protocol_of(record), place, name, *_apart(suite, record))
            found.setdefault(key, []).append(located)
    return [_group(key, found[key]) for key in sorted(found)]


def most_draws(groups: Sequence[Group]) -> list[Group]:
    """Of several searches for one task, the one with the most draws."""
    found: dict[str, Group] = {}
    for group in groups:
        before = found.setdefault(group.title, group)
        if _budget(group) > _budget(before):
            found[group.title] = group
    return list(found.values())


def _budget(group: Group) -> int:
    record = next(iter(group.runs.values()))[0].record
    return record.search["budget"]


def dataset_of(record: Record) -> str:
    """The name of its data set in the tables."""
    return (record.search or {}).get("dataset", record.dataset)


def protocol_of(record: Record) -> str:
    """How its hyper-parameters were chosen."""
    if record.search is None:
        return SINGLE
    name = record.search["protocol"]
    return EQUAL if name == "equal" else name


def _apart(suite: str, record: Record) -> tuple[str, ...]:
    """What else must be equal, in words: how the task is smaller, and the draws of its search."""
    less, drawn = SUITES[suite].less(record), ""
    if suite == "chung" and record.search is not None:
        drawn = f"{record.search['budget']} draws"
        drawn += f", search seed {record.search['seed']}" if record.search["seed"] else ""
    if protocol_of(record) == EQUAL:
        epochs = record.config["max_epochs"]
        drawn = f"{epochs} epoch{'s' * (epochs != 1)}"
        if "training" not in less:
            drawn += f" of {record.config['examples']:,} examples"
    return less, drawn


def _group(key: tuple, runs: Iterable[Located]) -> Group:
    suite, protocol, _, dataset, less, draws = key
    models: dict[Model, list[Located]] = {}
    for located in runs:
        models.setdefault((located.record.cell, located.record.switch), []).append(located)
    twice = tuple(
        sorted(
            model
            for model, own in models.items()
            if len({configuration(record) for _, record in own}) > 1
        )
    )
    kept = {
        model: sorted(own, key=lambda located: located.record.seed)
        for model, own in sorted(models.items())
        if model not in twice
    }
    longest = max(steps_of(located.record) for own in models.values() for located in own)
    if suite == "surnn" and longest and not less and dataset not in LENGTHS:
        less = f"{longest:,} steps"
    title = SUITES[suite].datasets.get(dataset, dataset) + (f", {less}" if less else "")
    return Group(suite, dataset, title, protocol, draws, longest, kept, twice)


LENGTHS = {
    "listops": 2000,
    "listops_short": 512,
    "imdb_bytes": 4096,
    "aan": 4000,
    "wikipairs": 4000,
    "cifar10_gray": 1024,
    "pathfinder32": 1024,
    "pathfinder128": 16384,
    "smnist": 784,
    "psmnist": 784,
    "scifar10": 1024,
}
"""Data set -> steps of its (longest) sequences, if a run does not cut them."""

LONG = 500
"""Steps from which a sequence counts as long."""


def steps_of(record: Record) -> int:
    """The steps of the longest sequence that a run of the suRNN suite reads; else 0."""
    config = record.config
    if record.experiment in ("music", "speech", "wikitext"):
        return 0
    cut = [config.get("steps") or 0, config.get("longest") or 0, LENGTHS.get(record.dataset, 0)]
    return min((steps for steps in cut if steps), default=0)


def planned(first: Sequence[str], second: Sequence[str]) -> list[matrix.Entry]:
    """The tasks of the reproduction for which both models are planned: an entry of the first each.

    Args:
        first: names of models in :data:`matrix.ROWS`.
        second: those that they are compared to.
    """
    every = matrix.surnn()
    by_task: dict[str, set[str]] = {}
    for entry in every:
        by_task.setdefault(entry.task, set()).add(entry.model)
    wanted = {*first, *second}
    return [e for e in every if e.model == first[0] and wanted <= by_task[e.task]]
