"""Where the arrays of a run live: on one device, or sharded over a mesh.

The batch is sharded over the axis ``data``. Parameters are replicated, except that the last axis of
large ones is sharded over ``model``. XLA does the rest: a program means the same on one device and
on many, and a sum over the batch is a sum over all of it. Recurrent layers run each device's rows
on that device (:mod:`surnn_jax.scan.sharding`).
"""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from surnn_jax.scan.sharding import DATA
from surnn_jax.train import step
from surnn_jax.train.state import TrainState
from surnn_jax.typing import Params

MODEL = "model"
"""The axis of a mesh over which large parameters are sharded."""

# Fewest elements of a parameter that is worth sharding.
_LARGE = 2**16


def make_mesh(text: str) -> jax.sharding.Mesh:
    """A mesh of all devices from its axes, such as ``data:4`` or ``data:4,model:2``.

    Raises:
        ValueError: not of this form, or sizes whose product is not the number of devices.

    Examples:
        >>> from surnn_jax import train
        >>> train.make_mesh(f"data:{jax.device_count()}").axis_names
        ('data', 'model')
    """
    sizes = {DATA: 1, MODEL: 1}
    for part in text.split(","):
        name, _, size = part.strip().partition(":")
        if name not in sizes or not size.isdecimal() or int(size) < 1:
            raise ValueError(f"mesh: {part.strip()!r} is not {DATA}:N or {MODEL}:N, N at least 1")
        sizes[name] = int(size)
    count = math.prod(sizes.values())
    if count != jax.device_count():
        raise ValueError(f"mesh {text} takes {count} devices, and there are {jax.device_count()}")
    auto = (jax.sharding.AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=auto)


def check_rows(mesh: jax.sharding.Mesh, rows: int) -> None:
    """Checks that batches of so many rows divide over the devices.

    Raises:
        ValueError: they do not; with both numbers.
    """
    if rows % mesh.shape[DATA]:
        raise ValueError(
            f"mesh: a batch of {rows} rows does not divide over {DATA}:{mesh.shape[DATA]}"
        )


class CompiledSteps(NamedTuple):
    """The compiled functions of :mod:`.step` that a run needs, with the same arguments."""

    init_state: Callable
    train_step: Callable
    init_memory: Callable
    evaluate: Callable


_ONE_DEVICE = CompiledSteps(step.init_state, step.train_step, step.init_memory, step.evaluate)


