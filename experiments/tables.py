"""Prints the results of a suite as Markdown: python -m experiments.tables --suite=music

Reads the records in experiments/results/SUITE/*.json and, with --results=DIR, every result.json
below DIR. A run below DIR takes the place of a record with the same configuration and seed. Cells
that nobody has run hold a dash.
"""

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from data import cli
from experiments import records
from experiments.records import Record

RESULTS = Path(__file__).parent / "results"
"""The committed records, one folder a suite."""

EMPTY = "–"

_HEAD = (
    "unit", "published test", "test", "valid", "parameters", "updated, %", "seconds", "n", "runs",
)  # fmt: skip

_SUITE = flags.DEFINE_string("suite", None, "What to print: music")
_RESULTS = flags.DEFINE_string("results", None, "Folder with the result.json of further runs")


class Suite(NamedTuple):
    """What a table is made of.

    Attributes:
        metric: its test and validation value are shown.
        datasets: name -> title.
        units: (cell, switch) -> what it is called; shown whether it was run or not.
        published: (data set, cell) -> the published test value of the unit without a switch.
        verified: keys of `published` that were checked against a second source.
        notes: lines below the tables.
    """

    metric: str
    datasets: dict[str, str]
    units: dict[tuple[str, str], str]
    published: dict[tuple[str, str], float]
    verified: frozenset[tuple[str, str]]
    notes: str


def _table_2(**rows: tuple[float, float, float]) -> dict[tuple[str, str], float]:
    """Table 2 of Chung et al. 2014, test: tanh, GRU, LSTM for each data set."""
    cells = (("tanh",), ("gru", "gru_before"), ("lstm_peephole",))
    return {
        (dataset, cell): value
        for dataset, values in rows.items()
        for names, value in zip(cells, values, strict=True)
        for cell in names
    }


SUITES = {
    "music": Suite(
        metric="nll",
        datasets={
            "bach_chorales": "Bach's chorales",
            "jsb": "JSB Chorales",
            "nottingham": "Nottingham",
            "musedata": "MuseData",
            "piano_midi": "Piano-midi.de",
        },
        units={
            ("tanh", "none"): "tanh",
            ("lstm_peephole", "none"): "LSTM, peepholes",
            ("gru", "none"): "GRU",
            ("gru", "fourier"): "suGRU, learned rhythm",
            ("gru", "fourier-frozen"): "suGRU, frozen random rhythm",
            ("gru", "event"): "suGRU, events",
        },
        published=_table_2(
            jsb=(9.10, 8.54, 8.67),
            nottingham=(3.13, 3.23, 3.20),
            musedata=(6.23, 5.99, 6.23),
            piano_midi=(9.03, 8.82, 9.03),
        ),
        verified=frozenset({("jsb", "gru"), ("jsb", "gru_before")}),
        notes="""\
Negative log-likelihood in nats a frame, summed over the keys; lower is better. With several seeds:
the median (and the range) of n runs. Parameters: of the recurrent layer, its switch included.
Updated: the share of neurons that update in a step of the test split. Seconds: training,
compilation included. –: not run yet; none: no figure was published.

Published: Chung et al. 2014 (arXiv:1412.3555), table 2. Verified: agrees with a second source,
Papers with Code; recalled: quoted from memory, not yet checked against the paper. The published GRU
resets before its matrix product, as the cell gru_before does, gru after it; the paper's authors'
code reads 93 to 108 keys a frame, ours 88.""",
    )
}


def main() -> None:
    """Prints the tables that the flags ask for."""
    if _SUITE.value not in SUITES:
        raise ValueError(f"--suite should be one of: {', '.join(SUITES)}; got {_SUITE.value}")
    print(markdown(SUITES[_SUITE.value], collect(_SUITE.value, _RESULTS.value)))


def collect(suite: str, results: str | Path | None = None) -> list[Record]:
    """The committed records of a suite, and the runs below `results`.

    Raises:
        FileNotFoundError: there is no folder `results`, or no result in it.
        ValueError: a damaged record, or two different ones of one configuration and seed.
    """
    found = _distinct(suite, sorted((RESULTS / suite).glob("*.json")))
    if results is not None:
        paths = sorted(Path(results).rglob(records.FILE))
        if not paths:
            raise FileNotFoundError(f"{results}: no {records.FILE} in or below this folder")
        found |= _distinct(suite, paths)
    return list(found.values())


def markdown(suite: Suite, results: Iterable[Record]) -> str:
    """The tables as Markdown: one for each data set, then the notes and the commands."""
    results = list(results)
    commands: list[str] = []
    others = sorted({record.dataset for record in results} - suite.datasets.keys())
    parts = []
    for dataset in (*suite.datasets, *others):
        ours = [record for record in results if record.dataset == dataset]
        title = suite.datasets.get(dataset, dataset)
        parts.append(f"**{title}** (`{dataset}`)\n\n{_table(suite, dataset, ours, commands)}")
    parts.append(suite.notes)
    listed = "\n".join(f"{number}. `{command}`" for number, command in enumerate(commands, 1))
    parts.append(f"Runs:\n\n{listed}" if listed else "Runs: none yet.")
    return "\n\n".join(parts)


