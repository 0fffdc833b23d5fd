"""What skipping saves, by benchmarks and by the times of runs; and where switches open."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.report import collect, html
from experiments.report.evidence import Group, Model
from experiments.report.verdicts import Compared

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "results"

LAYERS, MODELS = "two_cores.jsonl", "two_cores_models.jsonl"

INSIDE = "inside.json"
"""What was seen inside a trained model: beside its record, or in the folder ``inside``."""

FASTER = math.log(1.1)
"""Ten per cent less time counts."""

SHUT = 1e-4
"""Rates below it count as it: switches that never open have no ratio."""

_DENSE = ("masked lax.scan", "flax.linen.RNN", "rows")
"""Back ends that do not skip, or only where there is no compiler."""

_SWITCHES = {"frozen": "frozen", "learned": "learned", "share": "learned from 1/8 of the batch"}
_SCHEDULES = {"neuron": "per neuron", "event": "events", "group": "one group"}


def lines(name: str) -> list[dict[str, Any]]:
    """The lines of a committed file of measurements; none if it is not there."""
    path = BENCHMARKS / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def layers() -> list[Compared]:
    """One layer on two cores: how the time falls with the rate."""
    measured = [
        line
        for line in lines(LAYERS)
        if line["benchmark"] == "skip_scan" and line["backend"] not in _DENSE
    ]
    return _falls(LAYERS, measured, lambda line: _SCHEDULES[line["schedule"]])


def models() -> list[Compared]:
    """Whole models on two cores, the same way."""
    return _falls(MODELS, lines(MODELS), lambda line: line["model"])


def _falls(file: str, measured: Sequence[Mapping[str, Any]], name: Any) -> list[Compared]:
    """A row for each kind of switch: the least fall of the time between neighbouring rates.

    Rounds are not kept one by one. Its gains are what the quartiles of both rates allow at least,
    what their medians give, and what the quartiles allow at most.
    """
    series: dict[str, dict[float, Mapping[str, Any]]] = {}
    for line in measured:
        title = f"{name(line)}, {_SWITCHES.get(line['switch'], line['switch'])}"
        series.setdefault(title, {})[line["asked"]] = line
    rows = []
    for title, by_rate in series.items():
        ordered = [by_rate[rate] for rate in sorted(by_rate)]
        if len(ordered) < 2:
            continue
        gains = min((_fall(*pair) for pair in itertools.pairwise(ordered)), key=min)
        fast, slow = ordered[0]["milliseconds"], ordered[-1]["milliseconds"]
        note = (
            f"{100 * max(by_rate):.0f} % against {100 * min(by_rate):.0f} %: "
            f"{slow / fast:.1f} times as long"
        )
        found = dict(enumerate(gains))
        rounds, link = ordered[0]["rounds"], html.file(BENCHMARKS / file)
        rows.append(
            Compared(title, "log of the time", FASTER, found, fast, slow, note, rounds, link)
        )
    return rows


def _fall(fast: Mapping[str, Any], slow: Mapping[str, Any]) -> tuple[float, float, float]:
    """Logarithm of the ratio of two times, at least, by the medians, and at most."""
    (_, fast_q1, fast_q3), (_, slow_q1, slow_q3) = fast["spread"], slow["spread"]
    medians = math.log(slow["milliseconds"] / fast["milliseconds"])
    least, most = math.log(slow_q1 / fast_q3), math.log(slow_q3 / fast_q1)
    return min(least, medians), medians, max(most, medians)


def runs(group: Group, models: Mapping[str, Model], dense: Model) -> list[Compared]:
    """Seconds a training step in the runs of a group, by seed."""
    rows = []
    for name, model in models.items():
        if model not in group.runs or dense not in group.runs:
            continue
        fast, slow = (
            {record.seed: record.seconds / record.steps for _, record in group.runs[own]}
            for own in (model, dense)
        )
        seeds = sorted(fast.keys() & slow.keys())
        if not seeds:
            continue
        gains = {seed: math.log(slow[seed] / fast[seed]) for seed in seeds}
        shown = [1000 * sum(times[seed] for seed in seeds) / len(seeds) for times in (fast, slow)]
        note = f"{100 * group.rate(model):.0f} % updated"
        unit, title = "log of the time", f"{group.short}, {name}"
        rows.append(Compared(title, unit, FASTER, gains, *shown, note, **group.place))
    return rows


def openings(groups: Sequence[Group], model: Model) -> list[Compared]:
    """By how much more often switches open at events than elsewhere."""
    rows = []
    for group in groups:
        found: dict[int, tuple[float, float]] = {}
        for path, record in group.runs.get(model, []):
            seen = inside(path)
            layers = [layer for layer in seen.values() if "rate_at_events" in layer]
            if layers:
                found[record.seed] = tuple(
                    sum(layer[key] for layer in layers) / len(layers)
                    for key in ("rate_at_events", "rate_elsewhere")
                )
        if found:
            gains = {
                seed: math.log(max(at, SHUT) / max(other, SHUT))
                for seed, (at, other) in found.items()
            }
            shown = [100 * sum(pair[i] for pair in found.values()) / len(found) for i in (0, 1)]
            unit = "log of the ratio"
            rows.append(Compared(group.short, unit, 0.1, gains, *shown, **group.place))
    return rows


def inside(path: Path) -> dict[str, dict[str, float]]:
    """What was seen inside the model of a record, layer by layer; empty if that was not kept."""
    beside = path.parent / INSIDE
    if path.name != collect.records.FILE:
        beside = path.parent / "inside" / path.name
    if not beside.exists():
        return {}
    return {
        name: part
        for name, part in json.loads(beside.read_text()).items()
        if name.startswith("layer")
    }
