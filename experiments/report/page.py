"""The report: one HTML page made of the committed records alone."""

from experiments.report import claims, evidence, html, show_claims, show_curves, show_tables
from experiments.report.evidence import EQUAL
from experiments.report.html import paragraph, section, text
from experiments.report.sources import DOUBTS, SOURCES
from experiments.report.verdicts import Verdict

COMMAND = "python -m experiments.report_page"


def build() -> str:
    """The page; the same bytes for the same records."""
    groups = evidence.groups()
    found = claims.claims(groups)
    contents, body = [], []

    def add(name: str, title: str, *parts: str) -> None:
        contents.append((name, title))
        body.append(section(name, title, *parts))

    add(
        "claims",
        "Claims and verdicts",
        show_claims.summary(found),
        "<details><summary>How a verdict is reached</summary>" + show_claims.RULES + "</details>",
        *map(show_claims.details, found),
    )
    add(
        "chung",
        "Gated units on music and speech",
        paragraph(
            "The two protocols of the searches, three seeds each; sizes of equal parameter count, "
            "and the best draw on the validation split. Nats, lower is better: music a frame, "
            "speech a step of ten samples. Minutes are of all draws together."
        ),
        "<h3>As the paper trained: RMSProp, weight noise, ten learning rates</h3>",
        show_tables.search_tables(groups, "chung"),
        "<h3>Equal effort: Adam, learning rate and weight decay drawn alike</h3>",
        show_tables.search_tables(groups, "controlled"),
        "<h3>Single runs on music, one seed, settings by hand</h3>",
        show_tables.single_tables(groups, "music"),
    )
    add(
        "published",
        "The suRNN paper's tables, and ours at the same size",
        paragraph(
            "Each published figure has a tag: <i>verified</i>, the table of the paper that "
            "measured it was found in two public places; <i>second-hand</i>, one place relays it. "
            "Below it are our runs of the whole task. Smaller versions stand in the next two "
            "sections, with no published figure beside them."
        ),
        show_tables.published_tables(groups),
    )
    add(
        "equal",
        "Smaller tasks with equal effort",
        paragraph(
            "Four draws of learning rate and weight decay for every model of a task, the same "
            "ones; the best draw is trained with three seeds. Sizes lie within 10 % of one "
            "another. Minutes are of one of these three trainings."
        ),
        show_tables.equal_tables(groups),
    )
    add(
        "single",
        "Single runs, one seed, rates set by hand",
        paragraph(
            "Run before there was equal effort. They stand beside one another, but decide nothing."
        ),
        show_tables.single_tables(groups, "surnn"),
    )
    add("cost", "Accuracy against time and updates", show_curves.pareto(groups))
    add("tuning", "How much tuning matters", show_curves.tuning(groups))
    add("curves", "Learning curves", show_curves.learning(groups))
    add("inside", "Inside trained models", show_curves.inside(groups))
    add(
        "missing",
        "What was not run",
        show_tables.coverage(groups),
        "<h3>At the published size</h3>",
        show_tables.unrun_sizes(groups),
        paragraph(
            f"<code>{text('python -m experiments.reproduce --suite=surnn --plan')}</code> says how "
            "long the rest takes."
        ),
    )
    add("doubts", "Doubts about the published figures", _doubts())
    add("sources", "Sources of the published figures", _sources())
    return html.page(
        "What holds of two papers on recurrent units", _lead(groups, found), contents, body
    )


def _lead(groups, found) -> str:
    records = sum(len(runs) for group in groups for runs in group.runs.values())
    equal = sum(group.protocol == EQUAL for group in groups)
    counts = {v: sum(claim.verdict is v for claim in found) for v in Verdict}
    words = ", ".join(f"<b>{n}</b> {html.badge(v)}" for v, n in counts.items())
    return "\n".join(
        [
            paragraph(
                f"{html.link('https://arxiv.org/abs/1412.3555', 'Chung et al. 2014')} compared "
                "gated recurrent units with tanh. "
                f"{html.link('https://arxiv.org/abs/2603.02226', 'Yin et al. 2026')} proposed "
                "selective-update RNNs, whose neurons keep their state bit for bit unless a "
                "learned switch opens. surnn_jax carries out both, and this page says what its "
                "records show."
            ),
            paragraph(f"Of nine claims: {words}."),
            paragraph(
                f"Made of {records} committed records in {len(groups)} groups of comparable runs, "
                f"{equal} of them with equal effort for every model, by <code>{COMMAND}</code>. "
                "Verdicts are computed, none is written by hand. Numbers link to their records.",
                "note",
            ),
        ]
    )


def _doubts() -> str:
    items = "".join(f"<li><b>{text(title)}.</b> {text(words)}</li>" for title, words in DOUBTS)
    return f"<ul>{items}</ul>"


def _sources() -> str:
    rows = [
        [
            f'<span id="source-{key}">{html.link(source.url, source.short)}</span>',
            text(source.checked),
        ]
        for key, source in SOURCES.items()
    ]
    return html.table(("source", "where it was checked"), rows, "left")
