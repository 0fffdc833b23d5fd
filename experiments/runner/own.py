"""A user's own files in place of a data set: ``--data=PATH``.

The path stands in the configuration, and the hash of the files in the record and in checkpoints:
resuming, evaluating and exporting refuse other files, and find the same ones wherever they lie.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import data
from data.sets import own
from data.storage import Split
from experiments.runner.config import TrainConfig
from experiments.runner.records import Record

_ELSEWHERE = "if they lie elsewhere now, say where by --data=PATH"


def check(config: TrainConfig) -> None:
    """Refuses a path at which there is nothing, and bad settings, before anything is read.

    Raises:
        OSError: there is nothing.
        ValueError: a setting that does not exist.
    """
    own.check(config.own_kind, config.own, **_settings(config))


def load_splits(config: TrainConfig, data_dir: str | None) -> dict[str, Split]:
    """The splits of the data that a configuration names, own files or a data set.

    Raises:
        ValueError: bad data.
        OSError: data that are missing.
    """
    if not config.own:
        return {name: data.load(config.dataset, name, data_dir) for name in data.SPLITS}
    source = own.source(config.own_kind, config.own, **_settings(config))
    return {name: data.load_from(source, name, None) for name in data.SPLITS}


def check_unchanged(config: TrainConfig, record: Record, where: Path) -> None:
    """Compares the files that a configuration names with those that a run has read.

    Raises:
        ValueError: they are others.
        OSError: they are missing.
    """
    wanted = (record.data or {}).get("sha256", "")
    try:
        found = own.find(config.own_kind, config.own).sha256
    except OSError as error:
        raise type(error)(f"{error}; {_ELSEWHERE}") from error
    if found != wanted:
        raise ValueError(
            f"{config.own}: not the files that {where} was trained on: their SHA-256 is "
            f"{found[:12]}…, that of the run's {wanted[:12]}…; put those back, or train again; "
            f"{_ELSEWHERE}"
        )


def entry(splits: Mapping[str, Split]) -> dict[str, str]:
    """The entry ``data`` of a record, for own files."""
    train = splits["train"]
    facts = {name: fact for name, fact in train.facts.items() if isinstance(fact, str | int)}
    if facts.get("task") in ("estimate", "track"):
        facts["numbers"] = facts.pop("classes")
    counts = {name: len(split) for name, split in splits.items()}
    if "tokenizer" in facts:
        counts = {name: len(split["x"][0]) for name, split in splits.items()}
        facts["vocabulary"] = len(train.facts["vocabulary"])
    counted = ", ".join(f"{name} {count}" for name, count in counts.items())
    name = {"name": Path(train.read["path"]).name}
    return {**train.read, **name, "counts": counted, **{k: str(v) for k, v in facts.items()}}


def text(entry: Mapping[str, Any]) -> str:
    """An entry of a record in one line, for the terminal."""
    others = entry.keys() - {"kind", "name", "path", "sha256", "counts", "split"}
    parts = [
        f"own data: {entry['path']}, SHA-256 {entry['sha256'][:12]}…",
        f"{entry['counts']}, {entry['split']}",
        *(f"{name} {value}" for name, value in entry.items() if name in others),
    ]
    return "; ".join(parts)


def _settings(config: TrainConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in own.SETTINGS[config.own_kind]}
