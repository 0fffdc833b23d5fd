"""The kernel checks itself: on a small problem it must give what the dense scan gives.

It runs before the kernel is first used for a cell, a type, a kind of table and a number of neurons,
once a process: values, and gradients of all that is differentiated.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax.cells import Cell
from surnn_jax.scan import masked
from surnn_jax.scan.spec import ScanInputs, ScanSpec
from surnn_jax.switches import triangular
from surnn_jax.typing import Carry

Scan = Callable[[ScanSpec, ScanInputs], Carry]

_STEPS, _INPUTS = 7, 3
# Relative to the largest number of an array. In bfloat16 a sum that comes out the other side of a
# rounding differs by 2^-8.
_TOLERANCES = {"float32": 1e-4, "bfloat16": 0.1, "float64": 1e-9}


class Kind(NamedTuple):
    """What is checked once.

    Attributes:
        cell: the cell; others with its rule and carry are checked again.
        dtype: of the operands.
        axes: of the logits: 0 without a switch, 2 or 3.
        features: H.
        rows: of the batch a block.
    """

    cell: Cell
    dtype: Any
    axes: int
    features: int
    rows: int


class _Solved(NamedTuple):
    """What is compared, in this order."""

    values: Carry
    gradients: Any


def problem(kind: Kind) -> tuple[ScanInputs, Carry]:
    """Inputs with masks and resets, and weights of a loss; the last block of rows is not full."""
    random = np.random.default_rng(0)
    batch, h = 2 * kind.rows + 1, kind.features
    dtype = np.float64 if kind.dtype == jnp.dtype(jnp.float64) else np.float32

    def normal(*size, scale=1.0):
        return (scale * random.normal(size=size)).astype(dtype)

    def carry(*lead):
        return kind.cell.carry(*(normal(*lead, batch, h) for _ in kind.cell.carry._fields))

    params = {
        "input": {g: normal(_INPUTS, h, scale=0.5) for g in kind.cell.inputs},
        "recurrent": {g: normal(h, h, scale=h**-0.5) for g in kind.cell.recurrent},
        "vector": {name: normal(h, scale=0.5) for name, _ in kind.cell.vectors},
    }
    sizes = {0: None, 2: (_STEPS, h), 3: (_STEPS, batch, h)}[kind.axes]
    logits = None if sizes is None else normal(*sizes) - dtype(0.4)
    masks = random.random((2, _STEPS, batch)) < np.array([0.8, 0.2])[:, None, None]
    inputs = ScanInputs(params, normal(_STEPS, batch, _INPUTS), logits, carry(), carry(), *masks)
    return inputs, carry(_STEPS)


def difference(scan: Scan, kind: Kind) -> str:
    """In one line how a scan differs from the dense one; empty if it does not."""
    inputs, weights = problem(kind)
    spec = ScanSpec(kind.cell, None if kind.axes == 0 else triangular(0.5), kind.dtype)

    def solve(scan):
        def loss(free, rest):
            carries = scan(spec, ScanInputs(*free, *rest))
            terms = [jnp.sum(jnp.sin(c) * w) for c, w in zip(carries, weights, strict=True)]
            return sum(terms), carries

        solved = jax.jit(jax.value_and_grad(loss, has_aux=True))(inputs[:5], inputs[5:])
        return _Solved(solved[0][1], solved[1])

    # GPUs round float32 operands by default, and the dense scan leaves products to XLA.
    with jax.default_matmul_precision("highest"):
        wanted, found = jax.device_get((solve(masked.scan), solve(scan)))
    most = _TOLERANCES[jnp.dtype(kind.dtype).name]
    for (path, w), f in zip(
        jax.tree_util.tree_leaves_with_path(wanted), jax.tree.leaves(found), strict=True
    ):
        size = max(float(np.max(np.abs(w))), 1e-3)
        gap = float(np.max(np.abs(f - w))) / size
        if not gap <= most:
            return f"{jax.tree_util.keystr(path)} differs by {gap:.1e} of its largest"
    return ""


@functools.cache
def refusal(scan: Scan, kind: Kind) -> str:
    """Why a kernel is not to be trusted with what is of this kind, in one line; or empty.

    It may be called while JAX traces: it computes in a thread of its own, where nothing is traced.
    """

    def compute():
        with jax.enable_x64(jnp.dtype(kind.dtype) == jnp.dtype(jnp.float64)):
            return difference(scan, kind)

    what = f"{kind.cell.name} in {jnp.dtype(kind.dtype).name} with {kind.features} neurons"
    with ThreadPoolExecutor(1) as pool:
        try:
            found = pool.submit(compute).result()
        # Whatever it is, the dense scan will do.
        except Exception as error:
            lines = str(error).splitlines() or [type(error).__name__]
            return f"the CUDA kernel failed at its check of {what} ({lines[0]})"
    return found and f"the CUDA kernel is wrong for {what} ({found})"
