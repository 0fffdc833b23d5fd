"""A scan on several devices: each runs its own rows of the batch, without communication.

XLA partitions the operations it knows, but it would gather a compiled kernel, or a loop whose
length depends on the switches, whole onto every device. Examples do not depend on one another, so
`jax.shard_map` lets each device scan its rows alone; backward, the gradients of replicated
arguments are summed.

On a mesh with Explicit axes, JAX's default, the sharding of an array is part of its type, and most
operations on a sharded batch want to be told that of their result. A scan is no place to say so
line by line: :func:`with_auto_axes` computes on Auto axes and gives the types back at the end.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax.scan.chunked import Scan
from surnn_jax.scan.spec import ScanInputs, ScanSpec
from surnn_jax.typing import Carry

DATA = "data"
"""The mesh axis over which a batch is cut."""


def shards(batch: int) -> int:
    """The number of devices over which a scan of so many rows is cut.

    More than one inside ``jax.set_mesh(mesh)`` if the mesh has an axis ``data`` whose size divides
    the batch and which is not manual already.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or DATA not in mesh.axis_names:
        return 1
    manual = mesh.axis_types[mesh.axis_names.index(DATA)] == jax.sharding.AxisType.Manual
    count = mesh.shape[DATA]
    return 1 if manual or batch % count else count


def shard_scan(scan: Scan, spec: ScanSpec, inputs: ScanInputs) -> Carry:
    """Runs a scan on as many devices as :func:`shards` says."""

    def run(inputs):
        return scan(spec, vary_alike(inputs))

    if jax.sharding.get_abstract_mesh().empty:
        return scan(spec, inputs)
    if shards(inputs.x.shape[1]) == 1:
        return run(inputs)
    rows, steps, whole = jax.P(DATA), jax.P(None, DATA), jax.P()
    specs = ScanInputs(
        params=jax.tree.map(lambda _: whole, inputs.params),
        x=steps,
        logits=None if inputs.logits is None else steps if inputs.logits.ndim == 3 else whole,
        initial_carry=jax.tree.map(lambda _: rows, inputs.initial_carry),
        reset_carry=jax.tree.map(lambda _: rows, inputs.reset_carry),
        step_mask=None if inputs.step_mask is None else steps,
        resets=None if inputs.resets is None else steps,
    )
    return jax.shard_map(run, in_specs=(specs,), out_specs=steps)(inputs)


def explicit_mesh(*trees: Any) -> jax.sharding.AbstractMesh | None:
    """The mesh with Explicit axes on which these arrays are; None if there is none.

    It is that of ``jax.set_mesh``, or else that in the type of an array.
    """
    meshes = [jax.sharding.get_abstract_mesh()]
    if meshes[0].empty:
        leaves = filter(_is_array, jax.tree.leaves(trees))
        meshes = [jax.typeof(leaf).sharding.mesh for leaf in leaves]
    return next((mesh for mesh in meshes if mesh.explicit_axes), None)


def whole(*trees: Any) -> Any:
    """Trees of arrays, those on Explicit axes whole on every device."""
    mesh = explicit_mesh(trees)
    if mesh is None:
        return trees
    place = jax.NamedSharding(mesh, jax.P())
    return jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, place), trees)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray))


def _reshard_whole(leaf: Any) -> Any:
    return jax.sharding.reshard(leaf, jax.P()) if _is_array(leaf) else leaf


def with_auto_axes(
    mesh: jax.sharding.AbstractMesh,
    function: Callable[..., Any],
    arrays: Any,
    specs_of: Callable[[Any], Any],
) -> Any:
    """``function(*arrays)``, computed with the Explicit axes of `mesh` as Auto ones.

    Args:
        mesh: from :func:`explicit_mesh`.
        function: of pytrees, which may hold things other than arrays, to a pytree of arrays.
        arrays: its arguments.
        specs_of: from what the function returns to a pytree of the same form, of the sharding that
            each array then has.
    """
    auto = mesh.update_axis_types(dict.fromkeys(mesh.explicit_axes, jax.sharding.AxisType.Auto))
    with jax.sharding.use_abstract_mesh(auto):
        found = function(*jax.tree.map(_reshard_whole, arrays))
    specs = specs_of(found)
    return jax.tree.map(
        lambda leaf, spec: jax.sharding.reshard(leaf, jax.NamedSharding(mesh, spec)), found, specs
    )


def vary_alike(tree: Any) -> Any:
    """Inside `jax.shard_map`, a tree whose leaves all vary over the same mesh axes.

    A loop's carry must keep its type, and a carry of zeros varies over no axis. Backward, the
    cotangent of a leaf that was made to vary is summed over devices, as the gradient of replicated
    parameters must be.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return tree
    never = [jnp.zeros_like(leaf, bool, shape=()) for leaf in jax.tree.leaves(tree)]
    never = functools.reduce(jnp.logical_or, never)
    return jax.tree.map(lambda leaf: jnp.where(never, leaf, leaf), tree)
