"""Sums of metrics, and the JSON files that hold them."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax


def add(totals: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """`totals` plus the (total, weight) pairs of one batch, in float64 on the host."""
    summed = {name: (float(total), float(weight)) for name, (total, weight) in totals.items()}
    for name, (total, weight) in jax.device_get(metrics).items():
        before = summed.get(name, (0.0, 0.0))
        summed[name] = (before[0] + float(total), before[1] + float(weight))
    return summed


def means(totals: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Total over weight of every metric.

    Raises:
        ValueError: a weight of zero, which has no mean.
        FloatingPointError: a mean that is not finite.
    """
    values = {}
    for name, (total, weight) in totals.items():
        if weight == 0:
            raise ValueError(f"metric {prefix}{name}: the weights sum to 0, so it has no mean")
        values[prefix + name] = total / weight
        if not math.isfinite(values[prefix + name]):
            raise FloatingPointError(f"metric {prefix}{name} is {values[prefix + name]}")
    return values


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a file so that at every moment either the old or the new one is there, whole."""
    path = Path(path)
    partial = path.with_name(path.name + ".tmp")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_json(path: str | os.PathLike, record: Any) -> None:
    """Writes one JSON file atomically; ValueError where a number is not finite."""
    write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def write_lines(path: str | os.PathLike, records: Iterable[Any]) -> None:
    """Writes a JSON-lines file atomically, in place of any old one."""
    write_text(path, "".join(_line(record) for record in records))


def append_line(path: str | os.PathLike, record: Any) -> None:
    """Adds one record to a JSON-lines file."""
    with open(path, "a", encoding="utf-8", newline="\n") as file:
        file.write(_line(record))


def read_lines(path: str | os.PathLike) -> list[Any]:
    """The records of a JSON-lines file; a last line cut short by a kill is left out.

    Raises:
        ValueError: an earlier line that is not JSON, by file and line number.
    """
    *lines, rest = Path(path).read_text(encoding="utf-8").split("\n")
    del rest  # Empty, or what a kill left of the last line.
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error.msg})") from None
    return records


def _line(record: Any) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
