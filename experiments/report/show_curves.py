"""Pictures of the records: tuning, learning curves, accuracy against cost, inside the models."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from experiments.report import charts, collect, costs, html
from experiments.report.charts import Palette, Point
from experiments.report.evidence import EQUAL, SINGLE, Group
from experiments.report.show_tables import name_of
from experiments.report.suites import SUITES
from experiments.runner.records import headline
from experiments.tuning import protocols

CURVE = "metrics.jsonl"
"""The learning curve of a run, beside its record: a line an epoch."""

JOURNALS = (
    ("chung", "music", "chung-music-journal.jsonl"),
    ("controlled", "music", "controlled-music-journal.jsonl"),
    ("controlled", "speech", "controlled-speech-journal.jsonl"),
)
"""Protocol, experiment, file with every trial of its searches."""

PICTURES = (
    (
        "experiments/results/surnn/selective_copy_events.png",
        "Open switches of a suGRU with events on one test sequence of Selective Copy. They open at "
        "the tokens to be remembered, and where these have to be given back.",
    ),
    (
        "experiments/results/chung/fsdd_lstm_wave.png",
        "A spoken two as the LSTM expects it, ten samples at a time.",
    ),
    (
        "benchmarks/results/skip_scan.png",
        "Time of a training step of one layer against the share of open switches.",
    ),
    (
        "benchmarks/results/lengths.png",
        "Time and memory of a training step of one layer against the length of the sequence.",
    ),
)
"""Committed pictures, with what they show."""


def tuning(groups: Sequence[Group]) -> str:
    """Validation figures of every trial of the searches, then of the draws of equal effort."""
    return f"{_searches()}\n{_draws(groups)}"


def _draws(groups: Sequence[Group]) -> str:
    """The draws of equal effort after their first round, by model; empty without records."""
    units, drawn = SUITES["surnn"].units, []
    equal = [group for group in groups if group.protocol == EQUAL]
    present = {model for group in equal for model in group.runs}
    palette = Palette([name for model, name in units.items() if model in present])
    for group in equal:
        points = []
        for model, runs in group.runs.items():
            search, name = runs[0].record.search, name_of("surnn", model)
            first = search["rounds"][0] if search["rounds"] else {}
            for draw in search["draws"]:
                value = first.get(str(draw["number"]))
                if value is not None:
                    label = f"{name}: {value:.4g}, weight decay {draw['weight_decay']:.2g}"
                    hollow = draw["number"] != search["draw"]
                    points.append(Point(draw["learning_rate"], value, name, label, hollow))
        if points:
            x = charts.axis("learning rate", [point.x for point in points], log=True)
            y = charts.axis("validation", [point.y for point in points])
            title = group.short.partition(",")[0]
            drawn.append(charts.scatter(title, x, y, points, palette))
    if not drawn:
        return ""
    lead = html.paragraph(
        "The four draws of equal effort after an eighth of the budget (lower is better), seed 0. "
        "The filled mark is the draw that was chosen, after a quarter of it."
    )
    grid = f'<div class="charts">{"".join(drawn)}</div>'
    return f"{lead}\n{palette.legend([units[m] for m in units if m in present])}\n{grid}"


def _searches() -> str:
    """Best validation figure of every trial against its learning rate, by unit."""
    units = {name: name_of("chung", _model(unit)) for name, unit in protocols.UNITS.items()}
    palette, drawn = Palette(list(units.values())), []
    for protocol, experiment, file in JOURNALS:
        trials = _trials(collect.RESULTS / "chung" / file)
        for dataset in dict.fromkeys(trial["dataset"] for trial in trials):
            own = [t for t in trials if t["dataset"] == dataset and t["valid_nll"] is not None]
            best = min(t["valid_nll"] for t in own)
            reach = sorted(t["valid_nll"] for t in own)[len(own) // 2]
            shown = [t for t in own if t["valid_nll"] <= reach]
            points = [
                Point(
                    t["learning_rate"],
                    t["valid_nll"],
                    units[t["unit"]],
                    f"{units[t['unit']]}, seed {t['seed']}: {t['valid_nll']:.3f}",
                    t["status"] != "ok",
                )
                for t in shown
            ]
            title = SUITES["chung"].datasets[dataset].partition(",")[0]
            x = charts.axis("learning rate", [t["learning_rate"] for t in own], log=True)
            y = charts.axis(f"nats, {experiment}", [best, reach])
            drawn.append(charts.scatter(f"{title}, {protocol}", x, y, points, palette))
    lead = html.paragraph(
        "Every trial of the searches on music and speech: its lowest validation figure (nats, "
        "lower is better) against its learning rate. Hollow marks were dropped by successive "
        "halving, after fewer epochs. The worse half of the trials of a data set is off the top."
    )
    grid = f'<div class="charts">{"".join(drawn)}</div>'
    return f"{lead}\n{palette.legend(list(units.values()))}\n{grid}"


def _model(unit: dict) -> tuple[str, str]:
    return unit["cell"], unit.get("switch", "none")


def _trials(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if "draw" in line]


def learning(groups: Sequence[Group]) -> str:
    """Validation curves of the runs whose records have them."""
    found = {group: _curves_of(group) for group in map(_Same, groups)}
    found = {group: series for group, series in found.items() if series}
    if not found:
        return html.paragraph(
            "No committed record has a learning curve yet. Those of runs with equal effort come "
            "with their records: <code>python -m experiments.reproduce --publish</code>."
        )
    present = {name for series in found.values() for name in series}
    names = [name for name in SUITES["surnn"].units.values() if name in present]
    palette, drawn = Palette(names), []
    for group, series in found.items():
        every = [value for line in series.values() for _, value in line]
        late = [value for line in series.values() for _, value in line[len(line) // 10 :]]
        x = charts.axis("epoch", [epoch for line in series.values() for epoch, _ in line])
        y = charts.axis(group.metric, [min(every), max(late)])
        drawn.append(charts.curves(group.of.short.partition(",")[0], x, y, series, palette))
    grid = f'<div class="charts">{"".join(drawn)}</div>'
    lead = html.paragraph("Validation figure after each epoch, seed 0 of each model.")
    return f"{lead}\n{palette.legend(names)}\n{grid}"


class _Same:
    """A group as a key, with the metric of its curves."""

    def __init__(self, group: Group):
        self.of, self.metric = group, ""


def _curves_of(key: _Same) -> dict[str, list[tuple[float, float]]]:
    series = {}
    for model, runs in key.of.runs.items():
        path = runs[0].path.with_name(CURVE)
        if runs[0].path.name != collect.records.FILE or not path.exists():
            continue
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        wanted = ("valid/error", "valid/nll", "valid/mse")
        metric = next((name for name in wanted if name in lines[0]), None)
        if metric is None:
            continue
        key.metric = metric.replace("valid/", "validation ")
        name = name_of(key.of.suite, model)
        series[name] = [(line["epoch"], line[metric]) for line in lines if metric in line]
    return series


def pareto(groups: Sequence[Group]) -> str:
    """Test figure against training time, and against the share of updates."""
    chosen = [g for g in groups if g.suite == "surnn" and len(g.runs) > 1]
    chosen = [g for g in chosen if g.protocol == EQUAL] + [
        g for g in chosen if g.protocol == SINGLE
    ]
    order = list(SUITES["surnn"].units.values())
    present = {name_of("surnn", model) for group in chosen for model in group.runs}
    names = [name for name in order if name in present]
    palette, drawn = Palette(names), []
    for group in chosen:
        by_time, by_rate = [], []
        for model, runs in group.runs.items():
            records = [record for _, record in runs]
            name, n = name_of("surnn", model), len(records)
            value = sum(headline(record)[1] for record in records) / n
            minutes = sum(record.seconds for record in records) / n / 60
            rate = 100 * sum(record.update_rate for record in records) / n
            hollow = group.protocol == SINGLE
            label = f"{name}: {html.number(value)}, {minutes:.1f} min, {rate:.0f} % updated"
            by_time.append(Point(minutes, value, name, label, hollow))
            if model[0] != "attention" and rate > 0:  # The axis is logarithmic.
                by_rate.append(Point(rate, value, name, label, hollow))
        better = "max" if group.unit == "accuracy, %" else "min"
        title = group.short if len(group.short) < 30 else group.short.partition(",")[0]
        title += " *" if group.protocol == SINGLE else ""
        pair = []
        for points, words in ((by_time, "minutes of training"), (by_rate, "updates, %")):
            if len(points) > 1:
                x = charts.axis(words, [point.x for point in points], log=True)
                values = [point.y for point in points]
                y = charts.axis(group.unit, values, log=_wide(values))
                pair.append(charts.scatter(title, x, y, points, palette, better))
        drawn.append(f'<div class="pair">{"".join(pair)}</div>')
    lead = html.paragraph(
        "Test figure (accuracy in %: higher is better; perplexity and error: lower) against the "
        "minutes of training and against the share of neurons that update in a step. The dashed "
        "line joins the models that no other beats in both. Hollow, with a star: one seed, rates "
        "set by hand, other work on the machine. A state space or a GRU updates everything."
    )
    grid = f'<div class="pairs">{"".join(drawn)}</div>'
    return f"{lead}\n{palette.legend(names)}\n{grid}"


def _wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and math.log10(max(values) / min(values)) > 0.5


def inside(groups: Sequence[Group]) -> str:
    """What was seen inside trained models: rates, periods, how long values are kept."""
    head = ("model", "layer", "updated, %", "at events, %", "elsewhere, %", "never open, %",
            "period", "kept", "kept, 99 %", "depth")  # fmt: skip
    rows = []
    for group in groups:
        for model, runs in group.runs.items():
            for layer, seen in costs.inside(runs[0].path).items():
                title = f"{group.short}: {name_of(group.suite, model)}"
                rows.append(
                    [
                        html.link(html.file(runs[0].path), title),
                        layer.removeprefix("layer "),
                        *(_share(seen, k) for k in _SHARES),
                        *(_steps(seen, k) for k in _STEPS),
                    ]
                )
    lead = html.paragraph(
        "Sixteen test sequences of a trained model. Period: the median over neurons of the "
        "strongest period of a switch, in steps. Kept: for how many steps a value stays bit for "
        "bit the same, median and 99th percentile. Depth: updates on the way from the last step "
        "to the first, mean over neurons."
    )
    pictures = "".join(
        f'<figure><img src="{html.file(html.ROOT / path)}" alt="{html.text(words)}" '
        f'loading="lazy"><figcaption>{html.text(words)}</figcaption></figure>'
        for path, words in PICTURES
    )
    return f"{lead}\n{html.table(head, rows)}\n{pictures}"


_SHARES = ("update_rate", "rate_at_events", "rate_elsewhere", "dead")
_STEPS = ("period_median", "memory_median", "memory_p99", "depth")


def _share(seen: dict, key: str) -> str:
    return html.number(100 * seen[key], 1) if seen.get(key) is not None else html.EMPTY


def _steps(seen: dict, key: str) -> str:
    return html.number(seen[key], 0) if seen.get(key) is not None else html.EMPTY
