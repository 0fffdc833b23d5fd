"""Carries as JAX's own tools take them: every leaf has the batch axes, the clock too."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import run, step
from tiers import full, tiered

import surnn_jax
from surnn_jax import cells, selective, switches
from surnn_jax.scan import share_clock

BATCH, STEPS, INPUTS, FEATURES = 3, 8, 2, 4
SWITCHES = {
    "none": None,
    "fourier": switches.fourier(STEPS, rate=0.5),
    "event": switches.event(STEPS, rate=0.5, event_features="pair"),
    "trace": switches.event(STEPS, rate=0.5, event_features="trace"),
}
each_switch = pytest.mark.parametrize("kind", tiered(SWITCHES, ["event"]))


@functools.cache
def made(kind, cell="lstm"):
    unit = selective(cell, SWITCHES[kind])
    x = jax.random.normal(jax.random.key(1), (STEPS, BATCH, INPUTS))
    return unit, jax.jit(unit.init, static_argnums=2)(jax.random.key(0), x, FEATURES), x


def close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, want)


@each_switch
def test_every_leaf_has_the_batch_axes(kind):
    unit, params, x = made(kind)
    for carry in (unit.initial_carry(params, (BATCH,)), run(unit, params, x).carry):
        assert {leaf.shape[0] for leaf in jax.tree.leaves(carry)} == {BATCH}
    two = run(unit, params, x.reshape(STEPS, 1, BATCH, INPUTS)).carry
    assert {leaf.shape[:2] for leaf in jax.tree.leaves(two)} == {(1, BATCH)}


@pytest.mark.parametrize(
    ("given", "kind"),
    tiered(
        itertools.product(["resets", "lengths"], SWITCHES),
        [("resets", "event")],
    ),
)
def test_scan_over_chunks(kind, given):
    """`lax.scan` wants the carry out as it went in."""
    unit, params, x = made(kind)
    if given == "resets":
        resets = jax.random.bernoulli(jax.random.key(2), 0.3, (STEPS, BATCH))
        parts = whole = {"resets": resets}
        parts = {"resets": resets.reshape(4, 2, BATCH)}
    else:
        lengths = jnp.array([STEPS, 3, 0], jnp.int32)
        whole = {"lengths": lengths}
        parts = {"lengths": jnp.clip(lengths[None] - jnp.arange(0, STEPS, 2)[:, None], 0, 2)}

    def chunk(carry, now):
        x, given = now
        result = run(unit, params, x, carry=carry, **given)
        return result.carry, result.outputs

    start = unit.initial_carry(params, (BATCH,))
    carry, outputs = jax.lax.scan(chunk, start, (x.reshape(4, 2, BATCH, INPUTS), parts))
    want = run(unit, params, x, **whole)
    close(outputs.reshape(want.outputs.shape), want.outputs)
    close(carry, want.carry)


@each_switch
def test_rows_are_vmapped_taken_and_restarted(kind):
    unit, params, x = made(kind)
    first = run(unit, params, x[:3]).carry
    want = run(unit, params, x[3:], carry=first)

    mapped = jax.vmap(lambda c, x: run(unit, params, x, carry=c).outputs, (0, 1), 1)
    close(mapped(first, x[3:]), want.outputs)

    beams = jnp.array([2, 0, 0])
    taken = jax.tree.map(lambda leaf: leaf[beams], first)
    got = run(unit, params, x[3:, beams], carry=taken)
    close(got.outputs, want.outputs[:, beams])
    close(got.carry, jax.tree.map(lambda leaf: leaf[beams], want.carry))

    done = jnp.array([False, True, False])

    def restarted(new, old):
        return jnp.where(done.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

    mixed = jax.tree.map(restarted, unit.initial_carry(params, (BATCH,)), first)
    got = run(unit, params, x[3:], carry=mixed)
    fresh = run(unit, params, x[3:])
    for row, one in enumerate((want, fresh, want)):
        close(got.outputs[:, row], one.outputs[:, row])


@each_switch
def test_gradient_by_a_carry(kind):
    """JAX asks for `allow_int` where a leaf is an integer; the clock's gradient is nothing."""
    unit, params, x = made(kind)
    carry = run(unit, params, x[:3]).carry

    def loss(carry):
        return jnp.sum(run(unit, params, x[3:], carry=carry).outputs ** 2)

    got = jax.jit(jax.grad(loss, allow_int=True))(carry)
    state = carry if kind == "none" else carry.cell
    nudge = jax.tree.map(
        lambda leaf: 1e-2 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), state
    )

    def moved(by):
        there = jax.tree.map(lambda leaf, n: leaf + by * n, state, nudge)
        return loss(there if kind == "none" else carry._replace(cell=there))

    slope = (moved(1.0) - moved(-1.0)) / 2
    found = got if kind == "none" else got.cell
    along = sum(jnp.vdot(n, g) for n, g in zip(*map(jax.tree.leaves, (nudge, found)), strict=True))
    np.testing.assert_allclose(along, slope, rtol=2e-2, atol=1e-5)
    if kind != "none":
        assert got.clock.dtype == jax.dtypes.float0


