"""Records: one JSON object a line, one line a variant and baseline."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.case import Case

Record = dict[str, Any]

_ALWAYS = (
    "benchmark", "backend", "schedule", "switch", "rate", "computed", "asked", "features", "batch",
    "steps", "inputs", "baseline", "cpu", "threads", "kernel", "freed_memory", "versions",
)  # fmt: skip


# Benchmarks by the names that old records have.
_RENAMED = {"held": "minimal"}


def machine(memory_kept: bool) -> Record:
    """The machine and the versions: what the numbers depend on besides the case."""
    from experiments.runner import records
    from surnn_jax.scan.native import library

    return {
        "cpu": _cpu(),
        "threads": _threads(),
        "kernel": library.kernels(),
        "freed_memory": "kept" if memory_kept else "returned",
        "versions": records.versions(),
    }


def _threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def sizes(case: Case) -> Record:
    """The sizes of a case."""
    return {name: getattr(case, name) for name in ("features", "batch", "steps", "inputs")}


def timed(
    benchmark: str,
    case: Case,
    entrants: Mapping[str, Any],
    times: Mapping[str, Sequence[float]],
    differences: Mapping[str, float],
) -> list[Record]:
    """The records of a race: one for each entrant (:class:`.timing.Entrant`) and baseline of it.

    ``rate`` and ``computed`` are counted, ``asked`` is the rate the switch was made for. The record
    of a learned switch also has ``of_frozen``: its speed as a share of the same back end's with the
    switch frozen.
    """
    from benchmarks import timing  # brings JAX along, which reading records should not wait for

    lines = []
    for key, entrant in entrants.items():
        for base in entrant.against or (key,):
            line = {"benchmark": benchmark, "backend": entrant.backend}
            line |= {**entrant.facts, **sizes(case)}
            line["milliseconds"] = timing.milliseconds(times[key])
            line["spread"] = timing.spread(times[key])
            line["rounds"] = len(times[key])
            line["baseline"] = entrants[base].backend
            line["speedup"] = timing.speedup(times[base], times[key])
            frozen = f"frozen/{entrant.backend}"
            if line["switch"] in ("learned", "share") and frozen in times:
                line["of_frozen"] = timing.speedup(times[frozen], times[key])
            line["difference"] = differences[key]
            lines.append(line)
    return lines


def dump(record: Record) -> str:
    """A record as one line."""
    return json.dumps(record, allow_nan=False) + "\n"


def read(path: str | os.PathLike) -> list[Record]:
    """The records of a file, in their order, with the benchmarks' present names.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: a line is no record, or there is none.
    """
    found = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        where = f"{path}, line {number}: not a record of a benchmark"
        try:
            record = json.loads(line)
        except ValueError:
            raise ValueError(where) from None
        lacks = [n for n in _ALWAYS if n not in record] if isinstance(record, dict) else _ALWAYS
        if lacks:
            raise ValueError(f"{where}: it lacks {', '.join(lacks)}")
        record["benchmark"] = _RENAMED.get(record["benchmark"], record["benchmark"])
        found.append(record)
    if not found:
        raise ValueError(f"{path}: holds no record; --output={path} of a benchmark adds some")
    return found


_COLUMNS = {
    "backend": ("backend", "{}"),
    "part": ("part", "{}"),
    "schedule": ("schedule", "{}"),
    "switch": ("switch", "{}"),
    "reads": ("reads", "{}"),
    "chunk": ("chunk", "{}"),
    "rate": ("rate", "{:.1%}"),
    "computed": ("computed", "{:.1%}"),
    "features": ("H", "{}"),
    "batch": ("B", "{}"),
    "steps": ("T", "{}"),
    "inputs": ("D", "{}"),
    "milliseconds": ("ms", "{:.4g}"),
    "spread": ("min–q1–q3", None),
    "kept_bytes": ("kept MB", None),
    "temporary_bytes": ("temporary MB", None),
    "baseline": ("baseline", "{}"),
    "speedup": ("faster", "{:.2f}×"),
    "of_frozen": ("of frozen", "{:.2f}"),
    "of_step": ("of step", "{:.1%}"),
    "saving": ("smaller", "{:.2f}×"),
}


def table(lines: Sequence[Record]) -> str:
    """Records as a table for people; empty columns are left out."""
    columns = [c for c in _COLUMNS if any(line.get(c) is not None for line in lines)]
    rows = [[_COLUMNS[c][0] for c in columns]]
    rows += [[_cell(c, line.get(c)) for c in columns] for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = {"backend", "part", "schedule", "switch", "reads", "baseline"}
    return "\n".join(
        "  ".join(
            text.ljust(width) if name in left else text.rjust(width)
            for name, text, width in zip(columns, row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name == "spread":
        return "–".join(f"{v:.4g}" for v in value)
    if name.endswith("_bytes"):
        return f"{value / 1e6:.1f}"
    return _COLUMNS[name][1].format(value)
