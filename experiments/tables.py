"""Prints the results of a suite as Markdown: python -m experiments.tables --suite=music|surnn|chung

Reads the records in experiments/results/SUITE and, with --results=DIR, every result.json below DIR.
A run below DIR takes the place of a record with the same configuration and seed. Cells that nobody
has run hold a dash.
"""

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data import cli
from experiments.report.suites import SUITES, PaperTable
from experiments.runner import records
from experiments.runner.records import Record, headline
from experiments.tuning.protocols import FOUND, SEARCH, split_off

RESULTS = Path(__file__).parent / "results"
"""The committed records, one folder a suite."""

EMPTY = "–"

_HEAD = (
    "unit", "published test", "test", "valid", "parameters", "updated, %", "seconds", "n", "runs",
)  # fmt: skip


def main() -> None:
    """Prints the tables that the flags ask for."""
    name, results = flags.FLAGS.suite, flags.FLAGS.results
    if name not in SUITES:
        raise ValueError(f"--suite should be one of: {', '.join(SUITES)}; got {name}")
    # It imports this module, which is the program here.
    from experiments.report import searches

    show = searches.markdown if name == "chung" else markdown
    print(show(SUITES[name], collect(name, results)))


def collect(suite: str, results: str | Path | None = None) -> list[Record]:
    """The committed records of a suite, and the runs below `results`.

    Raises:
        FileNotFoundError: there is no folder `results`, or no result in it.
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


def markdown(suite: PaperTable, results: Iterable[Record]) -> str:
    """The tables as Markdown: one for each data set, then the notes and the commands."""
    results = list(results)
    commands: list[str] = []

    def place_of(record):
        return record.dataset, suite.smaller(record.dataset, record.config)

    places = {place_of(record) for record in results}
    quoted = {dataset for dataset, _, _ in suite.published}
    some = {dataset for dataset, _ in places}
    # Of a task that was only run smaller, and is published nowhere, there is nothing to show.
    places |= {(name, "") for name in suite.datasets if name in quoted or name not in some}
    known = list(suite.datasets)

    def order(place):
        dataset, less = place
        return (known.index(dataset) if dataset in known else len(known), dataset, less)

    parts = []
    for dataset, less in sorted(places, key=order):
        ours = [record for record in results if place_of(record) == (dataset, less)]
        title = suite.datasets.get(dataset, dataset) + (f", {less}" if less else "")
        figure = f"; {headline(ours[0])[0]}" if ours else ""
        table = _table(suite, dataset, not less, ours, commands)
        parts.append(f"**{title}** (`{dataset}`{figure})\n\n{table}")
    parts.append(suite.notes)
    listed = "\n".join(f"{number}. `{command}`" for number, command in enumerate(commands, 1))
    parts.append(f"Runs:\n\n{listed}" if listed else "Runs: none yet.")
    return "\n\n".join(parts)


def distinct(suite: str, paths: Sequence[Path]) -> dict[tuple, Record]:
    """The records of a suite, by all that decides their numbers.

    Raises:
        ValueError: a damaged record, or two different ones of one configuration and seed.
    """
    seen: dict[tuple, tuple[Path, Record]] = {}
    for path in paths:
        record = records.read(path)
        if not _belongs(suite, record):
            continue
        record = record._replace(
            config=_whole(SUITES[suite].configs[record.experiment], record.config, path)
        )
        try:
            headline(record), headline(record, "valid")
        except KeyError as error:
            raise ValueError(f"{path}: its metrics lack {error.args[0]}") from None
        key = (record.dataset, record.cell, record.switch, _configuration(record), record.seed)
        before, first = seen.setdefault(key, (path, record))
        if first.metrics != record.metrics:
            raise ValueError(
                f"{before} and {path} have the same configuration and seed, but different "
                "metrics; remove one of them"
            )
    return {key: record for key, (_, record) in seen.items()}


def _belongs(suite: str, record: Record) -> bool:
    """Searches have a suite of their own, and single runs on speech stand in it too."""
    if record.experiment not in SUITES[suite].configs:
        return False
    searched = SEARCH in record.config
    return searched or record.experiment == "speech" if suite == "chung" else not searched


def _whole(kind: type, config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A configuration with the fields that came after the run, whose defaults are what it had."""
    config, found = split_off(config)
    known = {field.name for field in dataclasses.fields(kind)}
    if gone := sorted(config.keys() - known):
        raise ValueError(f"{path}: its configuration has {', '.join(gone)}, which no run has now")
    return dataclasses.asdict(kind(**config)) | ({} if found is None else {SEARCH: found})


