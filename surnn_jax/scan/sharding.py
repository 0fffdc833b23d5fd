"""A scan on many devices: each runs its own rows of the batch, and none waits for another.

XLA cuts up what it knows, but a compiled kernel, or a loop whose length depends on the switches,
it would gather whole onto every device. Examples do not depend on one another, so under
`jax.shard_map` nothing is exchanged; backward, the gradients of what is replicated are summed.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.typing import Carry

DATA = "data"
"""The axis of a mesh over which a batch is cut."""


def shards(batch: int) -> int:
    """Over how many devices a scan of so many rows is cut.

    More than one inside ``jax.set_mesh(mesh)``, where the mesh has an axis ``data`` whose size
    divides the batch, and nobody has cut it up yet.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or DATA not in mesh.axis_names:
        return 1
    manual = mesh.axis_types[mesh.axis_names.index(DATA)] == jax.sharding.AxisType.Manual
    count = mesh.shape[DATA]
    return 1 if manual or batch % count else count


def shard_scan(scan: Any, static: tuple, args: tuple) -> Carry:
    """Calls a back end, with as many devices as :func:`shards` says.

    Args:
        scan: a back end, or one that is chunked (contract: `reference.scan`).
        static: its cell, gate and dtype of operands.
        args: the rest of its arguments: params, x, logits, start, rest, keep, resets.
    """
    run = functools.partial(_run, scan, static)
    params, x, logits, start, rest, keep, resets = args
    if shards(x.shape[1]) == 1:
        return run(*args)
    rows, steps, whole = jax.P(DATA), jax.P(None, DATA), jax.P()
    specs = (
        jax.tree.map(lambda _: whole, params),
        steps,
        None if logits is None else steps if logits.ndim == 3 else whole,
        jax.tree.map(lambda _: rows, start),
        jax.tree.map(lambda _: rows, rest),
        None if keep is None else steps,
        None if resets is None else steps,
    )
    return jax.shard_map(run, in_specs=specs, out_specs=steps)(*args)


def _run(scan, static, *args):
    return scan(*static, *_alike(args))


def _alike(tree: Any) -> Any:
    """Inside `jax.shard_map`, a tree whose leaves all vary over the same mesh axes.

    A loop's carry must keep its type, and a carry of zeros varies over none. Backward, what was
    made to vary is summed over devices, as the gradient of replicated parameters must be.
    """
    never = [jnp.zeros_like(leaf, bool, shape=()) for leaf in jax.tree.leaves(tree)]
    never = functools.reduce(jnp.logical_or, never)
    return jax.tree.map(lambda leaf: jnp.where(never, leaf, leaf), tree)
