"""Compares records with this project's targets, as a Markdown table.

    python -m benchmarks.targets bench.jsonl

Every row is a ratio measured within one run: forward and backward pass of a GRU in float32 with
H = 256, B = 16, T = 1024, D = 64, on a CPU, unless the row says otherwise. Where a file holds
several records for a row, of several back ends or runs, the last run of the best back end counts.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from absl import flags

from benchmarks.case import BACKENDS
from benchmarks.records import Record
from data import cli

_SIZES = {"features": 256, "batch": 16, "steps": 1024, "inputs": 64}
_MASKED = "masked lax.scan"
_JAX = BACKENDS[1:]
EMPTY = "–"


class Target(NamedTuple):
    """A row of the table.

    Attributes:
        what: the quantity.
        base: what it is compared with.
        least: the ratio below which the target is missed.
        aim: the ratio aimed at.
        wanted: fields that a record has for this row; a tuple allows each of its values.
        measure: the field that holds the ratio.
    """

    what: str
    base: str
    least: float
    aim: float
    wanted: dict[str, Any]
    measure: str = "speedup"


def _skip(schedule: str, switch: str, asked: float, backends: Sequence[str]) -> dict[str, Any]:
    return {
        **_SIZES,
        "benchmark": "skip_scan",
        "schedule": schedule,
        "switch": switch,
        "asked": asked,
        "backend": tuple(backends),
        "baseline": _MASKED,
    }


def _three(
    what: str, base: str, schedule: str, switch: str, numbers: str, measure: str = "speedup"
) -> list[Target]:
    """Rows at 5, 10 and 25 %; `numbers` are ``least/aim`` of each."""
    rows = []
    for asked, pair in zip((0.05, 0.1, 0.25), numbers.split(), strict=True):
        least, aim = map(float, pair.split("/"))
        wanted = _skip(schedule, switch, asked, ["native"])
        rows.append(Target(f"{asked:.0%}, {what}", base, least, aim, wanted, measure))
    return rows


_DENSE = {**_SIZES, "benchmark": "dense_scan", "backend": BACKENDS}

TARGETS = [
    *_three("per neuron, native, frozen", _MASKED, "neuron", "frozen", "12/16 9.5/12 4.7/6"),
    *_three(
        "per neuron, native, learned from 1/8 of the batch", "the same frozen",
        "neuron", "share", "0.85/0.95 0.85/0.95 0.85/0.95", "of_frozen",
    ),
    *_three(
        "per neuron, native, learned from all of it", _MASKED,
        "neuron", "learned", "8/12 6/9 3.5/4.5",
    ),
    *_three(
        "table per example (event), native, learned", _MASKED,
        "event", "learned", "6/12 4/8 2/4",
    ),
    Target("5%, per neuron, pure JAX", _MASKED, 3.5, 6, _skip("neuron", "frozen", 0.05, _JAX)),
    Target("5%, one group, pure JAX", _MASKED, 20, 25, _skip("group", "frozen", 0.05, _JAX)),
    *(
        Target("100%", base, 1, 1.5, {**_DENSE, "baseline": base})
        for base in ("flax.linen.RNN", "torch.nn.GRU")
    ),
    Target(
        "minGRU, 10%", "associative_scan", 1.7, 3,
        {
            **_SIZES, "benchmark": "minimal", "schedule": "neuron", "asked": 0.1,
            "backend": BACKENDS, "baseline": "associative_scan",
        },
    ),
    Target(
        "bytes kept for the backward pass, 10%, per neuron", _MASKED, 3, 5,
        {
            **_SIZES, "benchmark": "memory", "schedule": "neuron", "switch": "frozen",
            "asked": 0.1, "reads": "outputs", "chunk": None, "backend": BACKENDS,
        },
        "saving",
    ),
    *(
        Target(
            f"inference, one sequence, 784 steps, 17%, {what}", "native, no switch", 5.3, 5.7,
            {
                "benchmark": "inference", "features": 256, "batch": 1, "steps": 784, "inputs": 1,
                "schedule": "neuron", "asked": 0.17, "backend": backend,
            },
        )
        for what, backend in (
            ("table made in the call", "native"),
            ("table given", "native, table given"),
        )
    ),
    Target(
        "inference, one sequence, 784 steps, 17%, prepared weights", "native, no switch", 5, 5.6,
        {
            "benchmark": "inference", "features": 256, "batch": 1, "steps": 784, "inputs": 1,
            "schedule": "neuron", "asked": 0.17, "backend": "prepared weights",
        },
    ),
    Target(
        "streaming, a step of one sequence, no switch", "its products alone", 1 / 1.5, 0.8,
        {
            "benchmark": "streaming", "features": 256, "batch": 1, "inputs": 64,
            "schedule": "none", "backend": "prepared step",
        },
    ),
]  # fmt: skip
"""The targets, row by row."""


def best(target: Target, records: Iterable[Record]) -> Record | None:
    """The record that counts for a row: of each back end the last one, of those the best."""
    last = {r["backend"]: r for r in records if _fits(r, target.wanted)}
    measured = [record for record in last.values() if target.measure in record]
    return max(measured, key=lambda record: record[target.measure], default=None)


def _fits(record: Record, wanted: dict[str, Any]) -> bool:
    return all(
        record.get(name) in value if isinstance(value, tuple) else record.get(name) == value
        for name, value in wanted.items()
    )


def table(records: Sequence[Record]) -> str:
    """The Markdown table of all rows."""
    lines = [
        "| update rate and what | base | at least | aim | measured | by | met |",
        "| --- | --- | ---: | ---: | ---: | --- | --- |",
    ]
    for target in TARGETS:
        record = best(target, records)
        found, by, met = EMPTY, EMPTY, "not measured"
        if record is not None:
            value = record[target.measure]
            found, by = _times(value), record["backend"]
            if "computed" in record and record["computed"] != record["rate"]:
                by += f", computes {record['computed']:.1%}"
            met = "no" if value < target.least else "yes" if value < target.aim else "yes, the aim"
        row = (target.what, target.base, _times(target.least), _times(target.aim), found, by, met)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _times(value: float) -> str:
    return f"{value:.2f}×"


def main(path: str) -> None:
    """Prints the table, and what the numbers were measured with."""
    from benchmarks import records

    found = records.read(path)
    print(table(found))
    machines = {_machine(record) for record in found}
    print("\n" + "\n".join(f"Measured on {machine}." for machine in sorted(machines)))


def _machine(record: Record) -> str:
    versions = record["versions"]
    return (
        f"{record['cpu']}, {record['threads']} threads, kernel {record['kernel']}, "
        f"jax {versions['jax']}, flax {versions['flax']}, Python {versions['python']}"
    )


if __name__ == "__main__":
    flags.adopt_module_key_flags(cli)
    cli.run(main, "FILE")
