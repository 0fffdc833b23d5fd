"""The short table at the end of :mod:`benchmarks.first_gpu`, from the files of its folder."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FLOORS = (
    # What, how to find it, its base, at least, aim.
    ("one group 10 %, H 256, B 64, T 4,096", ("group", 0.1, 256, 64, 4096), "lax.scan", 10, 40),
    ("per neuron 10 %, the same", ("neuron", 0.1, 256, 64, 4096), "lax.scan", 8, 20),
    ("events 10 %, the same", ("event", 0.1, 256, 64, 4096), "lax.scan", 8, 20),
    ("no switch, the same", ("none", 1.0, 256, 64, 4096), "lax.scan", 5, 10),
    ("no switch, the same", ("none", 1.0, 256, 64, 4096), "cuDNN, PyTorch", 0.7, 1.2),
)
"""The floors that are set for one H200 or H100; see `benchmarks/README.md`."""

_OURS = ("cuda", "masked", "compact", "parallel", "pallas")


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of records; none if it is missing."""
    if not path.exists():
        return []
    found = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(text))
        except ValueError:  # a process was ended while it wrote
            continue
    return found


def _point(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[k] for k in ("schedule", "asked", "features", "batch", "steps"))


def write(folder: Path, states: Iterable[dict[str, Any]]) -> str:
    """Writes `summary.md` into the folder and returns its text."""
    out = ["# First contact", ""]
    out += ["| part | state | s |", "| --- | --- | ---: |"]
    out += [f"| {s['part']} | {s['state']} | {s['seconds']} |" for s in states]
    log = folder / "environment.log"
    if log.exists():
        out += ["", "```", *log.read_text(encoding="utf-8").splitlines()[-30:], "```"]
    out += ["", *_checks(_lines(folder / "selfcheck.jsonl"))]
    records = _lines(folder / "records.jsonl")
    out += ["", *_times(records), "", *_floors(records)]
    kept = _lines(folder / "bytes.jsonl")
    if kept:
        out += ["", "Bytes kept for the backward pass, 10 %, against a masked `lax.scan`:", ""]
        out += [
            f"- {line['backend']}: {line['kept_bytes'] / 1e6:.1f} MB, {line['saving']:.2f}× fewer"
            for line in kept
            if line.get("reads") == "outputs"
        ]
    out += ["", *_curve(_lines(folder / "train" / "metrics.jsonl"))]
    text = "\n".join(out)
    (folder / "summary.md").write_text(text + "\n", encoding="utf-8")
    return text


def _checks(lines: list[dict[str, Any]]) -> list[str]:
    if not lines:
        return ["No back end was checked."]
    bad = [line for line in lines if not line["good"]]
    by: dict[str, list[float]] = {}
    for line in lines:
        by.setdefault(line["backend"], []).append(line.get("difference") or 0.0)
    found = [f"{len(lines)} checks against float64, {len(bad)} differ or fail."]
    found += [f"- {name}: {len(v)} checks, at most {max(v):.1e}" for name, v in by.items()]
    found += [
        f"- DIFFERS: {b['backend']}, {b['cell']}, {b['switch']}: "
        f"{b.get('error', b.get('difference'))}"
        for b in bad
    ]
    return found


def _times(records: list[dict[str, Any]]) -> list[str]:
    if not records:
        return ["No times."]
    # What ran with loops as graphs has a column of its own.
    records = [
        {**line, "backend": line["backend"] + (", graphs" if line.get("xla_flags") else "")}
        for line in records
    ]
    names = list(dict.fromkeys(line["backend"] for line in records))
    rows: dict[tuple, dict[str, float]] = {}
    for line in records:
        key = (line.get("cell", "gru"), *_point(line))
        rows.setdefault(key, {})[line["backend"]] = line["milliseconds"]
    found = ["Milliseconds of a training step (forward and backward):", ""]
    found += ["| cell, schedule, rate, H, B, T | " + " | ".join(names) + " |"]
    found += ["| --- |" + " ---: |" * len(names)]
    for (cell, schedule, rate, h, b, t), values in rows.items():
        cells = [f"{values[n]:.2f}" if n in values else "–" for n in names]
        found.append(f"| {cell}, {schedule}, {rate:.0%}, {h}, {b}, {t} | {' | '.join(cells)} |")
    return found


def _floors(records: list[dict[str, Any]]) -> list[str]:
    found = ["| floor | base | at least | aim | measured | by |", "| --- " * 6 + "|"]
    for what, point, base, least, aim in FLOORS:
        times = {
            line["backend"]: line["milliseconds"]
            for line in records
            if _point(line) == point
            and line.get("cell", "gru") == "gru"
            and not line.get("xla_flags")
        }
        ours = {name: times[name] for name in _OURS if name in times}
        measured = name = "not measured"
        if base in times and ours:
            name = min(ours, key=ours.__getitem__)
            measured = f"{times[base] / ours[name]:.2f}×"
        found.append(f"| {what} | {base} | {least}× | {aim}× | {measured} | {name} |")
    wide = {
        (line["schedule"], line["backend"]): line["milliseconds"]
        for line in records
        if line["features"] == 1024 and line["backend"] == "cuda"
    }
    measured = "not measured"
    if len(wide) == 2:
        measured = f"{wide['none', 'cuda'] / wide['neuron', 'cuda']:.2f}×"
    found.append(
        f"| per neuron 5 %, H 1,024 | the kernel without a switch | 1.5× | 4× | {measured} | cuda |"
    )
    return found


def _curve(lines: list[dict[str, Any]]) -> list[str]:
    if not lines:
        return ["No epoch of training was finished."]
    wanted = ("epoch", "step", "train/loss", "train/error", "valid/error", "valid/nll")
    found = [f"Training, {len(lines)} epochs:", ""]
    for line in lines:
        told = [f"{name} {line[name]:.4g}" for name in wanted if line.get(name) is not None]
        found.append("- " + ", ".join(told))
    return found
