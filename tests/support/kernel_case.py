"""Problems for compiled kernels, of any shape, and the comparison with an oracle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax import cells, switches
from surnn_jax.scan import ScanInputs, ScanSpec, masked

KNOWN = (cells.TANH, cells.GRU, cells.LSTM, cells.LSTM_PEEPHOLE)
GATES = (switches.triangular(0.5), switches.sigmoid(), switches.straight_through())
WINDOW = GATES[0]
TABLES = ("dense", "shared", "example")


def make(cell, seed, table, shape, *, masks=True, shift=-0.4, dtype=jnp.float64):
    """The differentiated fields of `ScanInputs`, the masks, and weights of a loss."""
    steps, batch, inputs, features = shape
    random = np.random.default_rng(seed)

    def normal(*size):
        return random.normal(size=size).astype(dtype)  # with JAX, each shape would be compiled

    def carry(*lead):
        return cell.carry(*(normal(*lead, batch, features) for _ in cell.carry._fields))

    # As `init` draws them, more or less, and no bias is left at zero.
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(seed), inputs, features, dtype))
    params = jax.tree.map(
        lambda s: normal(*s.shape) / np.sqrt(s.shape[0] + 1).astype(dtype), shapes
    )
    logits = None
    if table != "dense":
        size = (steps, features) if table == "shared" else (steps, batch, features)
        logits = np.asarray(shift, dtype) + normal(*size)
    step_mask = random.random((steps, batch)) < 0.7 if masks else None
    resets = random.random((steps, batch)) < 0.2 if masks else None
    return (
        (params, normal(steps, batch, inputs), logits, carry(), carry()),
        (step_mask, resets),
        carry(steps),
    )


@functools.cache
def solver(scan, cell, surrogate, learned=True, dtype=None):
    """Carries and all gradients of a nonlinear loss, compiled; operands of `dtype` or that of x."""

    def loss(free, masks, weight):
        inputs = ScanInputs(*free, *masks)
        if not learned:
            inputs = inputs._replace(logits=jax.lax.stop_gradient(inputs.logits))
        spec = ScanSpec(cell, None if inputs.logits is None else surrogate, dtype or inputs.x.dtype)
        carries = scan(spec, inputs)
        terms = [jnp.sum(jnp.sin(c) * w) for c, w in zip(carries, weight, strict=True)]
        return sum(terms), carries

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def assert_same(
    scan, cell, problem, surrogate=WINDOW, *, oracle=masked.scan, tolerance=1e-9, **options
):
    """Every value and gradient, relative to the largest of its array."""
    wanted = solver(oracle, cell, surrogate, **options)(*problem)
    found = solver(scan, cell, surrogate, **options)(*problem)

    def close(path, w, f):
        size = float(np.max(np.abs(w))) if w.size else 0.0
        if not w.ndim:  # the loss: thousands of terms of size 1, which cancel
            size = max(size, 1.0)
        np.testing.assert_allclose(
            f, w, rtol=0, atol=tolerance * max(size, 1e-3), err_msg=jax.tree_util.keystr(path)
        )

    jax.tree_util.tree_map_with_path(close, wanted, found)
