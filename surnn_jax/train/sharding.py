"""Where the arrays of a run live: on one device, or cut over a mesh of many.

The batch is cut over the axis ``data``. Parameters are whole on every device, but for the last
axis of large ones, which is cut over ``model``. XLA does the rest: a program means the same on one
device and on many, and a sum over the batch is a sum over all of it. Recurrent layers run each
device's rows on that device (:mod:`surnn_jax.scan.sharding`).
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
"""The axis of a mesh over which large parameters are cut."""

# Fewest numbers of a parameter that is worth cutting.
_LARGE = 2**16


def make_mesh(text: str) -> jax.sharding.Mesh:
    """A mesh of all devices from its axes, such as ``data:4`` or ``data:4,model:2``.

    Raises:
        ValueError: not of this form, or sizes whose product is not the number of devices.
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
    """Refuses batches of so many rows that would not divide over the devices.

    Raises:
        ValueError: with both numbers.
    """
    if rows % mesh.shape[DATA]:
        raise ValueError(
            f"mesh: a batch of {rows} rows does not divide over {DATA}:{mesh.shape[DATA]}"
        )


class CompiledSteps(NamedTuple):
    """The compiled functions of :mod:`.step` that a run needs, with their arguments."""

    init_state: Callable
    train_step: Callable
    begin: Callable
    evaluate: Callable


_ALONE = CompiledSteps(step.init_state, step.train_step, step.begin, step.evaluate)


class ShardingPlan:
    """Where the arrays of one run live.

    Attributes:
        mesh: the devices; None for the first alone.
        programs: what is compiled for it.
        part: the slice of a batch's rows that the devices of this process hold, as the arguments
            that ask for it: none where this process holds them all.
    """

    def __init__(self, mesh: jax.sharding.Mesh | None, batch: Any):
        """Looks at a batch of the run.

        Raises:
            ValueError: a batch that does not divide over the devices.
        """
        self.mesh, self.programs, self.part = mesh, _ALONE, ()
        if mesh is None:
            return
        rows = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(batch)}
        if len(rows) != 1:
            raise ValueError(f"mesh: arrays of a batch must have rows alike, got {sorted(rows)}")
        self._rows = rows.pop()
        check_rows(mesh, self._rows)
        self.programs = _programs(mesh, self._rows)
        self._place = jax.NamedSharding(mesh, jax.P(DATA))
        if jax.process_count() > 1:
            self.part = (_rows_here(self._place, self._rows),)

    def context(self) -> Any:
        """To be entered around all that is compiled."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def whole(self, make: Callable[[], Any]) -> Any:
        """What a function without arguments makes, whole on every device."""
        if self.mesh is None:
            return make()
        return jax.jit(make, out_shardings=jax.NamedSharding(self.mesh, jax.P()))()

    def own(self, batch: Any) -> Any:
        """The rows of a whole batch that :attr:`part` asks for."""
        return jax.tree.map(lambda leaf: leaf[self.part[0]], batch) if self.part else batch

    def batch(self, batch: Any) -> Any:
        """A batch on its devices, from the rows of it that :attr:`part` asks for."""
        if self.mesh is None:
            return batch
        first = self.part[0].start if self.part else 0

        def put(leaf):
            array = np.asarray(leaf)
            shape = (self._rows if self.part else len(array), *array.shape[1:])

            def cut(index):
                start, stop, _ = index[0].indices(shape[0])
                return array[start - first : stop - first]

            return jax.make_array_from_callback(shape, self._place, cut)

        return jax.tree.map(put, batch)

    def placed(self, shapes: TrainState) -> TrainState:
        """Shapes of a state with their places, for `checkpoint.read`."""
        if self.mesh is None:
            return shapes
        places = _places(self.mesh, self._rows, shapes)
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            places,
        )

    def gathered(self, params: Params) -> Params:
        """Parameters whole on the first device of this process."""
        if self.mesh is None:
            return params
        whole = jax.NamedSharding(self.mesh, jax.P())
        params = jax.jit(lambda tree: tree, out_shardings=whole)(params)
        return jax.device_put(jax.device_get(params), jax.local_devices()[0])


def _rows_here(place: jax.NamedSharding, rows: int) -> slice:
    """The rows of a batch, from the first to the last, that devices of this process hold."""
    held = place.addressable_devices_indices_map((rows,)).values()
    ends = [index[0].indices(rows)[:2] for index in held]
    return slice(min(start for start, _ in ends), max(stop for _, stop in ends))


def _places(mesh: jax.sharding.Mesh, rows: int, state: TrainState) -> TrainState:
    """The sharding of every array of a state."""

    def parameter(leaf):
        wide = leaf.ndim > 1 and leaf.size >= _LARGE and leaf.shape[-1] % mesh.shape[MODEL] == 0
        axes = (*(None,) * (leaf.ndim - 1), MODEL) if wide else ()
        return jax.NamedSharding(mesh, jax.P(*axes))

    return TrainState(
        jax.NamedSharding(mesh, jax.P()),
        jax.tree.map(parameter, state.params),
        # What an optimizer remembers of a parameter has its shape, and lies where it lies.
        jax.tree.map(parameter, state.opt_state),
        _memory_places(mesh, rows, state.memory),
    )


def _memory_places(mesh: jax.sharding.Mesh, rows: int, memory: Any) -> Any:
    """The sharding of what goes from batch to batch: cut where it has the rows of a batch."""

    def place(leaf):
        cut = leaf.ndim and leaf.shape[0] == rows
        return jax.NamedSharding(mesh, jax.P(DATA) if cut else jax.P())

    return jax.tree.map(place, memory)


@functools.cache
def _programs(mesh: jax.sharding.Mesh, rows: int) -> CompiledSteps:
    """Those of :mod:`.step`, whose results keep to their places: else XLA would choose some."""

    def keep(state: TrainState) -> TrainState:
        return jax.lax.with_sharding_constraint(state, _places(mesh, rows, state))

    def whole(tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, jax.NamedSharding(mesh, jax.P()))

    def memory(tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, _memory_places(mesh, rows, tree))

    @functools.partial(jax.jit, static_argnames=("task", "optimizer"))
    def init_state(task, optimizer, key, batch):
        return keep(step.init_state(task, optimizer, key, batch))

    @functools.partial(
        jax.jit, static_argnames=("task", "optimizer", "tolerant"), donate_argnames=("state",)
    )
    def train_step(task, optimizer, key, state, batch, tolerant=False):
        state, metrics = step.train_step(task, optimizer, key, state, batch, tolerant)
        return keep(state), whole(metrics)

    @functools.partial(jax.jit, static_argnames=("task",))
    def begin(task, params, batch):
        return memory(step.begin(task, params, batch))

    @functools.partial(jax.jit, static_argnames=("task",))
    def evaluate(task, params, batch, carried):
        metrics, carried = step.evaluate(task, params, batch, carried)
        return whole(metrics), memory(carried)

    return CompiledSteps(init_state, train_step, begin, evaluate)
