"""One point of a sweep: sizes, a schedule, a rate. Imports nothing slow."""

import dataclasses

SCHEDULES = ("neuron", "group", "event")
"""One rhythm a neuron; one for the layer; an update mask for each example, made from the input. A
whole number is that many rhythms, each for a block of neurons."""

SWITCHES = ("frozen", "learned", "share")
"""No gradient for the switch; a gradient from all rows of the batch; from an eighth of them."""

BACKENDS = ("native", "rows", "compact", "masked")
"""Those for a CPU."""


def groups(schedule: str) -> int | None:
    """How many rhythms the neurons share; None where each has its own."""
    return 1 if schedule == "group" else int(schedule) if schedule.isdecimal() else None


@dataclasses.dataclass(frozen=True)
class Case:
    """A point of a sweep.

    Attributes:
        features: H.
        batch: B.
        steps: T.
        inputs: D.
        schedule: one of :data:`SCHEDULES` or a number, or None for a unit without a switch.
        asked: the share of open switches asked for, above 0 and up to 1.
        cell: name of the cell.
        seed: of everything random.
    """

    features: int
    batch: int
    steps: int
    inputs: int
    schedule: str | None = None
    asked: float = 1.0
    cell: str = "gru"
    seed: int = 0
