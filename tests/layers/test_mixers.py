"""The contract of a mixer: causal, continued, streamed, padded, differentiable, in any dtype."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixer_case import (
    BATCH,
    FEATURES,
    MIXERS_UNDER_TEST,
    STEPS,
    compiled,
    drawn,
    made,
    mid_stream,
    normal,
)
from tiers import tiered

from surnn_jax.layers.attention import Attention
from surnn_jax.layers.lru import LRU
from surnn_jax.layers.mamba import Mamba
from surnn_jax.layers.mamba2 import Mamba2
from surnn_jax.layers.s4d import S4D

# Two programs for the same float32 sums of terms of size one: matrix products here, a loop there;
# a few dozen units in the last place (1.2e-7).
CLOSE = {"rtol": 2e-5, "atol": 5e-6}
FULL, LENGTHS = jnp.array([STEPS] * BATCH), jnp.array([STEPS, 0, 7])
INSIDE = np.arange(STEPS)[None] < np.asarray(LENGTHS)[:, None]


class Case:
    """A mixer with its parameters, inputs and compiled calls: one compilation each."""

    def __init__(self, name):
        self.name = name
        self.mixer, width = made(name)
        self.x = jnp.asarray(normal(BATCH, STEPS, width), jnp.float32)
        self.params = drawn(self.mixer, width)
        self.rest = self.mixer.initial_carry((BATCH,))
        self.started = mid_stream(self.mixer, np.random.default_rng(2))
        self.step = compiled(functools.partial(self.mixer.apply, method="step"))

    @functools.cached_property
    def run(self):
        return compiled(
            lambda params, x, carry, lengths: self.mixer.apply(
                params, x, initial_carry=carry, seq_lengths=lengths
            )
        )

    @functools.cached_property
    def fresh(self):
        """No carry given: gradient, and what the call returns."""

        def loss(params, x, lengths):
            carry, y = self.mixer.apply(params, x, seq_lengths=lengths)
            weights = jnp.asarray(normal(*y.shape, seed=3), y.dtype)
            # Of the carry, too: what a later call makes of it.
            total = jnp.sum(y * weights)
            for leaf in jax.tree.leaves(carry):
                if not jnp.issubdtype(leaf.dtype, jnp.integer):
                    total = total + jnp.sum(jnp.sin(leaf.real) + jnp.cos(leaf.imag))
            return total, (carry, y)

        return compiled(jax.grad(loss, has_aux=True))


@pytest.fixture(
    scope="module", params=tiered(MIXERS_UNDER_TEST, ["attention-window", "mamba", "mamba2"])
)
def case(request):
    return Case(request.param)


def test_the_future_does_not_change_the_past(case):
    cut = 6
    other = case.x.at[:, cut:].add(1.0)
    for call in (
        lambda x: case.run(case.params, x, case.started, FULL)[1],
        lambda x: case.fresh(case.params, x, FULL)[1][1],
    ):
        one, two = call(case.x), call(other)
        assert not np.isclose(one[:, cut:], two[:, cut:], atol=1e-3).all(-1).any()
        # A Fourier transform sums over all steps, the future cancelling to rounding; elsewhere
        # the program never adds a future term, or adds an exact zero times it.
        tolerance = 1e-5 if case.name == "s4d" else 0
        np.testing.assert_allclose(one[:, :cut], two[:, :cut], rtol=0, atol=tolerance)


def test_promise_4_steps_equal_the_sequence(case):
    for start, whole in (
        (case.rest, case.fresh(case.params, case.x, FULL)[1]),
        (case.started, case.run(case.params, case.x, case.started, FULL)),
    ):
        carry, outputs = start, []
        for t in range(STEPS):
            carry, y = case.step(case.params, carry, case.x[:, t])
            outputs.append(y)
        chex.assert_trees_all_close((carry, jnp.stack(outputs, 1)), whole, **CLOSE)


def test_promise_3_padding_changes_nothing(case):
    spoilt = jnp.where(INSIDE[..., None], case.x, jnp.nan)
    clean = case.run(case.params, case.x, case.started, LENGTHS)
    dirty = case.run(case.params, spoilt, case.started, LENGTHS)
    chex.assert_trees_all_equal(clean, dirty)
    carry, y = clean
    assert not y[~INSIDE].any()
    assert (y[INSIDE] != 0).all()
    # The carry of each row is that after its last step, and of the empty one as it was.
    held = case.started
    for t in range(7):
        held, _ = case.step(case.params, held, case.x[:, t])
    for got, begun, after in zip(*map(jax.tree.leaves, (carry, case.started, held)), strict=True):
        np.testing.assert_array_equal(got[1], begun[1])
        np.testing.assert_allclose(got[2], after[2], **CLOSE)


def test_halves_equal_the_whole(case):
    cut = 6
    whole = case.run(case.params, case.x, case.started, LENGTHS)
    carry, first = case.run(case.params, case.x, case.started, jnp.minimum(LENGTHS, cut))
    rest = jnp.roll(case.x, -cut, axis=1)
    carry, second = case.run(case.params, rest, carry, jnp.maximum(LENGTHS - cut, 0))
    y = jnp.concatenate([first[:, :cut], second[:, : STEPS - cut]], axis=1)
    chex.assert_trees_all_close((carry, y), whole, **CLOSE)


def test_every_parameter_has_a_gradient_that_padding_leaves_alone(case):
    spoilt = jnp.where(INSIDE[..., None], case.x, jnp.nan)
    clean, _ = case.fresh(case.params, case.x, LENGTHS)
    dirty, _ = case.fresh(case.params, spoilt, LENGTHS)
    chex.assert_trees_all_equal(clean, dirty)
    for path, leaf in jax.tree_util.tree_leaves_with_path(clean):
        assert np.isfinite(leaf).all(), path
        assert (np.abs(leaf) > 1e-6).any(), path


def test_no_lengths_are_full_lengths(case):
    full = case.fresh(case.params, case.x, FULL)
    beyond = case.fresh(case.params, case.x, FULL + 5)
    chex.assert_trees_all_equal(full, beyond)
    given = compiled(case.mixer.apply)(case.params, case.x)
    chex.assert_trees_all_close(given, full[1], **CLOSE)


def test_bfloat16_computes_in_it_and_keeps_a_wide_carry(case):
    mixer, _ = made(case.name, dtype=jnp.bfloat16)
    carry, y = compiled(mixer.apply)(case.params, case.x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    chex.assert_trees_all_equal_shapes_and_dtypes(carry, case.rest)
    wide = jax.tree.leaves((carry, y.astype(jnp.float32)))
    exact = jax.tree.leaves(case.fresh(case.params, case.x, FULL)[1])
    for rounded, leaf in zip(wide, exact, strict=True):
        # Eight bits: 0.4 % a product, over the few products of a layer and the terms of a sum.
        np.testing.assert_allclose(rounded, leaf, atol=0.05 * np.abs(leaf).max(), rtol=0)
    assert not np.allclose(wide[-1], exact[-1], **CLOSE)


def test_a_sequence_of_no_steps_returns_the_carry(case):
    carry, y = case.run(case.params, case.x[:, :0], case.started, jnp.zeros_like(LENGTHS))
    assert y.shape == (BATCH, 0, FEATURES)
    chex.assert_trees_all_equal(carry, case.started)


def test_what_does_not_fit_is_refused(case):
    def call(x, **more):
        return jax.eval_shape(lambda: case.mixer.apply(case.params, x, **more))

    with pytest.raises(ValueError, match=r"floating point \[B, T, D\]"):
        call(case.x[0])
    with pytest.raises(ValueError, match=r"floating point \[B, T, D\]"):
        call(jnp.ones(case.x.shape, jnp.int32))
    with pytest.raises(ValueError, match="seq_lengths must be integers of shape"):
        call(case.x, seq_lengths=LENGTHS[:2])
    with pytest.raises(ValueError, match="seq_lengths must be integers of shape"):
        call(case.x, seq_lengths=LENGTHS.astype(jnp.float32))
    with pytest.raises(ValueError, match="the carry must be as initial_carry makes it"):
        call(case.x, initial_carry=case.mixer.initial_carry((BATCH + 1,)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Attention(8, 3, 4), "heads must divide the 8 features of attention, got 3"),
        (lambda: Attention(6, 2, 4, rotary=True), "heads of even width, got 6 features / 2 heads"),
        (lambda: Attention(8, 2, 0), "window must be at least 1 step, got 0"),
        (lambda: S4D(8, 5), "state must be even, at least 2, got 5"),
        (lambda: LRU(8, 4, r_max=1.5), "0 <= r_min < r_max <= 1, got 0.0 and 1.5"),
        (lambda: Mamba(8, chunk=0), "chunk must be at least 1 step, got 0"),
        (lambda: Mamba2(8, head=5), r"must divide the 16 inner features \(2 times 8\), got 5"),
        (lambda: Mamba2(8, head=4, groups=3), "groups must divide the 4 heads, got 3"),
        (lambda: Mamba2(8, groups=0), "groups must divide the 1 heads, got 0"),
        (lambda: Mamba2(8, chunk=0), "chunk must be at least 1 step, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_single_step_may_be_padding():
    # S4D has a program of its own for it.
    mixer, width = made("s4d")
    params, start = drawn(mixer, width), mid_stream(mixer, np.random.default_rng(2))
    x, lengths = jnp.full((BATCH, 1, width), jnp.nan).at[0].set(1.0), jnp.array([1, 0, 0])
    carry, y = compiled(mixer.apply)(params, x, initial_carry=start, seq_lengths=lengths)
    np.testing.assert_array_equal(carry.h[1:], start.h[1:])
    assert np.isfinite(carry.h).all()
    assert (carry.h[0] != start.h[0]).all()
    assert y[0].all()
    assert not y[1:].any()


def test_s4d_keeps_the_digits_of_a_short_step():
    """In float32 ``exp(dt a) - 1`` has one or two digits left; a step from rest is ``dt x``."""
    mixer, width = made("s4d")
    params = drawn(mixer, width)
    params["params"]["log_dt"] = jnp.full_like(params["params"]["log_dt"], np.log(1e-6))
    x = jnp.asarray(normal(BATCH, 1, width), jnp.float32)
    carry, _ = compiled(mixer.apply)(params, x)
    wanted = np.broadcast_to(1e-6 * np.asarray(x[:, 0, :, None]), carry.h.shape)
    np.testing.assert_allclose(carry.h, wanted, rtol=1e-4)


@pytest.mark.parametrize("kind", [S4D, LRU])
def test_a_width_that_cannot_be_added_is_refused(kind):
    with pytest.raises(ValueError, match="inputs must be 8 wide, as outputs, got 5"):
        jax.eval_shape(kind(8, 4).init, jax.random.key(0), jnp.ones((2, 3, 5)))


def test_attention_to_both_sides_sees_all_that_counts_and_no_more():
    mixer = Attention(FEATURES, num_heads=2, window=1, causal=False, rotary=True)
    x = jnp.asarray(normal(BATCH, STEPS, 5), jnp.float32)
    params = drawn(Attention(FEATURES, num_heads=2, window=1), 5)
    run = compiled(mixer.apply)
    spoilt = jnp.where(INSIDE[..., None], x, jnp.nan)
    carry, y = run(params, spoilt, seq_lengths=LENGTHS)
    assert carry is None
    assert not y[~INSIDE].any()
    chex.assert_trees_all_equal(run(params, x, seq_lengths=LENGTHS)[1], y)
    alone = run(params, x[2:, :7], seq_lengths=None)[1]
    np.testing.assert_allclose(y[2, :7], alone[0], **CLOSE)
    future = run(params, x.at[2, 6].add(1.0), seq_lengths=LENGTHS)[1]
    assert not np.isclose(future[2, :7], y[2, :7], atol=1e-4).all(-1).any()
    message = "not causal sees the whole sequence: it has no carry and no steps"
    with pytest.raises(ValueError, match=message):
        mixer.initial_carry((BATCH,))
    cache = Attention(FEATURES, num_heads=2, window=1).initial_carry((BATCH,))
    with pytest.raises(ValueError, match=message):
        mixer.apply(params, cache, x[:, 0], method="step")


def test_a_long_stream_turns_no_faster():
    # Positions are relative: after a million steps the next output is what it was after twenty.
    mixer, width = made("attention-window")
    params = drawn(mixer, width)
    x = jnp.asarray(np.tile(normal(1, 4, width), (1, 250, 1)), jnp.float32)
    run = compiled(lambda carry: mixer.apply(params, x, initial_carry=carry))
    carry, _ = run(mixer.initial_carry((1,)))
    early = run(carry)
    assert early[0].count.tolist() == [4]
    chex.assert_trees_all_equal(run(early[0]), early)
