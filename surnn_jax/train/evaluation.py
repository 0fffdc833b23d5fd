"""Metrics of a whole split, for the trainer and for whoever scores its parameters again."""

from collections.abc import Callable, Iterable
from typing import Any

from surnn_jax.train import files
from surnn_jax.train.sharding import ShardingPlan
from surnn_jax.train.task import Task
from surnn_jax.typing import Params


def score(task: Task, params: Params, batches: Iterable[Any]) -> dict[str, float]:
    """The means of `Task.evaluate` over all batches, in their order.

    Raises:
        FloatingPointError: a mean that is not finite.
        ValueError: no batch, or a metric whose weights sum to 0.
    """
    totals = totals_of(task, params, batches, ShardingPlan(None, ()), lambda: False)
    if not totals:
        raise ValueError("there is no batch to score")
    return files.means(totals)


def totals_of(
    task: Task,
    params: Params,
    batches: Iterable[Any],
    layout: ShardingPlan,
    stopped: Callable[[], bool],
) -> dict[str, tuple[float, float]] | None:
    """Totals and weights over all batches; None if it was stopped, which it asks at each."""
    totals, pending, memory = {}, {}, None
    for number, batch in enumerate(batches):
        batch = layout.batch(batch)
        if number == 0:
            memory = layout.programs.begin(task, params, batch)
        measured, memory = layout.programs.evaluate(task, params, batch, memory)
        # Those of the batch before: the device never waits for us.
        totals, pending = files.add(totals, pending), measured
        if stopped():
            return None
    return files.add(totals, pending)
