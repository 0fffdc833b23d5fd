"""Several processes that train one model: who writes, and how all decide alike.

Each runs the same program. What one of them learns alone, a signal or the time, it must not act
on alone: the others would wait for it forever in the next sum over devices.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils


def initialize_distributed(text: str) -> None:
    """Joins the other processes of a run; before anything is computed.

    Args:
        text: ``auto`` where SLURM, Open MPI or a TPU pod tells who the others are; else
            ``ADDRESS:PORT,NUMBER,COUNT``: where process 0 listens, which of them this one is, and
            how many there are.

    Raises:
        ValueError: not of this form.
    """
    if text == "auto":
        jax.distributed.initialize()
        return
    address, *numbers = text.split(",")
    if ":" not in address or len(numbers) != 2 or not all(n.strip().isdecimal() for n in numbers):
        raise ValueError(f"distributed: {text!r} is neither auto nor ADDRESS:PORT,NUMBER,COUNT")
    number, count = map(int, numbers)
    if number >= count:
        raise ValueError(f"distributed: process {number} of {count}; they are counted from 0")
    jax.distributed.initialize(address, count, number)


def is_first() -> bool:
    """Whether this process writes the files of all."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes are at the barrier of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class HostAllReduce:
    """What any of the processes was told to do."""

    def __init__(self):
        self._asked = None

    def ask(self, *numbers: int) -> list[int]:
        """The largest of each number among the processes.

        Of one process, its own. Of several, those of the call before, zeros at first: they are on
        their way while the devices compute, and nobody waits for them.
        """
        if jax.process_count() == 1:
            return list(numbers)
        before, self._asked = self._asked, _largest(numbers)
        return [0 for _ in numbers] if before is None else np.asarray(before).tolist()


def _largest(numbers: tuple[int, ...]) -> jax.Array:
    mesh = _everyone()
    here = np.tile(np.asarray(numbers, np.int32), (jax.local_device_count(), 1))
    place = jax.NamedSharding(mesh, jax.P("all"))
    return _largest_row(jax.make_array_from_process_local_data(place, here), mesh)


@functools.partial(jax.jit, static_argnames=("mesh",))
def _largest_row(told: jax.Array, mesh: jax.sharding.Mesh) -> jax.Array:
    return jax.lax.with_sharding_constraint(jnp.max(told, axis=0), jax.NamedSharding(mesh, jax.P()))


@functools.cache
def _everyone() -> jax.sharding.Mesh:
    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((jax.device_count(),), ("all",), axis_types=auto)
