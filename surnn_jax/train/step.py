"""The pure functions that are compiled: the first state, a step, and two helpers.

The task and the optimizer are static, so runs of one process share what is compiled for them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from surnn_jax.train.state import TrainState
from surnn_jax.train.task import Metrics, Task
from surnn_jax.typing import Array, Params


@functools.partial(jax.jit, static_argnames=("task", "optimizer"))
def init_state(
    task: Task, optimizer: optax.GradientTransformation, key: Array, batch: Any
) -> TrainState:
    """The state before the first step."""
    params = task.init(key, batch)
    memory = () if task.memory is None else task.memory(params, batch)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), memory)


def update(
    task: Task,
    optimizer: optax.GradientTransformation,
    key: Array,
    state: TrainState,
    batch: Any,
) -> tuple[TrainState, Metrics]:
    """One update.

    Args:
        task: what is trained.
        optimizer: how.
        key: the run's key; the loss gets it folded with the step, so that nothing random has to
            be carried or saved.
        state: as :func:`init_state` or the step before gives it.
        batch: whatever `Task.loss` reads.

    Returns:
        The next state and the metrics of this step: the task's own, and ``loss`` and
        ``grad_norm`` (before any clipping), each with weight 1.
    """
    key = jax.random.fold_in(key, state.step)

    def loss(params):
        if task.memory is None:
            value, metrics = task.loss(params, batch, key)
            return value, (metrics, state.memory)
        return task.loss(params, batch, key, state.memory)

    (loss, (metrics, memory)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    if taken := metrics.keys() & {"loss", "grad_norm"}:
        raise ValueError(f"Task.loss: the metric names {sorted(taken)} are the trainer's own")
    # Optax mixes its int32 step count with floats, which strict promotion would refuse.
    with jax.numpy_dtype_promotion("standard"):
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
    one = jnp.ones((), jnp.float32)
    metrics = {
        "loss": (loss.astype(jnp.float32), one),
        "grad_norm": (norm.astype(jnp.float32), one),
        **metrics,
    }
    return TrainState(state.step + 1, params, opt_state, memory), metrics


def update_if_finite(
    task: Task,
    optimizer: optax.GradientTransformation,
    key: Array,
    state: TrainState,
    batch: Any,
) -> tuple[TrainState, Metrics, Array]:
    """:func:`update`, but a step that goes wrong leaves all but the count of steps as it was.

    Returns:
        The next state, the metrics, and whether loss, gradient and next state are finite.
    """
    following, metrics = update(task, optimizer, key, state, batch)
    good = is_finite((metrics["loss"][0], metrics["grad_norm"][0], following))
    kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), following, state)
    return kept._replace(step=state.step + 1), metrics, good


@functools.partial(
    jax.jit, static_argnames=("task", "optimizer", "tolerant"), donate_argnames=("state",)
)
def train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    key: Array,
    state: TrainState,
    batch: Any,
    tolerant: bool = False,
) -> tuple[TrainState, Metrics]:
    """:func:`update`, compiled; the state is used up: the next one takes its memory.

    Args:
        tolerant: a step whose loss, gradient or next state is not finite leaves all but the
            count of steps as it was; of its metrics ``loss`` and ``grad_norm`` tell it, with
            weight 0, and the others are 0.
    """
    if not tolerant:
        return update(task, optimizer, key, state, batch)
    following, told, good = update_if_finite(task, optimizer, key, state, batch)
    metrics = jax.tree.map(lambda leaf: jnp.where(good, leaf, 0), told)
    metrics |= {name: (told[name][0], metrics[name][1]) for name in ("loss", "grad_norm")}
    return following, metrics


@functools.partial(jax.jit, static_argnames=("task",))
def begin(task: Task, params: Params, batch: Any) -> Any:
    """What an evaluation begins with, see `Task.memory`; empty where the task has none."""
    return () if task.memory is None else task.memory(params, batch)


@functools.partial(jax.jit, static_argnames=("task",))
def evaluate(task: Task, params: Params, batch: Any, memory: Any) -> tuple[Metrics, Any]:
    """The metrics of one batch, and the memory for the next."""
    if task.memory is None:
        return task.evaluate(params, batch), memory
    return task.evaluate(params, batch, memory)


@jax.jit
def copy(tree: Any) -> Any:
    """The same arrays in memory of their own, for what outlives a donated state."""
    return jax.tree.map(jnp.copy, tree)


@jax.jit
def is_finite(tree: Any) -> Array:
    """Whether every number of a tree is finite."""
    # Random keys, which an optimizer may keep, are always.
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.number)]
    leaves = [jnp.isfinite(leaf).all() for leaf in leaves]
    return functools.reduce(jnp.logical_and, leaves, jnp.array(True))
