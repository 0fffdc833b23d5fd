"""What holds in the dtypes of everyday use: bits that are kept, products in bfloat16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import BACK_ENDS, CELLS, SWITCHES, compiled, label, random_like, run, switch
from tiers import tiered

from surnn_jax import cells, selective, switches
from surnn_jax.scan import BACKENDS, ScanInputs, ScanSpec

pytestmark = pytest.mark.usefixtures("compiled_back_ends")

# Zero of either sign, denormals, the ends of the range, and what is no number.
ODD = np.array([0, -0.0, 1e-45, -1e-39, 3e37, np.inf, -np.inf, np.nan], np.float32)


def _bits(leaf):
    assert leaf.dtype == jnp.float32
    return np.asarray(leaf).view(np.uint32)


WAYS = (
    (switches.triangular(), "float32"),
    (switches.triangular(), "bfloat16"),
    (switches.soft(), "float32"),
)
# Kernels that are interpreted compile slowly: with one field and with two.
PAIRS = [
    (name, cell)
    for name in BACK_ENDS
    for cell in CELLS
    if name != "pallas" or cell in (cells.GRU, cells.LSTM)
]
# The ways take turns, so that each back end and each cell meets each.
TURNS = [
    (name, cell, *WAYS[(BACK_ENDS.index(name) + CELLS.index(cell)) % len(WAYS)])
    for name, cell in PAIRS
    if name != "pallas" or cell is cells.LSTM
]


@pytest.mark.parametrize(
    ("backend", "cell", "gate", "dtype"),
    tiered([(*pair, *way) for pair in PAIRS for way in WAYS], TURNS[::3]),
    ids=label,
)
def test_promise_2_closed_switch_leaves_the_state_bit_identical(backend, cell, dtype, gate):
    """Whatever state and inputs are; and an open one takes the candidate, whatever the state was.

    Even neurons are always closed, odd ones open. Every example has one odd value in a closed and
    an open neuron; the last has them all and is held by `step_mask`, as all are with a soft gate,
    which never closes.
    """
    steps, batch, inputs, features = 3, len(ODD) + 1, 2, len(ODD)
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), inputs, features))
    params = random_like(random, shapes)
    x = random.normal(size=(steps, batch, inputs)).astype(np.float32)
    x[1, 0, 0], x[1, 1, 0] = np.nan, np.inf
    logits = np.where(np.arange(features) % 2, 1, -1).astype(np.float32)
    logits = np.broadcast_to(logits, (steps, batch, features))
    step_mask = np.broadcast_to((np.arange(batch) < len(ODD)) & gate.hard, (steps, batch))
    fields = []
    for _ in cell.carry._fields:
        state = random.normal(size=(batch, features)).astype(np.float32)
        state[:-1, :2], state[-1] = ODD[:, None], ODD
        fields.append(jnp.asarray(state))
    start = cell.carry(*fields)
    spec = ScanSpec(cell, gate, dtype)
    inputs = ScanInputs(
        params, jnp.asarray(x), jnp.asarray(logits), start, start, jnp.asarray(step_mask)
    )
    carries = compiled(backend).scan(spec, inputs)
    wanted = BACKENDS["reference"].scan(spec, inputs)
    closed = ~step_mask[0][:, None] | (np.arange(features) % 2 == 0)
    for field, first, want in zip(carries, start, wanted, strict=True):
        for now in field:
            np.testing.assert_array_equal(_bits(now)[closed], _bits(first)[closed])
        np.testing.assert_allclose(field, want, 1e-5 if dtype == "float32" else 1e-2, 1e-6)
        if gate.hard:
            assert (_bits(field[-1])[2, 1::2] != _bits(first)[2, 1::2]).all()


@pytest.mark.parametrize(
    ("backend", "gate"),
    tiered(
        [(name, gate) for name in BACK_ENDS for gate in (WAYS[0][0], WAYS[2][0])],
        [(name, WAYS[0][0]) for name in BACK_ENDS] + [("masked", WAYS[2][0])],
    ),
    ids=label,
)
def test_nan_logit_is_seen(backend, gate):
    """It gives NaN in its own neuron at its own step, not a silently closed switch."""
    cell = CELLS[0]
    params = jax.tree.map(
        lambda s: jnp.zeros(s.shape), jax.eval_shape(lambda: cell.init(jax.random.key(0), 2, 4))
    )
    start = cell.initial_carry(params, (3,))
    logits = jnp.ones((2, 3, 4)).at[1, 1, 2].set(jnp.nan)
    inputs = ScanInputs(params, jnp.ones((2, 3, 2)), logits, start, start)
    carries = compiled(backend).scan(ScanSpec(cell, gate, "float32"), inputs)
    np.testing.assert_array_equal(jnp.isnan(carries.h), jnp.isnan(logits))


@pytest.mark.parametrize(
    ("backend", "cell"),
    tiered(
        [(name, cell) for name in BACK_ENDS for cell in (cells.TANH, cells.GRU_BEFORE)],
        # Those that skip neurons pass a candidate that reads all of them on.
        [("masked", cells.GRU_BEFORE), ("native", cells.TANH)],
    ),
    ids=label,
)
def test_bfloat16_rounds_products_and_nothing_else(backend, cell):
    """Operands are rounded to 8 bits: a part in 512 each, so in a state of size one after four
    steps of products over eight terms a few hundredths. The carry stays float32."""
    unit = selective(cell, switch(SWITCHES[1]))
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(4, 3, 2)), jnp.float32)
    shapes = jax.eval_shape(lambda: unit.init(jax.random.key(0), x, 6))
    params = random_like(random, shapes, 0.5)

    def loss(params, dtype):
        result = run(unit, params, x, dtype=dtype, backend=backend)
        return jnp.sum(jnp.square(result.carries.h)), result

    grads, gradient = {}, jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    for name in ("float32", "bfloat16"):
        grads[name], result = gradient(params, jnp.dtype(name))
        assert result.outputs.dtype == name
        assert all(leaf.dtype == jnp.float32 for leaf in result.carries)
        assert all(leaf.dtype == jnp.float32 for leaf in result.carry.cell)
        np.testing.assert_array_equal(result.outputs, result.carries.h.astype(name))
        if name == "float32":
            full = result
    np.testing.assert_allclose(result.carries.h, full.carries.h, atol=0.03)
    assert (result.carries.h != full.carries.h).any()
    assert (result.carries.h != result.carries.h.astype(jnp.bfloat16).astype(jnp.float32)).any()
    np.testing.assert_array_equal(result.update_mask, full.update_mask)
    for rounded, exact in zip(*(jax.tree.leaves(g) for g in grads.values()), strict=True):
        assert rounded.dtype == jnp.float32
        assert np.linalg.norm(rounded - exact) <= 0.05 * max(1, np.linalg.norm(exact))
    default = run(unit, params, x, backend=backend)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), default, full)


@pytest.mark.parametrize("backend", tiered(BACK_ENDS, ("masked", "rows", "native")))
def test_inputs_in_bfloat16_to_parameters_in_float32(backend):
    unit = selective("gru", switch(SWITCHES[4]))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 2)), jnp.bfloat16)
    shapes = jax.eval_shape(lambda: unit.init(jax.random.key(0), x, 6))
    params = random_like(np.random.default_rng(1), shapes, 0.5)

    def loss(x):
        result = run(unit, params, x, backend=backend)
        return jnp.sum(result.outputs), result

    grad, result = jax.jit(jax.grad(loss, has_aux=True))(x)
    assert grad.dtype == jnp.bfloat16
    assert result.outputs.dtype == result.carry.previous.dtype == jnp.float32
