"""The pure functions that are compiled: the first state, a step, an evaluation, and helpers.

The task and the optimizer are static arguments, so runs of one process share compiled programs.
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
        task: the model and its loss.
        optimizer: the update rule.
        key: the run's key; the loss gets it folded with the step, so that no random state has to
            be carried or saved.
        state: from :func:`init_state` or the previous step.
        batch: the input of `Task.loss`.

    Returns:
        The next state and the metrics of this step: the task's own, and ``loss`` and
        ``grad_norm`` (before any clipping), each with weight 1.

    Raises:
        ValueError: the task uses one of these two names.
    """
    key = jax.random.fold_in(key, state.step)

    def loss(params):
        if task.memory is None:
            value, metrics = task.loss(params, batch, key)
            return value, (metrics, state.memory)
        return task.loss(params, batch, key, state.memory)

    (loss, (metrics, memory)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    if reserved := metrics.keys() & {"loss", "grad_norm"}:
        raise ValueError(f"Task.loss: the metric names {sorted(reserved)} are the trainer's own")
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
    """:func:`update`, but a step with a non-finite number changes nothing but the step count.

    Returns:
        The next state, the metrics, and whether loss, gradient and next state are finite.
    """
    updated, metrics = update(task, optimizer, key, state, batch)
    finite = is_finite((metrics["loss"][0], metrics["grad_norm"][0], updated))
    following = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
    return following._replace(step=state.step + 1), metrics, finite


@functools.partial(
    jax.jit, static_argnames=("task", "optimizer", "may_skip"), donate_argnames=("state",)
)
def train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    key: Array,
    state: TrainState,
    batch: Any,
    may_skip: bool = False,
) -> tuple[TrainState, Metrics]:
    """:func:`update`, compiled; donates the state, whose memory the next one takes.

    Args:
        task: see :func:`update`, as for the next four.
        optimizer: static.
        key: the run's key.
        state: donated.
        batch: the input of `Task.loss`.
        may_skip: whether a step with a non-finite loss, gradient or next state changes nothing but
            the step count. Its metrics are 0, weights included, except for the values of ``loss``
            and ``grad_norm``, which show that it was skipped.
    """
    if not may_skip:
        return update(task, optimizer, key, state, batch)
    following, measured, finite = update_if_finite(task, optimizer, key, state, batch)
    metrics = jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0), measured)
    metrics |= {name: (measured[name][0], metrics[name][1]) for name in ("loss", "grad_norm")}
    return following, metrics


@functools.partial(jax.jit, static_argnames=("task",))
def init_memory(task: Task, params: Params, batch: Any) -> Any:
    """The memory before an evaluation's first batch, see `Task.memory`; empty without one."""
    return () if task.memory is None else task.memory(params, batch)


@functools.partial(jax.jit, static_argnames=("task",))
def evaluate(task: Task, params: Params, batch: Any, memory: Any) -> tuple[Metrics, Any]:
    """The metrics of one batch, and the memory for the next."""
    if task.memory is None:
        return task.evaluate(params, batch), memory
    return task.evaluate(params, batch, memory)


@jax.jit
def copy(tree: Any) -> Any:
    """A copy of all arrays, which outlives a donated state."""
    return jax.tree.map(jnp.copy, tree)


@jax.jit
def is_finite(tree: Any) -> Array:
    """Whether every number of a tree is finite."""
    # Skips random keys, which an optimizer may keep.
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.number)]
    leaves = [jnp.isfinite(leaf).all() for leaf in leaves]
    return functools.reduce(jnp.logical_and, leaves, jnp.array(True))
