"""The tables of single runs: published figures beside ours."""

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from experiments.report.collect import configuration, settings
from experiments.report.suites import PaperTable, is_whole, published
from experiments.runner.records import Record, headline

EMPTY = "\N{EN DASH}"

_HEAD = (
    "unit", "published test", "test", "valid", "parameters", "updated, %", "seconds", "n", "runs",
)  # fmt: skip


def markdown(suite: PaperTable, results: Iterable[Record]) -> str:
    """The tables as Markdown: one for each data set, then the notes and the commands."""
    results = list(results)
    commands: list[str] = []

    def place_of(record):
        less = suite.less(record)
        if record.search is not None:
            epochs = record.config["max_epochs"]
            less = ", ".join(filter(None, (less, f"{epochs} epochs, equal effort")))
        return record.dataset, less

    places = {place_of(record) for record in results}
    quoted = {dataset for dataset, _, _ in suite.published}
    some = {dataset for dataset, _ in places}
    # A task that was only run smaller, and is not published, gets no empty table.
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
        table = _table(suite, dataset, is_whole(less), ours, commands)
        parts.append(f"**{title}** (`{dataset}`{figure})\n\n{table}")
    parts.append(suite.notes)
    listed = "\n".join(f"{number}. `{command}`" for number, command in enumerate(commands, 1))
    parts.append(f"Runs:\n\n{listed}" if listed else "Runs: none yet.")
    return "\n\n".join(parts)


def line(cells: Iterable[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def _table(
    suite: PaperTable, dataset: str, whole: bool, ours: Sequence[Record], commands: list[str]
) -> str:
    """One data set's table; adds the commands of its runs to `commands`.

    Units that were neither run nor published follow in one line. Published figures stand only
    beside runs on the `whole` task.
    """
    usual = _usual(ours)
    others = sorted({(record.cell, record.switch) for record in ours} - suite.units.keys())
    lines, missing = [line(_HEAD), line(["---", *["---:"] * (len(_HEAD) - 1)])], []
    for cell, switch in (*suite.units, *others):
        unit = suite.units.get((cell, switch), cell if switch == "none" else f"{cell}, {switch}")
        quoted = published(suite, dataset, cell, switch) if whole else "none"
        of_unit = [record for record in ours if (record.cell, record.switch) == (cell, switch)]
        if not of_unit and quoted == "none":
            missing.append(unit)
            continue
        for label, runs in _repetitions(of_unit, usual) or [("", [])]:
            cells = _results(runs, commands) if runs else [EMPTY] * len(_HEAD[2:])
            lines.append(line([f"{unit}; {label}" if label else unit, quoted, *cells]))
    text = "\n".join(lines if len(lines) > 2 else [])
    left = f"Not run yet: {'; '.join(missing)}." if missing else ""
    return "\n\n".join(filter(None, (text, left)))


def _usual(ours: Sequence[Record]) -> dict[str, Any]:
    """The most frequent value of every setting, as JSON; the least of equally frequent ones."""
    counts: dict[str, Counter] = {}
    for record in ours:
        for name, value in settings(record).items():
            counts.setdefault(name, Counter())[json.dumps(value)] += 1
    return {
        name: min(values, key=lambda value: (-values[value], value))
        for name, values in counts.items()
    }


def _repetitions(
    of_unit: Sequence[Record], usual: dict[str, Any]
) -> list[tuple[str, list[Record]]]:
    """Runs of one unit by configuration: its unusual settings in words, and its runs by seed."""
    groups: dict[str, list[Record]] = {}
    for record in of_unit:
        groups.setdefault(configuration(record), []).append(record)
    all_settings = [settings(runs[0]) for runs in groups.values()]
    names = sorted({name for settings in all_settings for name in settings})
    vary = [name for name in names if len({json.dumps(s.get(name)) for s in all_settings}) > 1]
    labelled = []
    for runs in groups.values():
        own = settings(runs[0])
        apart = [n for n in vary if json.dumps(own.get(n)) != usual[n]]
        label = ", ".join(f"{name}={own.get(name)}" for name in apart)
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
    """Two decimals, or two digits of a small number."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def _spread(values: Sequence[float], text: Callable[[float], str]) -> str:
    """The median, with the range if it is not empty."""
    middle, low, high = (text(f(values)) for f in (statistics.median, min, max))
    return middle if low == high else f"{middle} ({low}{EMPTY}{high})"
