"""The tables as HTML: every group of runs, published tables beside ours, and what is missing."""

from collections.abc import Mapping, Sequence

from experiments.report import html
from experiments.report.collect import Located
from experiments.report.evidence import EQUAL, SINGLE, Group, Model
from experiments.report.html import NOT_RUN, text
from experiments.report.runs import EMPTY
from experiments.report.significance import estimate
from experiments.report.suites import SUITES, is_whole
from experiments.runner.records import Record, headline
from experiments.tuning import matrix

HEAD = (
    "model", "published", "test [95 %]", "valid", "updated, %", "parameters", "minutes", "records",
)  # fmt: skip

PAPER_TABLES = (
    (
        "Long Range Arena, accuracy in %",
        ("listops", "imdb_bytes", "aan", "cifar10_gray", "pathfinder32"),
    ),
    ("Pixel by pixel, accuracy in %", ("smnist", "psmnist", "scifar10")),
    ("Selective Copy over 4,096 steps, accuracy in %", ("selective_copy",)),
    ("WikiText-103, perplexity a word, test", ("wikitext103",)),
)
"""The tables of the suRNN paper: title, data sets."""


def name_of(suite: str, model: Model) -> str:
    """The title of a model in the tables of a suite."""
    cell, switch = model
    if model in SUITES[suite].units:
        return SUITES[suite].units[model]
    cell = {"gru_before": "GRU, reset before the product"}.get(cell, cell)
    return cell if switch == "none" else f"{cell}, {switch}"


def of_group(group: Group, planned: Sequence[Model] = ()) -> str:
    """The table of a group.

    Args:
        group: its runs.
        planned: models that have a row even if they were not run.
    """
    name = group.anchor
    listed = list(dict.fromkeys(r.command for runs in group.runs.values() for _, r in runs))
    whole = is_whole(SUITES[group.suite].less(_example(group)))
    known = [m for m in SUITES[group.suite].units if m in group.runs or m in planned]
    rows = []
    for model in [*known, *(model for model in group.runs if model not in known)]:
        figure = SUITES[group.suite].published.get((group.dataset, *model)) if whole else None
        rows.append(
            [
                text(name_of(group.suite, model)),
                html.published(figure),
                *_cells(group.runs.get(model), listed, name),
            ]
        )
    return "\n".join(
        [
            f'<h4 id="{name}">{text(group.title)} <span class="small">'
            f"{text('; '.join(filter(None, (group.unit, group.draws))))}</span></h4>",
            html.table(HEAD, rows),
            _left_out(group),
            html.commands(name, listed),
        ]
    )


def _example(group: Group) -> Record:
    return next(iter(group.runs.values()))[0].record


def _cells(runs: Sequence[Located] | None, listed: Sequence[str], name: str) -> list[str]:
    if not runs:
        return [NOT_RUN, *[EMPTY] * 5]
    records = [record for _, record in runs]
    rates = [100 * record.update_rate for record in records]
    minutes = [(record.search or {}).get("seconds", record.seconds) / 60 for record in records]
    links = [
        html.link(html.file(path), f"seed {record.seed}" if len(runs) == 1 else record.seed)
        for path, record in runs
    ]
    numbers = sorted({listed.index(record.command) + 1 for record in records})
    by = " ".join(html.link(f"#{name}-{number}", f"c{number}", "small") for number in numbers)
    return [
        html.interval(estimate([headline(record)[1] for record in records])),
        html.number(estimate([headline(record, "valid")[1] for record in records]).mean),
        html.number(sum(rates) / len(rates), 1),
        f"{records[0].recurrent_parameters:,}",
        html.number(sum(minutes) / len(minutes), 1),
        f"{' '.join(links)} {by}",
    ]


def _left_out(group: Group) -> str:
    if not group.left_out:
        return ""
    names = "; ".join(name_of(group.suite, model) for model in group.left_out)
    return html.paragraph(
        f"Run with more than one configuration, so in no comparison: {text(names)}. "
        "<code>python -m experiments.tables</code> prints these rows.",
        "note",
    )