def _settings(record: Record) -> dict[str, Any]:
    """What repetitions have in common; of a winner, all but what it was chosen by or came to."""
    settings = {name: value for name, value in record.config.items() if name != "seed"}
    if SEARCH in settings:
        found = settings[SEARCH]
        settings[SEARCH] = {name: found[name] for name in FOUND if name in found}
        settings |= dict.fromkeys(("learning_rate", "weight_decay"))
    return settings


def _configuration(record: Record) -> str:
    return json.dumps(_settings(record), sort_keys=True)


def _table(
    suite: PaperTable, dataset: str, whole: bool, ours: Sequence[Record], commands: list[str]
) -> str:
    """One data set's table; adds the commands of its runs to `commands`.

    Units that were neither run nor published follow in one line. What was published stands beside
    runs on the `whole` task alone.
    """
    usual = _usual(ours)
    others = sorted({(record.cell, record.switch) for record in ours} - suite.units.keys())
    lines, missing = [line(_HEAD), line(["---", *["---:"] * (len(_HEAD) - 1)])], []
    for cell, switch in (*suite.units, *others):
        unit = suite.units.get((cell, switch), cell if switch == "none" else f"{cell}, {switch}")
        said = published(suite, dataset, cell, switch) if whole else "none"
        of_unit = [record for record in ours if (record.cell, record.switch) == (cell, switch)]
        if not of_unit and said == "none":
            missing.append(unit)
            continue
        for label, runs in _repetitions(of_unit, usual) or [("", [])]:
            cells = _results(runs, commands) if runs else [EMPTY] * len(_HEAD[2:])
            lines.append(line([f"{unit}; {label}" if label else unit, said, *cells]))
    text = "\n".join(lines if len(lines) > 2 else [])
    left = f"Not run yet: {'; '.join(missing)}." if missing else ""
    return "\n\n".join(filter(None, (text, left)))


def published(suite: PaperTable, dataset: str, cell: str, switch: str) -> str:
    """The published figure and how far to trust it, or ``none``."""
    key = (dataset, cell, switch)
    if key not in suite.published:
        return "none"
    source = "verified" if key in suite.verified else suite.source
    return f"{suite.published[key]:.2f} ({source})"


def line(cells: Iterable[str]) -> str:
    """A row of a table."""
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


def _results(runs: Sequence[Record], commands: list[str]) -> list[str]:
    """The cells of repeated runs, from the test value to the numbers of their commands."""
    for run in runs:
        if run.command not in commands:
            commands.append(run.command)
    numbers = sorted({commands.index(run.command) + 1 for run in runs})
    return [
        *(
            _spread([headline(run, split)[1] for run in runs], _figure)
            for split in ("test", "valid")
        ),
        _spread([run.recurrent_parameters for run in runs], "{:,.0f}".format),
        _spread([100 * run.update_rate for run in runs], "{:.1f}".format),
        _spread([run.seconds for run in runs], "{:,.0f}".format),
        str(len(runs)),
        ", ".join(map(str, numbers)),
    ]


def _figure(value: float) -> str:
    """Two decimals, or two digits of what is small."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def _spread(values: Sequence[float], text: Callable[[float], str]) -> str:
    """The median, with the range where it can be seen."""
    middle, low, high = (text(f(values)) for f in (statistics.median, min, max))
    return middle if low == high else f"{middle} ({low}{EMPTY}{high})"


if __name__ == "__main__":
    # Here and not above: the module is imported beside the program, too.
    flags.DEFINE_string("suite", None, f"What to print: {', '.join(SUITES)}")
    flags.DEFINE_string("results", None, "Folder with the result.json of further runs")
    cli.run(main)
