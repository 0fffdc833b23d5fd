"""The records of a suite: the committed ones and those of further runs."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.report.suites import SUITES
from experiments.runner import records
from experiments.runner.config import from_record
from experiments.runner.records import Record, headline

RESULTS = Path(__file__).parents[1] / "results"
"""The committed records, one folder a suite."""

FOUND = ("protocol", "budget", "seed", "dataset", "unit")
"""The fields of a record's `search` that identify the search."""


class Located(NamedTuple):
    """A record and its file."""

    path: Path
    record: Record


def located(suite: str) -> list[Located]:
    """The committed records of a suite with their files, in the order of the paths.

    Raises:
        ValueError: as :func:`collect`.
    """
    home = RESULTS / suite
    return list(
        _distinct(suite, sorted({*home.glob("*.json"), *home.rglob(records.FILE)})).values()
    )


def collect(suite: str, results: str | Path | None = None) -> list[Record]:
    """The committed records of a suite, and the runs below `results`.

    Raises:
        FileNotFoundError: the folder `results` is missing or has no result.
        ValueError: a damaged record, or two different ones of one configuration and seed.
    """
    home = RESULTS / suite
    found = distinct(suite, sorted({*home.glob("*.json"), *home.rglob(records.FILE)}))
    if results is not None:
        paths = sorted(Path(results).rglob(records.FILE))
        if not paths:
            raise FileNotFoundError(f"{results}: no {records.FILE} in or below this folder")
        found |= distinct(suite, paths)
    return list(found.values())


def distinct(suite: str, paths: Sequence[Path]) -> dict[tuple, Record]:
    """The records of a suite, by everything that decides their numbers.

    Raises:
        ValueError: a damaged record, or two different ones of one configuration and seed.
    """
    return {key: found.record for key, found in _distinct(suite, paths).items()}


def _distinct(suite: str, paths: Sequence[Path]) -> dict[tuple, Located]:
    seen: dict[tuple, Located] = {}
    for path in paths:
        record = records.read(path)
        if not _belongs(suite, record):
            continue
        config = from_record(SUITES[suite].configs[record.experiment], record.config, path)
        record = record._replace(config=dataclasses.asdict(config))
        try:
            headline(record), headline(record, "valid")
        except KeyError as error:
            raise ValueError(f"{path}: its metrics lack {error.args[0]}") from None
        key = (record.dataset, record.cell, record.switch, configuration(record), record.seed)
        before, first = seen.setdefault(key, Located(path, record))
        if first.metrics != record.metrics:
            raise ValueError(
                f"{before} and {path} have the same configuration and seed, but different "
                "metrics; remove one of them"
            )
    return seen


def settings(record: Record) -> dict[str, Any]:
    """The settings that repetitions of a run share: its configuration without the seed.

    For a winner of a search: without the drawn hyper-parameters, and with the search itself.
    """
    found = {name: value for name, value in record.config.items() if name != "seed"}
    if record.search is not None:
        found["search"] = {name: record.search[name] for name in FOUND if name in record.search}
        found |= dict.fromkeys(("learning_rate", "weight_decay"))
    return found


def configuration(record: Record) -> str:
    """The :func:`settings` as text: equal for repetitions."""
    return json.dumps(settings(record), sort_keys=True)


def _belongs(suite: str, record: Record) -> bool:
    """Searches of music and speech have a suite of their own, with the single runs on speech."""
    if record.experiment not in SUITES[suite].configs:
        return False
    if suite == "surnn":  # Its searches are part of `experiments.reproduce`.
        return True
    searched = record.search is not None
    return searched or record.experiment == "speech" if suite == "chung" else not searched
