"""Nine claims of the two papers, each with what the committed records say of it.

A claim has parts, and a part compares two models on every task that has both. Nothing here is
decided by hand: the models of a part are named, and the records do the rest.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.report import costs, evidence
from experiments.report.evidence import EQUAL, LONG, SINGLE, Group, Model
from experiments.report.suites import SUITES
from experiments.report.verdicts import Compared, Kind, Overall, Verdict, joint, overall

RHYTHM, FROZEN, SOFT = ("sugru", "fourier"), ("sugru", "fourier-frozen"), ("sugru", "fourier-soft")
EVENT, EVENT_FROZEN = ("sugru", "event"), ("sugru", "event-frozen")
GRU, TRANSFORMER = ("gru", "none"), ("attention", "none")
TANH, GRU_BEFORE, LSTM = ("tanh", "none"), ("gru_before", "none"), ("lstm_peephole", "none")

VISIBLE = ("selective_copy", "adding")
"""Data sets in which the input shows where something happens."""

RARE = 10
"""Per cent: the most updates of a model of which it is said that it opens rarely."""


BY_ROUNDS = (
    "Benchmark lines. The gain is the least between neighbouring rates, with the quartiles of the "
    "rounds in place of seeds."
)


NO_MODELS = "None are committed yet: python -m benchmarks.models, on a machine that is idle."


class Part(NamedTuple):
    """One comparison of a claim.

    Attributes:
        title: what is compared.
        kind: what is claimed.
        names: of the two sides.
        rows: the tasks, those with equal effort first.
        missing: titles of the tasks that are planned and have no records.
        overall: over all tasks.
        note: what the rows are, or why some are left out.
    """

    title: str
    kind: Kind
    names: tuple[str, str]
    rows: list[Compared]
    missing: list[str]
    overall: Overall
    note: str = ""


class Claim(NamedTuple):
    """A claim and its parts.

    Attributes:
        number: 1 to 9.
        text: the claim.
        origin: who makes it.
        parts: comparisons that must all hold.
    """

    number: int
    text: str
    origin: str
    parts: list[Part]

    @property
    def verdict(self) -> Verdict:
        """It holds if every part does, and does not if one part does not."""
        return joint([part.overall.verdict for part in self.parts])


def claims(groups: Sequence[Group]) -> list[Claim]:
    """The nine claims.

    Args:
        groups: of :func:`evidence.groups`.
    """
    chung, surnn = "Chung et al. 2014", "the suRNN paper"
    as_paper = evidence.most_draws([g for g in groups if g.protocol == "chung"])
    equal = evidence.most_draws([g for g in groups if g.protocol == "controlled"])
    gated = ("Mean of GRU and LSTM against tanh", ("GRU, LSTM", "tanh"))
    units = ("GRU against LSTM", ("GRU", "LSTM"))
    rates = ("lowest rate, ms", "highest rate, ms")
    return [
        Claim(
            1,
            "Gated units are better than tanh",
            chung,
            [_of_units(*gated, Kind.BEATS, as_paper, (GRU_BEFORE, LSTM), (TANH,))],
        ),
        Claim(
            2,
            "GRU and LSTM are alike",
            chung,
            [_of_units(*units, Kind.ALIKE, as_paper, (GRU_BEFORE,), (LSTM,))],
        ),
        Claim(
            3,
            "Both are so if every unit is tuned with the same effort by a modern recipe",
            "a referee's question",
            [
                _of_units(*gated, Kind.BEATS, equal, (GRU_BEFORE, LSTM), (TANH,)),
                _of_units(*units, Kind.ALIKE, equal, (GRU_BEFORE,), (LSTM,)),
            ],
        ),
        Claim(
            4,
            "A binary gate is better than a soft one",
            surnn,
            [_of_surnn("Binary against soft rhythm", Kind.BEATS, groups, RHYTHM, SOFT)],
        ),
        Claim(
            5,
            "A learned switch is better than a frozen one",
            surnn,
            [
                _of_surnn("Learned against frozen rhythm", Kind.BEATS, groups, RHYTHM, FROZEN),
                _of_surnn(
                    "Events: learned against frozen", Kind.BEATS, groups, EVENT, EVENT_FROZEN
                ),
            ],
        ),
        Claim(
            6,
            "On long sequences the suGRU is at least as good as the GRU",
            surnn,
            [
                _of_surnn(
                    f"suGRU by rhythm against GRU, {LONG} steps or more",
                    Kind.AT_LEAST,
                    groups,
                    RHYTHM,
                    GRU,
                    lambda group: group.steps >= LONG,
                )
            ],
        ),
        Claim(
            7,
            "The suGRU is at least as good as the Transformer",
            surnn,
            [
                _of_surnn(
                    "suGRU by rhythm against Transformer",
                    Kind.AT_LEAST,
                    groups,
                    RHYTHM,
                    TRANSFORMER,
                )
            ],
        ),
        Claim(
            8,
            "The cost falls with the update rate",
            surnn,
            [
                _part(
                    "A layer's training step, neighbouring rates against one another",
                    rates,
                    Kind.BEATS,
                    costs.layers(),
                    note=BY_ROUNDS,
                ),
                _part(
                    "A whole model's training step, neighbouring rates against one another",
                    rates,
                    Kind.BEATS,
                    costs.models(),
                    note=BY_ROUNDS + ("" if costs.models() else f" {NO_MODELS}"),
                ),
                *_timed(groups),
            ],
        ),
        Claim(
            9,
            "Switches open at informative events, and at few updates events are at least as good "
            "as a rhythm and as a dense GRU where events can be seen",
            surnn,
            [
                _part(
                    "Open switches at events against elsewhere",
                    ("at events, %", "elsewhere, %"),
                    Kind.BEATS,
                    costs.openings(groups, EVENT),
                    note="The gain is the ratio of the two rates, mean over layers.",
                ),
                _rare("Events against rhythm", groups, RHYTHM),
                _rare("Events against GRU", groups, GRU),
            ],
        ),
    ]


def _part(
    title: str,
    names: tuple[str, str],
    kind: Kind,
    rows: Sequence[Compared],
    missing: Sequence[str] = (),
    note: str = "",
) -> Part:
    rows = _once(rows)
    return Part(title, kind, names, rows, list(missing), overall(kind, rows), note)


def _once(rows: Sequence[Compared]) -> list[Compared]:
    """Lets a task that was run with several budgets decide by the largest alone."""
    largest = {row.task: row for row in sorted(rows, key=lambda row: row.updates) if row.able}
    note = "a smaller budget of the same task"
    return [
        row._replace(note=f"{row.note}, {note}" if row.note else note, decides=False)
        if row.able and row is not largest[row.task]
        else row
        for row in rows
    ]


def _of_units(
    title: str,
    names: tuple[str, str],
    kind: Kind,
    groups: Sequence[Group],
    first: Sequence[Model],
    second: Sequence[Model],
) -> Part:
    """A part over the searches of one protocol."""
    found = [group.compare(first, second) for group in groups]
    searched = {group.dataset for group in groups}
    missing = [] if searched else ["every data set of music and speech"]
    return _part(title, names, kind, [row for row in found if row], missing)


def _of_surnn(
    title: str,
    kind: Kind,
    groups: Sequence[Group],
    first: Model,
    second: Model,
    wanted: Callable[[Group], bool] = lambda group: True,
) -> Part:
    """A part over the tasks of the suRNN paper: equal effort first, then single runs."""
    rows, done = [], set()
    for protocol in (EQUAL, SINGLE):
        for group in groups:
            if group.suite != "surnn" or group.protocol != protocol or not wanted(group):
                continue
            row = group.compare([first], [second])
            if row is not None:
                if protocol == EQUAL:
                    done.add(group.dataset)
                else:
                    seeds = "one seed" if len(row.gains) == 1 else f"{len(row.gains)} seeds"
                    row = row._replace(note=f"{seeds}, not tuned alike", decides=False)
                rows.append(row)
    planned = evidence.planned([_NAMES[first]], [_NAMES[second]])
    titles = SUITES["surnn"].datasets
    missing = []
    for entry in planned:
        config = entry.config("cpu")
        asked = Group("surnn", config.dataset, "", EQUAL, "", _longest(config), {}, ())
        if config.dataset not in done and wanted(asked):
            missing.append(titles[config.dataset])
    return _part(title, (_SHOWN[first], _SHOWN[second]), kind, rows, missing)


def _longest(config) -> int:
    cut = [config.steps, config.longest, evidence.LENGTHS.get(config.dataset, 0)]
    if config.dataset.startswith("wikitext"):
        return 0
    return min((steps for steps in cut if steps), default=0)


_NAMES = {
    RHYTHM: "sugru",
    FROZEN: "sugru-frozen",
    SOFT: "sugru-soft",
    EVENT: "sugru-event",
    EVENT_FROZEN: "sugru-event-frozen",
    GRU: "gru",
    TRANSFORMER: "transformer",
}
"""Model -> its name in the matrix of the reproduction."""


_SHOWN = {
    RHYTHM: "rhythm",
    FROZEN: "frozen",
    SOFT: "soft",
    EVENT: "events",
    EVENT_FROZEN: "frozen",
    GRU: "GRU",
    TRANSFORMER: "Transformer",
}
"""Model -> its name over a column."""


def _rare(title: str, groups: Sequence[Group], other: Model) -> Part:
    """Events against another model, where events show and the switch opens rarely."""

    def wanted(group: Group) -> bool:
        if group.dataset not in VISIBLE:
            return False
        return EVENT not in group.runs or round(100 * group.rate(EVENT)) <= RARE

    part = _of_surnn(title, Kind.AT_LEAST, groups, EVENT, other, wanted)
    left = [
        group.short
        for group in groups
        if group.suite == "surnn" and group.dataset in VISIBLE and EVENT in group.runs
        if not wanted(group)
    ]
    note = f"Tasks that mark their events, at most {RARE} % of the updates."
    if left:
        note += f" Opens more often, and is left out: {'; '.join(left)}."
    return part._replace(note=note)


def _timed(groups: Sequence[Group]) -> list[Part]:
    """The time of a training step in the committed runs, against the GRU of the same task."""
    rows = []
    for protocol in (EQUAL, SINGLE):
        for group in groups:
            if group.suite == "surnn" and group.protocol == protocol:
                rows += costs.runs(group, {"rhythm": RHYTHM, "events": EVENT}, GRU)
    note = "One core each, other work beside some of them."
    title = "A training step of the committed runs, suGRU against GRU"
    names = ("suGRU, ms", "GRU, ms")
    return [_part(title, names, Kind.BEATS, rows, note=note)]
