"""The claims as HTML: a table of verdicts, then the evidence for each."""

from collections.abc import Sequence

from experiments.report import charts, html
from experiments.report.claims import Claim, Part
from experiments.report.html import text
from experiments.report.runs import EMPTY
from experiments.report.verdicts import LEAST, Compared, Kind, Overall, Verdict


def summary(claims: Sequence[Claim]) -> str:
    """The table of verdicts."""
    rows = [
        (
            str(claim.number),
            html.link(f"#claim-{claim.number}", claim.text) + f" <span class='small'>"
            f"({text(claim.origin)})</span>",
            html.badge(claim.verdict),
            "<br>".join(_counts(part, len(claim.parts) > 1) for part in claim.parts),
        )
        for claim in claims
    ]
    return html.table(("", "claim", "verdict", "on how many tasks"), rows, "claims")


def details(claim: Claim) -> str:
    """The evidence for a claim."""
    head = (
        f"<h3>{claim.number}. {text(claim.text)} {html.badge(claim.verdict)} "
        f'<span class="origin">{text(claim.origin)}</span></h3>'
    )
    parts = "\n".join(_part(part) for part in claim.parts)
    return f'<div class="claim" id="claim-{claim.number}">\n{head}\n{parts}\n</div>'


def _counts(part: Part, named: bool) -> str:
    counts = dict.fromkeys(Verdict, 0)
    for row in part.rows:
        if row.able:
            counts[row.verdict(part.kind)] += 1
    found = [f"{verdict.value} on {n}" for verdict, n in counts.items() if n]
    few = sum(len(row.gains) < LEAST for row in part.rows)
    if few:
        found.append(f"{few} with too few seeds")
    if aside := sum(not row.able for row in part.rows) - few:
        found.append(f"{aside} that may not decide")
    if part.missing:
        found.append(f"{len(part.missing)} not run")
    words = ", ".join(found) or "no records"
    return f"{text(part.title)}: {words}" if named else words


def _part(part: Part) -> str:
    lines = [f"<h4>{text(part.title)}</h4>"]
    if part.note:
        lines.append(html.paragraph(text(part.note), "note"))
    if part.rows:
        reach = {}
        for row in part.rows:
            found = row.estimate
            ends = (abs(found.low), abs(found.high), 2 * row.margin)
            reach[row.unit] = max(reach.get(row.unit, 0.0), *ends)
        rows = [_row(part.kind, row, reach[row.unit]) for row in part.rows]
        head = ("task", *map(text, part.names), "gain [95 %]", "", "n", "verdict")
        lines.append(html.table(head, rows))
    lines.append(html.paragraph(_whole(part.overall)))
    if part.missing:
        lines.append(
            html.paragraph(f"Not run with equal effort: {text('; '.join(part.missing))}.", "note")
        )
    return "\n".join(lines)


def _row(kind: Kind, row: Compared, reach: float) -> list[str]:
    verdict = row.verdict(kind)
    found = row.estimate
    task = html.link(row.link, row.task) if row.link else text(row.task)
    note = f'<br><span class="small">{text(row.note)}</span>' if row.note else ""
    return [
        task + note,
        *(EMPTY if value is None else html.number(value) for value in (row.first, row.second)),
        html.gain(found, row.unit),
        charts.bar(found, row.margin, reach, f"row-{verdict.name.lower()}"),
        str(row.n or len(row.gains)),
        html.badge(verdict),
    ]


def _whole(found: Overall) -> str:
    if not found.tasks:
        return f"Over all: {html.badge(found.verdict)} no task has {LEAST} seeds of both."
    count = f"{found.share * found.tasks:.0f} of {found.tasks} task{'s' * (found.tasks > 1)}"
    span = f"{100 * found.share:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"
    few = f"; fewer than {LEAST} tasks decide nothing" if found.tasks < LEAST else ""
    return (
        f"Over all: {html.badge(found.verdict)} the mean is on the side of the claim on {count}, "
        f'<span class="ci">{span}</span>{few}.'
    )


RULES = f"""\
<p>A claim has one or more parts, and holds if all of them do. A part compares two models on every
task for which the records have both. The gain is the difference of the test figures, seed by seed,
positive if the first model is better; its 95 % interval is a bootstrap over seeds (10,000
resamples, percentiles), drawn on a square-root scale. The shaded band is what does not matter: 0.05
nats a frame or step, 1 point of accuracy, 0.02 nats a word, a fifth of a mean squared error, a
tenth of the time. <i>Better</i> holds if the interval lies above 0, and does not if it contains 0
or less and ends before the upper end of the band. <i>At least as good</i> holds if it lies above
the lower end of the band, and does not if it lies below. <i>Alike</i> holds if it lies within the
band, and does not if it leaves out 0 and the mean lies beyond. Fewer than {LEAST} seeds decide
nothing on a task.</p>
<p>Over all tasks, the share of tasks on the side of the claim is resampled: tasks first, then seeds
within them. A part holds if the interval of that share lies above one half, does not if it lies
below, and is undecided otherwise, or with fewer than {LEAST} tasks. Three seeds are weak evidence:
their interval is their range, and leaves out 0 by chance once in four. No record has the outcome
of single test examples, so nothing is paired over examples. With so many comparisons, some of the
words below are wrong.</p>"""