def _distinct(suite: str, paths: Sequence[Path]) -> dict[tuple, Record]:
    """The records of a suite, by all that decides their numbers."""
    seen: dict[tuple, tuple[Path, Record]] = {}
    for path in paths:
        record = records.read(path)
        if record.experiment != suite:
            continue
        for name in _metrics(SUITES[suite]):
            if name not in record.metrics:
                raise ValueError(f"{path}: its metrics lack {name}")
        key = (record.dataset, record.cell, record.switch, _configuration(record), record.seed)
        before, first = seen.setdefault(key, (path, record))
        if first.metrics != record.metrics:
            raise ValueError(
                f"{before} and {path} have the same configuration and seed, but different "
                "metrics; remove one of them"
            )
    return {key: record for key, (_, record) in seen.items()}


def _metrics(suite: Suite) -> tuple[str, str]:
    return f"test_{suite.metric}", f"valid_{suite.metric}"


def _settings(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.config.items() if name != "seed"}


def _configuration(record: Record) -> str:
    return json.dumps(_settings(record), sort_keys=True)


def _table(suite: Suite, dataset: str, ours: Sequence[Record], commands: list[str]) -> str:
    """One data set's table; adds the commands of its runs to `commands`."""
    usual = _usual(ours)
    others = sorted({(record.cell, record.switch) for record in ours} - suite.units.keys())
    lines = [_line(_HEAD), _line(["---", *["---:"] * (len(_HEAD) - 1)])]
    for cell, switch in (*suite.units, *others):
        unit = suite.units.get((cell, switch), cell if switch == "none" else f"{cell}, {switch}")
        published = "none"
        if switch == "none" and (dataset, cell) in suite.published:
            source = "verified" if (dataset, cell) in suite.verified else "recalled"
            published = f"{suite.published[dataset, cell]:.2f} ({source})"
        of_unit = [record for record in ours if (record.cell, record.switch) == (cell, switch)]
        for label, runs in _repetitions(of_unit, usual) or [("", [])]:
            cells = _results(suite, runs, commands) if runs else [EMPTY] * len(_HEAD[2:])
            lines.append(_line([f"{unit}; {label}" if label else unit, published, *cells]))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _usual(ours: Sequence[Record]) -> dict[str, Any]:
    """The most frequent value of every setting, as JSON; of equally frequent ones the least."""
    counts: dict[str, Counter] = {}
    for record in ours:
        for name, value in _settings(record).items():
            counts.setdefault(name, Counter())[json.dumps(value)] += 1
    return {
        name: min(values, key=lambda value: (-values[value], value))
        for name, values in counts.items()
    }


def _repetitions(
    of_unit: Sequence[Record], usual: dict[str, Any]
) -> list[tuple[str, list[Record]]]:
    """Runs of one unit by configuration: what sets it apart from the others, runs by seed."""
    groups: dict[str, list[Record]] = {}
    for record in of_unit:
        groups.setdefault(_configuration(record), []).append(record)
    all_settings = [_settings(runs[0]) for runs in groups.values()]
    names = sorted({name for settings in all_settings for name in settings})
    vary = [name for name in names if len({json.dumps(s.get(name)) for s in all_settings}) > 1]
    labelled = []
    for runs in groups.values():
        settings = _settings(runs[0])
        apart = [n for n in vary if json.dumps(settings.get(n)) != usual[n]]
        label = ", ".join(f"{name}={settings.get(name)}" for name in apart)
        labelled.append((label, sorted(runs, key=lambda record: record.seed)))
    return sorted(labelled, key=lambda item: (item[0].count("="), item[0]))


def _results(suite: Suite, runs: Sequence[Record], commands: list[str]) -> list[str]:
    """The cells of repeated runs, from the test value to the numbers of their commands."""
    for run in runs:
        if run.command not in commands:
            commands.append(run.command)
    numbers = sorted({commands.index(run.command) + 1 for run in runs})
    return [
        *(_spread([run.metrics[m] for run in runs], "{:.2f}".format) for m in _metrics(suite)),
        _spread([run.recurrent_parameters for run in runs], "{:,.0f}".format),
        _spread([100 * run.update_rate for run in runs], "{:.1f}".format),
        _spread([run.seconds for run in runs], "{:,.0f}".format),
        str(len(runs)),
        ", ".join(map(str, numbers)),
    ]


def _spread(values: Sequence[float], text: Callable[[float], str]) -> str:
    """The median, with the range where it can be seen."""
    middle, low, high = (text(f(values)) for f in (statistics.median, min, max))
    return middle if low == high else f"{middle} ({low}{EMPTY}{high})"


if __name__ == "__main__":
    cli.run(main)
