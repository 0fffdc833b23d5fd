"""The tables and verdicts of searches under both protocols, with published figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.report import collect, runs, significance
from experiments.report.runs import EMPTY, line
from experiments.report.suites import SUITES, PaperTable, published
from experiments.runner import records
from experiments.runner.records import Record, headline
from experiments.tuning import protocols

_HEAD = (
    "unit", "published test", "test", "valid", "train", "parameters", "updated, %", "seconds",
    "diverged", "cut off", "n",
)  # fmt: skip


def of_folder(workdir: Path) -> str:
    """The tables of the winners below a folder."""
    paths = sorted(workdir.rglob(records.FILE))
    return markdown(SUITES["chung"], list(collect.distinct("chung", paths).values()))


def markdown(suite: PaperTable, results: Sequence[Record]) -> str:
    """A part for each search, with its verdicts; then single runs, the notes and the commands."""
    searched = [record for record in results if record.search is not None]
    single = [record for record in results if record.search is None]
    searches: dict[str, list[Record]] = {}
    for record in sorted(searched, key=lambda record: record.seed):
        searches.setdefault(_title(record), []).append(record)
    parts = [part for title in sorted(searches) for part in _search(suite, title, searches[title])]
    parts = parts or ["No search has been run yet."]
    if searched:
        commands = sorted({record.command for record in searched})
        parts.append("Searches:\n\n" + "\n".join(f"- `{command}`" for command in commands))
    if not single:
        return "\n\n".join([*parts, suite.notes])
    run = {record.dataset for record in single}
    titles = {name: title for name, title in suite.datasets.items() if name in run}
    table = runs.markdown(suite._replace(datasets=titles), single)
    return "\n\n".join([*parts, "## Single runs, no search", table])


def _title(record: Record) -> str:
    """The heading of a search: everything that sets it apart from others."""
    found = record.search
    usual = protocols.DATASETS[record.experiment].get(
        found["dataset"], protocols.OWN[record.experiment]
    )
    usual = {**protocols.UNITS.get(found["unit"], {}), **usual}
    changed = {
        name: record.config[name]
        for name in protocols.SMALLER
        if name in record.config and record.config[name] != _usual(record.experiment, usual, name)
    }
    parts = [f"budget {found['budget']}"]
    parts += [f"search seed {found['seed']}"] if found["seed"] else []
    parts += [f"{name} {value}" for name, value in changed.items()]
    return f"Protocol {found['protocol']}: {', '.join(parts)}"


def _usual(experiment: str, plan: dict[str, Any], name: str) -> Any:
    return plan.get(name, getattr(protocols.CONFIGS[experiment], name))


def _search(suite: PaperTable, title: str, ours: Sequence[Record]) -> list[str]:
    """The heading, the tables and the verdicts of one search."""
    parts = [f"## {title}"]
    for experiment in protocols.CONFIGS:
        of_it = [record for record in ours if record.experiment == experiment]
        names = {record.search["dataset"] for record in of_it}
        figures: dict[str, dict[str, dict[int, float]]] = {}
        for dataset in sorted(names, key=lambda name: (_place(suite, name), name)):
            own = [record for record in of_it if record.search["dataset"] == dataset]
            about = f"`{dataset}`; {headline(own[0])[0]}"
            table = _table(suite, dataset, own)
            parts.append(f"**{suite.datasets.get(dataset, dataset)}** ({about})\n\n{table}")
            units = figures.setdefault(dataset, {})
            for record in own:
                seeds = units.setdefault(record.search["unit"], {})
                if record.seed in seeds:
                    raise ValueError(
                        f"two winners for {dataset}, {record.search['unit']}, seed "
                        f"{record.seed} of {title}; remove one of them"
                    )
                seeds[record.seed] = headline(record)[1]
        verdicts = [f"- {verdict}" for verdict in significance.verdicts(figures) if verdict.parts]
        if verdicts:
            parts.append(f"Verdicts, {experiment}:\n\n" + "\n".join(verdicts))
    return parts


def _place(suite: PaperTable, dataset: str) -> int:
    known = list(suite.datasets)
    return known.index(dataset) if dataset in known else len(known)


def _table(suite: PaperTable, dataset: str, ours: Sequence[Record]) -> str:
    lines = [line(_HEAD), line(["---", *["---:"] * (len(_HEAD) - 1)])]
    for (cell, switch), unit in suite.units.items():
        own = [record for record in ours if (record.cell, record.switch) == (cell, switch)]
        quoted = published(suite, dataset, cell, switch)
        cells = _cells(own) if own else [EMPTY] * len(_HEAD[2:])
        lines.append(line([unit, quoted, *cells]))
    return "\n".join(lines)


def _cells(runs: Sequence[Record]) -> list[str]:
    found = [record.search for record in runs]
    return [
        *(
            _spread([headline(record, split)[1] for record in runs])
            for split in ("test", "valid", "train")
        ),
        f"{runs[0].recurrent_parameters:,}",
        f"{100 * significance.estimate([record.update_rate for record in runs]).mean:.1f}",
        f"{significance.estimate([search['seconds'] for search in found]).mean:,.0f}",
        f"{sum(s['diverged'] for s in found)} of {sum(s['budget'] for s in found)}",
        str(sum(map(_cut_off, runs))),
        str(len(runs)),
    ]


def _cut_off(run: Record) -> bool:
    """Whether the most epochs ended it, before patience did."""
    return run.best_epoch + run.config["patience"] > run.config["max_epochs"]


def _spread(values: Sequence[float]) -> str:
    known = significance.estimate(values)
    return f"{known.mean:.2f}" + ("" if known.deviation is None else f" ± {known.deviation:.2f}")
