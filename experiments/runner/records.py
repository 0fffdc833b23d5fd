"""``result.json``: the outcome of a run, and everything needed to repeat it."""

import json
import math
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

FILE = "result.json"

PARAMETERS = "params.npz"
"""The parameters of a small model's best epoch, see :mod:`.parameters`."""

TRIAL = "trial.json"
"""What a trial leaves: its best validation figure and the seconds that it took. The figure of one
that diverged is ``"inf"``."""

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Record(NamedTuple):
    """The outcome of one run.

    Attributes:
        experiment: such as ``"music"``.
        dataset: the data set's name.
        cell: the name of the cell, or those of the layers of a stack.
        switch: ``"none"`` or the name of the switch, with ``"-frozen"`` after it if the switch
            keeps its random start.
        seed: of the initial parameters and of everything random.
        parameters: numbers in the whole model.
        recurrent_parameters: of these, numbers in the recurrent layer, its switch included; of a
            stack, in all its blocks.
        update_rate: share of neurons that updated in a step of the test split, 0 to 1.
        metrics: name -> value, such as ``train_nll``, ``valid_nll``, ``test_nll`` in nats a step.
        best_epoch: the epoch of the scored parameters, counted from 1.
        steps: training steps done.
        seconds: wall time of the training, compilation and validation included.
        config: all that decides the numbers. Runs that differ in its ``seed`` alone are
            repetitions of one another.
        versions: as `versions` gives them.
        command: the command line of the run.
        data: what was read: ``kind`` (original, made here, sample, own) and the ``name`` of the
            file or folder; of own files also ``path``, ``sha256``, ``counts``, ``split`` and what
            else was found. None for data that are made batch by batch, and in old records.
        search: how a search found the configuration (protocol, budget, draw, …); None for a single
            run. In the file it is the entry ``search`` of ``config``.
        date: the day on which the run ended, such as ``2026-11-28``; None in old records.
    """

    experiment: str
    dataset: str
    cell: str
    switch: str
    seed: int
    parameters: int
    recurrent_parameters: int
    update_rate: float
    metrics: dict[str, float]
    best_epoch: int
    steps: int
    seconds: float
    config: dict[str, Any]
    versions: dict[str, str]
    command: str
    data: dict[str, str] | None = None
    search: dict[str, Any] | None = None
    date: str | None = None


_OPTIONAL = {"data": dict[str, str], "date": str}
"""The fields that a file may lack, and what they hold."""

_FIELDS = tuple(name for name in Record._fields if name not in (*_OPTIONAL, "search"))
"""The fields that every file has."""


def versions() -> dict[str, str]:
    """The versions of Python, of the packages that a run computes with, and of surnn_jax."""
    import surnn_jax

    packages = {name: metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages, "surnn_jax": surnn_jax.__version__}


def write(record: Record, workdir: str | os.PathLike) -> Path:
    """Writes ``result.json`` into `workdir`, in place of any old one.

    Returns:
        The file's path.

    Raises:
        ValueError: a field that `read` would refuse.
    """
    # Not at the top: it imports JAX, which reading records does without.
    from surnn_jax.train import files

    path, fields = Path(workdir) / FILE, to_fields(record)
    _check(fields, path)
    files.write_json(path, fields)
    return path


def to_fields(record: Record) -> dict[str, Any]:
    """The record as its file holds it."""
    fields = record._asdict()
    search = fields.pop("search")
    for name in _OPTIONAL:
        if fields[name] is None:
            del fields[name]
    if search is not None:
        fields["config"] = {**record.config, "search": search}
    return fields


def read(path: str | os.PathLike) -> Record:
    """Reads what `write` wrote.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is damaged, or is no result of a run; the message names file and field.
    """
    path = Path(path)
    try:
        fields = json.loads(path.read_bytes(), parse_constant=_no_number)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; a run writes it at its end") from None
    # Also of bytes that are not UTF-8, and of brackets without end.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, not whole JSON ({error}); run it again") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: holds a {type(fields).__name__}, not the result of a run")
    _check(fields, path)
    config = dict(fields["config"])
    search = config.pop("search", None)
    return Record(**{**fields, "config": config, "search": search})


def headline(record: Record, split: str = "test") -> tuple[str, float]:
    """The figure to compare: its unit, and its value.

    ``nats a frame`` for music; ``nats a step`` of ten samples for speech, negative if the density
    exceeds 1; ``accuracy, %``; ``perplexity`` a word; for numbers ``mean squared
    error`` or, for Mackey-Glass, ``relative error``, the root of its share of the mean square of
    the targets. For any other experiment, the first metric of the split, by its name.

    Raises:
        KeyError: with the name of the metric that the record lacks.
    """
    metrics = record.metrics
    if record.experiment == "music":
        return "nats a frame", metrics[f"{split}_nll"]
    if record.experiment == "speech":
        return "nats a step", metrics[f"{split}_nll"]
    if f"{split}_error" in metrics:
        return "accuracy, %", 100 * (1 - metrics[f"{split}_error"])
    if record.dataset == "mackey_glass":
        return "relative error", math.sqrt(metrics[f"{split}_mse"] / metrics[f"{split}_power"])
    if f"{split}_mse" in metrics:
        return "mean squared error", metrics[f"{split}_mse"]
    own = [name for name in metrics if name.startswith(f"{split}_")]
    if record.experiment == "wikitext" or f"{split}_nll" in metrics or not own:
        return "perplexity", math.exp(metrics[f"{split}_nll"])
    return own[0].removeprefix(f"{split}_"), metrics[own[0]]


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def _check(fields: dict[str, Any], path: Path) -> None:
    """Refuses fields that are not those of a `Record`, and bad values."""
    missing = [name for name in _FIELDS if name not in fields]
    unknown = [name for name in fields if name not in (*_FIELDS, *_OPTIONAL)]
    if missing or unknown:
        lacks = f"lacks {', '.join(missing)}" if missing else ""
        has = f"has the unknown {', '.join(unknown)}" if unknown else ""
        wrong = _short(" and ".join(filter(None, (lacks, has))))
        raise ValueError(
            f"{path}: {wrong}; the result of a run has exactly the fields {', '.join(_FIELDS)}"
        )
    for name in (*_FIELDS, *(fields.keys() & _OPTIONAL.keys())):
        kind = _OPTIONAL.get(name) or Record.__annotations__[name]
        if not _is(fields[name], kind):
            raise ValueError(
                f"{path}: {name} should be {_WORDS[kind]}, but is {_short(repr(fields[name]))}"
            )
    if fields["update_rate"] > 1:
        raise ValueError(f"{path}: update_rate should lie in 0..1, but is {fields['update_rate']}")


_WORDS = {
    str: "a string",
    int: "a whole number that is not negative",
    float: "a finite number that is not negative",
    dict[str, float]: "finite numbers by name",
    dict[str, str]: "strings by name",
    dict[str, Any]: "values by name",
}


def _short(words: str) -> str:
    return words if len(words) < 300 else f"{words[:300]} …"


def _is(value: Any, kind: Any) -> bool:
    if kind is int:
        return type(value) is int and value >= 0
    if kind is float:
        return _finite(value) and value >= 0
    if kind is str:
        return isinstance(value, str)
    if not isinstance(value, dict):
        return False
    if kind == dict[str, float]:
        return all(_finite(item) for item in value.values())
    return kind != dict[str, str] or all(isinstance(item, str) for item in value.values())


def _finite(value: Any) -> bool:
    # A whole number of 400 digits has no float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
