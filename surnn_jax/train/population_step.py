"""The pure functions that are compiled for a population.

One compiled program a batch shape takes every member through a step; it serves all rates, and
members that are over. On a GPU or TPU it computes the members side by side (`jax.vmap`). On a CPU
it computes the members that are not over one after another, in place: there the kernels are bound
by arithmetic, and a member that is over costs nothing, while `vmap` computes all of them to the
end. Measured on two cores against a Python loop over ten members: GRU(46) by the compiled kernel on
JSB Chorales took 0.7 of the time by `vmap` and 0.9 by `jax.lax.map`, but the selective GRU with
reset before the product, on Nottingham, took 3 times as long by `vmap` and 0.9 by `map`. `map`
copies members that are over, which shows in larger ones: when one of four GRU(227) of speech is
left, its step took 14 to 17 ms in place, as if it were alone, and 24 by `map`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.train.optimizers import OptimizerConfig, make
from surnn_jax.train.state import TrainState
from surnn_jax.train.step import evaluate, init_memory, update_if_finite
from surnn_jax.train.task import Metrics, Task
from surnn_jax.typing import Array, Params


class PopulationState(NamedTuple):
    """All members on the device.

    Attributes:
        states: the state of every member, ``[K, ...]`` a leaf; the last finite one if it is over.
        active: booleans ``[K]``: which members still train.
        skipped: int32 ``[K]``, steps skipped because a number was not finite.
    """

    states: TrainState
    active: Array
    skipped: Array


@functools.partial(
    jax.jit,
    static_argnames=("task", "optimizer", "max_skips", "vectorized"),
    donate_argnames=("population",),
)
def train_step_all(
    task: Task,
    optimizer: OptimizerConfig,
    rates: tuple[Array, Array],
    keys: Array,
    population: PopulationState,
    batch: Any,
    max_skips: int,
    vectorized: bool,
) -> PopulationState:
    """One update of every active member.

    Args:
        task: the model and its loss.
        optimizer: the update rule without its rates.
        rates: learning rates and weight decays, ``[K]`` each.
        keys: the members' keys ``[K]``.
        population: donated.
        batch: the input of `Task.loss`.
        max_skips: steps that a member may skip.
        vectorized: whether to compute the members side by side instead of one after another.

    Returns:
        The next population. A member whose loss, gradient or next state is not finite keeps its
        state, and becomes inactive after more than `max_skips` such steps.
    """

    def step_one(inputs, member):
        rate, decay, key = inputs
        rule = make(optimizer, rate, decay)
        following, _, finite = update_if_finite(task, rule, key, member.states, batch)
        skipped = member.skipped + (~finite).astype(member.skipped.dtype)
        return PopulationState(following, skipped <= max_skips, skipped)

    return _map_active(step_one, population.active, (*rates, keys), population, vectorized)


@functools.partial(jax.jit, static_argnames=("task", "vectorized"))
def evaluate_all(
    task: Task, params: Params, active: Array, batch: Any, memory: Any, vectorized: bool
) -> tuple[Metrics, Any]:
    """Metrics of one batch, ``[K]`` each and 0 for inactive members, and the memories."""

    def evaluate_one(inputs, _):
        params, memory = inputs
        return evaluate(task, params, batch, memory)

    inputs = params, memory
    shapes = jax.eval_shape(jax.vmap(functools.partial(evaluate_one, _=None)), inputs)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return _map_active(evaluate_one, active, inputs, zeros, vectorized)


def _map_active(
    function: Callable, active: Array, inputs: Any, values: Any, vectorized: bool
) -> Any:
    """`values`, replaced by ``function(input, value)`` for every active member."""
    if vectorized:
        return _select(active, jax.vmap(function)(inputs, values), values)
    order = jnp.argsort(~active)

    def body(number, values):
        member = order[number]
        own = jax.tree.map(lambda leaf: leaf[member], (inputs, values))
        return jax.tree.map(lambda leaf, new: leaf.at[member].set(new), values, function(*own))

    return jax.lax.fori_loop(0, active.sum(), body, values)


@functools.partial(jax.jit, donate_argnames=("best",))
def update_best(best: Params, params: Params, better: Array) -> Params:
    """The best parameters so far: the current ones for the members that are `better`."""
    return _select(better, params, best)


def _select(mask: Array, new: Any, old: Any) -> Any:
    """Member by member, `new` where the mask ``[K]`` is true, else `old`."""

    def select(new, old):
        return jnp.where(mask.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(select, new, old)


@functools.partial(jax.jit, static_argnames=("task",))
def init_memory_all(task: Task, params: Params, batch: Any) -> Any:
    """The memory of every member before an evaluation's first batch, see `Task.memory`."""
    return jax.vmap(lambda member: init_memory(task, member, batch))(params)
