"""Equal effort: every model of a task gets the same draws, the same budget, the same seeds.

Four draws of learning rate and weight decay are trained on an eighth of the budget. The better two
go on to a quarter of it, each from its start. The best on the validation split is trained on the
whole budget with three seeds. No model has a rate that another one could not have drawn.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 4
SEEDS = (0, 1, 2)

SPACE = {"learning_rate": (5e-4, 2e-2), "weight_decay": (1e-4, 1e-1)}
"""Hyper-parameter -> (least, most), drawn log-uniformly; AdamW with a cosine schedule for all."""

ROUNDS = ((8, DRAWS), (4, DRAWS // 2))
"""(divisor of the budget, how many draws are trained on it), in order."""


class Draw(NamedTuple):
    """One point of :data:`SPACE`."""

    number: int
    learning_rate: float
    weight_decay: float


def draws(task: str, count: int = DRAWS) -> list[Draw]:
    """The draws of a task, the same for all its models.

    They are stratified: each hyper-parameter takes one value from each of `count` parts of its
    range that are equally wide in the logarithm, so that four draws cannot all lie at one end.
    """
    random = np.random.Generator(np.random.PCG64([zlib.crc32(task.encode()), count]))
    columns = {}
    for name, (least, most) in SPACE.items():
        share = (random.permutation(count) + random.uniform(size=count)) / count
        columns[name] = [
            float(f"{math.exp(math.log(least) + s * math.log(most / least)):.3g}") for s in share
        ]
    return [
        Draw(number, *values) for number, values in enumerate(zip(*columns.values(), strict=True))
    ]


def best(figures: Mapping[int, float], count: int = 1) -> list[int]:
    """The draws with the lowest validation figures, the best first; a tie goes to the first drawn.

    Args:
        figures: draw -> its figure; infinite if it diverged.
        count: how many to return.

    Raises:
        ValueError: every draw diverged.
    """
    able = [number for number, value in figures.items() if math.isfinite(value)]
    if not able:
        raise ValueError("every draw diverged")
    return sorted(able, key=lambda number: (figures[number], number))[:count]


def budget(full: tuple[int, int], divisor: int) -> tuple[int, int]:
    """Training examples an epoch and epochs of a part of the budget: epochs go first.

    Args:
        full: (examples an epoch, epochs) of the whole budget.
        divisor: what part of it: 4 is a quarter.
    """
    examples, epochs = full
    kept = max(1, epochs // divisor)
    rest = divisor * kept / epochs
    return max(1, math.ceil(examples / rest)), kept


def summary(drawn: Sequence[Draw], rounds: Sequence[Mapping[int, float]], chosen: int) -> dict:
    """What the record of a winner says of its search; a draw that diverged has the figure None."""
    return {
        "protocol": "equal",
        "budget": len(drawn),
        "draw": chosen,
        "draws": [draw._asdict() for draw in drawn],
        "rounds": [
            {str(number): value if math.isfinite(value) else None for number, value in one.items()}
            for one in rounds
        ],
    }
