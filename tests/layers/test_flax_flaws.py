"""What Flax's own recurrent layer gets wrong, and ours must not.

The second half of each test looks whether Flax still does. When it no longer does, the test is
skipped and says so: the flaw may then leave the documentation, and this file. Whatever Flax
raises, the flaw is still there.
"""

import functools

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import full

from surnn_jax import switches
from surnn_jax.layers import Recurrent

BATCH, STEPS, INPUTS, FEATURES = 3, 5, 4, 6
LENGTHS = jnp.array([STEPS, 0, 2])
SWITCHES = [None, switches.event(STEPS, rate=0.5, event_features="pair")]
each_switch = pytest.mark.parametrize("switch", [full(None), SWITCHES[1]])
# The stock layer's own cell, and ours of the same equations.
PAIRS = [(nn.GRUCell, "gru"), (nn.OptimizedLSTMCell, "lstm"), (nn.SimpleCell, "tanh")]


def mended(what):
    pytest.skip(f"ours is right; and Flax {flax.__version__} has mended this: {what}")


def data(*shape):
    return jax.random.normal(jax.random.key(0), shape)


def ours(switch, cell="gru", **options):
    layer = Recurrent(cell, FEATURES, switch, **options)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 2, INPUTS)))
    random = np.random.default_rng(2)
    draw = jax.tree.map(lambda p: jnp.float32(0.5 * random.normal(size=p.shape)), shapes)
    return jax.jit(lambda *args, **kwargs: layer.apply(draw, *args, **kwargs)), layer, draw


def stock(cell=nn.GRUCell, **options):
    """The stock layer with the parameters of its own initialisation."""
    layer = nn.RNN(cell(FEATURES, **options), return_carry=True)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 2, INPUTS)))
    random = np.random.default_rng(2)
    draw = jax.tree.map(lambda p: jnp.float32(0.5 * random.normal(size=p.shape)), shapes)
    return jax.jit(lambda *args, **kwargs: layer.apply(draw, *args, **kwargs))


@each_switch
def test_length_0_returns_the_initial_carry(switch):
    run, layer, params = ours(switch, return_carry=True)
    x = data(BATCH, STEPS, INPUTS)
    start = layer.apply(params, (BATCH,), method="initial_carry")
    start = jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), start)
    carry, outputs = run(x, seq_lengths=LENGTHS, initial_carry=start)
    if switch is not None:
        assert carry.clock.tolist() == [1 + STEPS, 1, 3]
        assert np.array_equal(carry.previous[1], start.previous[1])
        carry, start = carry.cell, start.cell
    assert np.array_equal(carry.h[1], start.h[1])
    assert not np.any(outputs[1])
    assert not np.array_equal(carry.h[0], start.h[0])
    assert not np.array_equal(carry.h[2], start.h[2])

    begin = jnp.ones((BATCH, FEATURES))
    theirs, _ = stock()(x, seq_lengths=LENGTHS, initial_carry=begin)
    if np.array_equal(theirs[1], begin[1]):
        mended("a sequence of length 0 returned the carry of the last padded step")


@pytest.mark.parametrize(
    ("switch", "reverse"),
    [full(None, False), (None, True), (SWITCHES[1], False), full(SWITCHES[1], True)],
)
def test_outputs_beyond_the_end_are_zero(switch, reverse):
    _, layer, params = ours(switch, reverse=reverse, keep_order=reverse)
    x = data(BATCH, STEPS, INPUTS)
    beyond = np.arange(STEPS) >= np.asarray(LENGTHS)[:, None]

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(params, x):
        outputs = layer.apply(params, x, seq_lengths=LENGTHS)
        return jnp.sum(jnp.sin(outputs)), outputs

    gradient, outputs = run(params, x)
    outputs = np.asarray(outputs)
    assert not np.any(outputs[beyond])
    assert np.all(np.any(outputs[~beyond], axis=-1))
    # So nothing that stands there changes anything, not even NaN, in values or gradients.
    same, again = run(params, jnp.where(beyond[..., None], jnp.nan, x))
    assert np.array_equal(again, outputs)
    assert all(map(np.array_equal, jax.tree.leaves(gradient), jax.tree.leaves(same)))

    _, theirs = stock()(x, seq_lengths=LENGTHS)
    if not np.any(np.asarray(theirs)[beyond]):
        mended("outputs beyond the end of a sequence were not zero")


@each_switch
def test_lengths_on_two_batch_axes_with_the_carry(switch):
    _, layer, params = ours(switch, return_carry=True)
    x, lengths = data(2, BATCH, STEPS, INPUTS), jnp.stack([LENGTHS, LENGTHS[::-1] // 2])

    @jax.jit
    def run(params):
        flat = layer.apply(params, x.reshape(-1, STEPS, INPUTS), seq_lengths=lengths.reshape(-1))
        return layer.apply(params, x, seq_lengths=lengths), flat

    got, flat = run(params)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(flat), strict=True):
        assert one.shape[:2] == (2, BATCH)
        assert np.array_equal(one, other.reshape(one.shape))

    try:
        theirs, _ = stock()(x, seq_lengths=lengths)
    except Exception:
        return
    if theirs.shape == (2, BATCH, FEATURES):
        mended("two batch axes with lengths and return_carry raised ValueError")


@each_switch
def test_a_mask_comes_with_the_inputs(switch):
    run, layer, params = ours(switch, return_carry=True)
    x = data(BATCH, STEPS, INPUTS)
    mask = jnp.arange(STEPS)[None] % jnp.array([[2], [3], [9]]) != 1
    carry, outputs = run((x, mask))
    assert outputs.shape == (BATCH, STEPS, FEATURES)
    held = np.asarray(outputs)[:, 1:] == np.asarray(outputs)[:, :-1]
    assert np.all(held[~mask[:, 1:]])
    by_name = layer.apply(params, x, mask=mask)
    for one, other in zip(jax.tree.leaves((carry, outputs)), jax.tree.leaves(by_name), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)  # another program
    if switch is None:  # the steps looked at, one after the other, are all that matters
        seen = layer.apply(params, x[:1, mask[0]])
        np.testing.assert_allclose(carry.h[:1], seen[0].h, rtol=1e-5, atol=2e-6)

    class Pair(nn.RNNCellBase):
        """A cell that wants what the layer could not pass."""

        @nn.nowrap
        def initialize_carry(self, rng, input_shape):
            return jnp.zeros(input_shape[:-1])

        @property
        def num_feature_axes(self):
            return 1

        def __call__(self, carry, inputs):
            x, keep = inputs
            return carry + jnp.where(keep, x.sum(-1), 0), carry

    try:
        nn.RNN(Pair()).apply({}, (x, mask))
    except Exception:
        return
    mended("a tuple of inputs raised AttributeError")


@pytest.mark.parametrize(("cell", "name"), PAIRS)
def test_bfloat16_runs_and_returns_bfloat16(cell, name):
    x = data(BATCH, STEPS, INPUTS)
    run, _, _ = ours(None, name, return_carry=True, dtype=jnp.bfloat16)
    carry, outputs = run(x)
    assert outputs.dtype == jnp.bfloat16
    assert carry.h.dtype == jnp.float32

    try:
        with jax.numpy_dtype_promotion("standard"):
            _, theirs = stock(cell, dtype=jnp.bfloat16)(x)
    except Exception:
        return
    if theirs.dtype == jnp.bfloat16:
        mended(f"{cell.__name__}(dtype=bfloat16) raised TypeError or returned float32")
