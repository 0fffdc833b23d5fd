"""Metrics of a whole split: their sums, their means, and scoring parameters again."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from surnn_jax.train.sharding import ShardingPlan
from surnn_jax.train.task import Task
from surnn_jax.typing import Params


def score(task: Task, params: Params, batches: Iterable[Any]) -> dict[str, float]:
    """The means of `Task.evaluate` over all batches, in their order.

    Raises:
        FloatingPointError: a mean that is not finite.
        ValueError: no batch, or a metric whose weights sum to 0.

    Examples:
        >>> from surnn_jax import train
        >>> def error(params, batch):
        ...     return jnp.square(params["w"] - batch)
        >>> task = train.Task(
        ...     init=lambda key, batch: {"w": jnp.zeros(())},
        ...     loss=lambda params, batch, key: (error(params, batch), {}),
        ...     evaluate=lambda params, batch: {"mse": (error(params, batch), jnp.ones(()))},
        ... )
        >>> train.score(task, {"w": jnp.ones(())}, [jnp.array(3.0), jnp.array(2.0)])
        {'mse': 2.5}
    """
    totals = evaluate_batches(task, params, batches, ShardingPlan(None, ()), lambda: False)
    if not totals:
        raise ValueError("there is no batch to score")
    return means(totals)


def evaluate_batches(
    task: Task,
    params: Params,
    batches: Iterable[Any],
    plan: ShardingPlan,
    should_stop: Callable[[], bool],
) -> dict[str, tuple[float, float]] | None:
    """Totals and weights over all batches; None if `should_stop`, asked at each batch, says so."""
    totals, pending, memory = {}, {}, None
    for number, batch in enumerate(batches):
        batch = plan.shard_batch(batch)
        if number == 0:
            memory = plan.compiled.init_memory(task, params, batch)
        metrics, memory = plan.compiled.evaluate(task, params, batch, memory)
        # Reads the metrics of the batch before, so that the device never waits for the host.
        totals, pending = add(totals, pending), metrics
        if should_stop():
            return None
    return add(totals, pending)


def add(totals: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """`totals` plus the (total, weight) pairs of one batch, in float64 on the host."""
    sums = {name: (float(total), float(weight)) for name, (total, weight) in totals.items()}
    for name, (total, weight) in jax.device_get(metrics).items():
        before = sums.get(name, (0.0, 0.0))
        sums[name] = (before[0] + float(total), before[1] + float(weight))
    return sums


def means(totals: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Total over weight of every metric.

    Raises:
        ValueError: a weight of zero, which has no mean.
        FloatingPointError: a mean that is not finite.
    """
    values = {}
    for name, (total, weight) in totals.items():
        if weight == 0:
            raise ValueError(f"metric {prefix}{name}: the weights sum to 0, so it has no mean")
        values[prefix + name] = total / weight
        if not math.isfinite(values[prefix + name]):
            raise FloatingPointError(f"metric {prefix}{name} is {values[prefix + name]}")
    return values
