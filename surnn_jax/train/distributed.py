"""Several processes that train one model: which one writes files, and how all decide alike.

Each process runs the same program. No process may act on a local event, such as a signal or a
timer, without the others: they would wait forever in the next sum over devices.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils


def initialize_distributed(text: str) -> None:
    """Joins the other processes of a run. Call it before any computation.

    Args:
        text: ``auto`` if SLURM, Open MPI or a TPU pod announces the processes; otherwise
            ``ADDRESS:PORT,NUMBER,COUNT``: where process 0 listens, the index of this process and
            the number of processes.

    Raises:
        ValueError: not of this form.

    Examples:
        >>> from surnn_jax import train
        >>> train.initialize_distributed("localhost:8476,2,2")
        Traceback (most recent call last):
        ValueError: distributed: process 2 of 2; they are counted from 0
    """
    if text == "auto":
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                "distributed: auto finds no cluster (SLURM, Open MPI, TPU pod); give "
                "ADDRESS:PORT,NUMBER,COUNT, or leave it out for one process; JAX says: "
                + " ".join(str(error).split())[:200]
            ) from error
        return
    address, *numbers = text.split(",")
    if ":" not in address or len(numbers) != 2 or not all(n.strip().isdecimal() for n in numbers):
        raise ValueError(f"distributed: {text!r} is neither auto nor ADDRESS:PORT,NUMBER,COUNT")
    number, count = map(int, numbers)
    if number >= count:
        raise ValueError(f"distributed: process {number} of {count}; they are counted from 0")
    jax.distributed.initialize(address, count, number)


def is_first() -> bool:
    """Whether this process writes the files of the run."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has reached the barrier of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class HostAllReduce:
    """The largest of some numbers over all processes, computed beside the training steps."""

    def __init__(self):
        self._pending = None

    def max(self, *numbers: int) -> list[int]:
        """The element-wise largest over all processes.

        With one process, its own numbers. With several, the result of the previous call, zeros at
        first: the current numbers travel while the devices compute, so that no process waits.
        """
        if jax.process_count() == 1:
            return list(numbers)
        previous, self._pending = self._pending, _max_over_processes(numbers)
        return [0 for _ in numbers] if previous is None else np.asarray(previous).tolist()


def _max_over_processes(numbers: tuple[int, ...]) -> jax.Array:
    mesh = _all_devices()
    rows = np.tile(np.asarray(numbers, np.int32), (jax.local_device_count(), 1))
    sharding = jax.NamedSharding(mesh, jax.P("all"))
    return _max_row(jax.make_array_from_process_local_data(sharding, rows), mesh)


@functools.partial(jax.jit, static_argnames=("mesh",))
def _max_row(rows: jax.Array, mesh: jax.sharding.Mesh) -> jax.Array:
    return jax.lax.with_sharding_constraint(jnp.max(rows, axis=0), jax.NamedSharding(mesh, jax.P()))


@functools.cache
def _all_devices() -> jax.sharding.Mesh:
    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((jax.device_count(),), ("all",), axis_types=auto)