def published_tables(groups: Sequence[Group]) -> str:
    """The tables of the suRNN paper, with ours at the same size below each figure."""
    suite = SUITES["surnn"]
    ours: dict[tuple[str, Model], Sequence[Located]] = {}
    for group in sorted(groups, key=lambda group: group.protocol != EQUAL):
        if group.suite == "surnn" and is_whole(suite.less(_example(group))):
            for model, runs in group.runs.items():
                ours.setdefault((group.dataset, model), runs)
    parts = []
    for title, datasets in PAPER_TABLES:
        rows = []
        for model, name in suite.units.items():
            figures = [suite.published.get((dataset, *model)) for dataset in datasets]
            run = [ours.get((dataset, model)) for dataset in datasets]
            if any(figures) or any(run):
                cells = [_beside(*both) for both in zip(figures, run, strict=True)]
                rows.append([text(name), *cells])
        heads = [suite.datasets[dataset].removeprefix("LRA ") for dataset in datasets]
        parts.append(f"<h4>{text(title)}</h4>\n{html.table(['model', *map(text, heads)], rows)}")
    return "\n".join(parts)


def _beside(figure, runs: Sequence[Located] | None) -> str:
    if not runs:
        return f'{html.published(figure)}<span class="ours">ours: {NOT_RUN}</span>'
    value = estimate([headline(record)[1] for _, record in runs])
    links = " ".join(html.link(html.file(path), record.seed) for path, record in runs)
    shown = f"ours: {html.interval(value)}, record {links}"
    return f'{html.published(figure)}<span class="ours">{shown}</span>'


def plan() -> Mapping[str, list[tuple[matrix.Entry, str, Model]]]:
    """Task of the reproduction -> its entries, each with its data set and model."""
    found: dict[str, list[tuple[matrix.Entry, str, Model]]] = {}
    for entry in matrix.surnn():
        config = entry.config("cpu")
        model = (config.kinds, config.switch_name)
        found.setdefault(entry.task, []).append((entry, config.dataset, model))
    return found


def coverage(groups: Sequence[Group]) -> str:
    """A grid: how many of the planned seeds of every model and task are recorded."""
    planned = plan()
    recorded = {
        (group.dataset, model): len(runs)
        for group in groups
        if group.protocol == EQUAL
        for model, runs in group.runs.items()
    }
    models = list(dict.fromkeys(model for cells in planned.values() for _, _, model in cells))
    rows, total, done = [], 0, 0
    for cells in planned.values():
        there = {model: recorded.get((dataset, model), 0) for _, dataset, model in cells}
        total, done = total + 3 * len(there), done + sum(there.values())
        row = [_count(there[model]) if model in there else "" for model in models]
        rows.append([text(SUITES["surnn"].datasets[cells[0][1]]), *row])
    head = ["task", *(text(name_of("surnn", model)) for model in models)]
    lead = html.paragraph(
        f"<b>{done} of {total}</b> planned runs with equal effort are recorded (three seeds a "
        "cell). An empty cell is not planned."
    )
    return f"{lead}\n{html.table(head, rows, 'grid')}"


def _count(seeds: int) -> str:
    return f"{seeds} of 3" if seeds else NOT_RUN


def equal_tables(groups: Sequence[Group]) -> str:
    """The tables of equal effort: a task that has any run shows what else is planned for it."""
    models = {}
    for cells in plan().values():
        for _, dataset, model in cells:
            models.setdefault(dataset, []).append(model)
    found = [
        of_group(group, models.get(group.dataset, ()))
        for group in groups
        if group.protocol == EQUAL
    ]
    if not found:
        return html.paragraph(f"No run with equal effort is recorded yet: {NOT_RUN}.")
    return "\n".join(found)


def single_tables(groups: Sequence[Group], suite: str) -> str:
    """The tables of single runs of a suite."""
    chosen = [group for group in groups if (group.suite, group.protocol) == (suite, SINGLE)]
    return "\n".join(map(of_group, chosen))


def search_tables(groups: Sequence[Group], protocol: str) -> str:
    """The tables of the searches of one protocol."""
    units = list(SUITES["chung"].units)
    chosen = [group for group in groups if group.protocol == protocol]
    return "\n".join(of_group(group, units) for group in chosen)


def unrun_sizes(groups: Sequence[Group]) -> str:
    """The published figures that have no run of ours at their size."""
    suite = SUITES["surnn"]
    whole = {
        (group.dataset, model)
        for group in groups
        if group.suite == "surnn" and is_whole(suite.less(_example(group)))
        for model in group.runs
    }
    missing: dict[str, list[str]] = {}
    for dataset, *model in suite.published:
        if (dataset, tuple(model)) not in whole:
            name = suite.units.get(tuple(model), model[0])
            missing.setdefault(dataset, []).append(name)
    rows = [
        [text(suite.datasets[dataset]), text("; ".join(missing[dataset]))]
        for dataset in suite.datasets
        if dataset in missing
    ]
    return html.table(["task", "published, and not run at that size"], rows, "left")