class ShardingPlan:
    """Where the arrays of one run live.

    Attributes:
        mesh: the devices; None for the first device alone.
        compiled: the step functions for these devices.
        local_rows: ``(slice,)`` of the rows of a batch that this process holds, passed to
            ``batches``; ``()`` if it holds them all.
    """

    def __init__(self, mesh: jax.sharding.Mesh | None, batch: Any):
        """Reads the number of rows off a batch of the run.

        Raises:
            ValueError: a batch that does not divide over the devices.
        """
        self.mesh, self.compiled, self.local_rows = mesh, _ONE_DEVICE, ()
        if mesh is None:
            return
        rows = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(batch)}
        if len(rows) != 1:
            raise ValueError(
                f"mesh: all arrays of a batch must have the same number of rows, got {sorted(rows)}"
            )
        self._rows = rows.pop()
        check_rows(mesh, self._rows)
        self.compiled = _compiled_steps(mesh, self._rows)
        self._batch_sharding = jax.NamedSharding(mesh, jax.P(DATA))
        if jax.process_count() > 1:
            self.local_rows = (_local_rows(self._batch_sharding, self._rows),)

    def context(self) -> Any:
        """A context manager to compile and run in."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def replicate(self, make: Callable[[], Any]) -> Any:
        """The result of a function without arguments, whole on every device."""
        if self.mesh is None:
            return make()
        return jax.jit(make, out_shardings=jax.NamedSharding(self.mesh, jax.P()))()

    def take_local(self, batch: Any) -> Any:
        """The rows :attr:`local_rows` of a whole batch."""
        return (
            jax.tree.map(lambda leaf: leaf[self.local_rows[0]], batch) if self.local_rows else batch
        )

    def shard_batch(self, batch: Any) -> Any:
        """A batch on its devices, from its rows :attr:`local_rows`."""
        if self.mesh is None:
            return batch
        first = self.local_rows[0].start if self.local_rows else 0

        def shard(leaf):
            array = np.asarray(leaf)
            shape = (self._rows if self.local_rows else len(array), *array.shape[1:])

            def rows_of(index):
                start, stop, _ = index[0].indices(shape[0])
                return array[start - first : stop - first]

            return jax.make_array_from_callback(shape, self._batch_sharding, rows_of)

        return jax.tree.map(shard, batch)

    def with_shardings(self, shapes: TrainState) -> TrainState:
        """Shapes of a state with their shardings, for `checkpoint.read`."""
        if self.mesh is None:
            return shapes
        shardings = _state_shardings(self.mesh, self._rows, shapes)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            shardings,
        )

    def gather(self, params: Params) -> Params:
        """Parameters whole on the first device of this process."""
        if self.mesh is None:
            return params
        replicated = jax.NamedSharding(self.mesh, jax.P())
        params = jax.jit(lambda tree: tree, out_shardings=replicated)(params)
        return jax.device_put(jax.device_get(params), jax.local_devices()[0])


def _local_rows(sharding: jax.NamedSharding, rows: int) -> slice:
    """From the first to the last row of a batch that devices of this process hold."""
    indices = sharding.addressable_devices_indices_map((rows,)).values()
    ends = [index[0].indices(rows)[:2] for index in indices]
    return slice(min(start for start, _ in ends), max(stop for _, stop in ends))


def _state_shardings(mesh: jax.sharding.Mesh, rows: int, state: TrainState) -> TrainState:
    """The sharding of every array of a state."""

    def parameter(leaf):
        wide = leaf.ndim > 1 and leaf.size >= _LARGE and leaf.shape[-1] % mesh.shape[MODEL] == 0
        axes = (*(None,) * (leaf.ndim - 1), MODEL) if wide else ()
        return jax.NamedSharding(mesh, jax.P(*axes))

    return TrainState(
        jax.NamedSharding(mesh, jax.P()),
        jax.tree.map(parameter, state.params),
        # The optimizer's statistics of a parameter have its shape, and so its sharding.
        jax.tree.map(parameter, state.opt_state),
        _memory_shardings(mesh, rows, state.memory),
    )


def _memory_shardings(mesh: jax.sharding.Mesh, rows: int, memory: Any) -> Any:
    """The shardings of a task's memory: arrays with the rows of a batch are sharded like it."""

    def sharding(leaf):
        has_rows = leaf.ndim and leaf.shape[0] == rows
        return jax.NamedSharding(mesh, jax.P(DATA) if has_rows else jax.P())

    return jax.tree.map(sharding, memory)


@functools.cache
def _compiled_steps(mesh: jax.sharding.Mesh, rows: int) -> CompiledSteps:
    """The functions of :mod:`.step` with the shardings of their results, which XLA would choose."""

    def keep(state: TrainState) -> TrainState:
        return jax.lax.with_sharding_constraint(state, _state_shardings(mesh, rows, state))

    def replicated(tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, jax.NamedSharding(mesh, jax.P()))

    def keep_memory(tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, _memory_shardings(mesh, rows, tree))

    @functools.partial(jax.jit, static_argnames=("task", "optimizer"))
    def init_state(task, optimizer, key, batch):
        return keep(step.init_state(task, optimizer, key, batch))

    @functools.partial(
        jax.jit, static_argnames=("task", "optimizer", "may_skip"), donate_argnames=("state",)
    )
    def train_step(task, optimizer, key, state, batch, may_skip=False):
        state, metrics = step.train_step(task, optimizer, key, state, batch, may_skip)
        return keep(state), replicated(metrics)

    @functools.partial(jax.jit, static_argnames=("task",))
    def init_memory(task, params, batch):
        return keep_memory(step.init_memory(task, params, batch))

    @functools.partial(jax.jit, static_argnames=("task",))
    def evaluate(task, params, batch, memory):
        metrics, memory = step.evaluate(task, params, batch, memory)
        return replicated(metrics), keep_memory(memory)

    return CompiledSteps(init_state, train_step, init_memory, evaluate)