def test_one_clock_for_the_batch_is_one_table_for_the_batch():
    unit, params, x = made("fourier")
    fresh = run(unit, params, x[:3])
    assert fresh.update_mask.shape == (3, FEATURES)
    rows = run(unit, params, x[3:], carry=fresh.carry)
    assert rows.update_mask.shape == (STEPS - 3, BATCH, FEATURES)
    shared = share_clock({"layers": [fresh.carry]})["layers"][0]
    assert shared.clock.shape == ()
    alike = run(unit, params, x[3:], carry=shared)
    assert alike.update_mask.shape == (STEPS - 3, FEATURES)
    assert alike.carry.clock.shape == ()  # so that it can be passed on for ever
    close(alike.outputs, rows.outputs)
    close(alike.carry.cell, rows.carry.cell)
    assert alike.carry.clock == STEPS
    assert rows.carry.clock.tolist() == [STEPS] * BATCH
    one = jax.tree.map(lambda leaf: leaf[:1], fresh.carry)
    single = run(unit, params, x[3:, :1], carry=one)
    assert single.update_mask.shape == (STEPS - 3, FEATURES)
    assert single.carry.clock.tolist() == [STEPS]


@pytest.mark.full
@pytest.mark.parametrize("kind", [full("none"), "event"])
def test_a_state_as_flax_writes_it(kind):
    """A pair (c, h) of an LSTM, an array of a GRU: with a switch, its clock begins."""
    for cell in ("lstm", "gru"):
        unit, params, x = made(kind, cell)
        c, h = jax.random.normal(jax.random.key(3), (2, BATCH, FEATURES))
        state, plain = (cells.LSTMCarry(c, h), (c, h)) if cell == "lstm" else (cells.GRUCarry(h), h)
        whole = state
        if kind != "none":
            whole = unit.initial_carry(params, (BATCH,))._replace(cell=state)
        close(run(unit, params, x, carry=plain).outputs, run(unit, params, x, carry=whole).outputs)
    unit, params, x = made(kind, "lstm")
    with pytest.raises(ValueError, match=r"^carry must be .*got (tuple|ArrayImpl)"):
        surnn_jax.run(unit, params, x, carry=(c, h, h))
    with pytest.raises(ValueError, match=r"^carry must be .*got (tuple|ArrayImpl)"):
        surnn_jax.run(unit, params, x, carry=h)


@each_switch
def test_a_step_begins_a_new_sequence(kind):
    unit, params, x = made(kind)
    resets = jax.random.bernoulli(jax.random.key(2), 0.3, (STEPS, BATCH))
    begin = cells.LSTMCarry(*jax.random.normal(jax.random.key(3), (2, FEATURES)))
    whole = run(unit, params, x, resets=resets, reset_carry=begin)
    carry = None
    for t in range(STEPS):
        given = {"resets": resets[t], "reset_carry": begin}
        carry, outputs = step(unit, params, carry, x[t], **given)
        close(outputs, whole.outputs[t])
    close(carry, whole.carry)
