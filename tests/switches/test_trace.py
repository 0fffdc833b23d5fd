"""Switches that read the change of the input against averages of what came before.

`tests/scan/test_scan_backends.py` has values and gradients of whole runs, with resets, masks and
lengths and in both directions, against plain loops.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import run, step
from tiers import full

from surnn_jax import scan, selective, switches
from surnn_jax.layers import Recurrent, calibrate, export
from surnn_jax.switches import SwitchInputs, running_averages

STEPS, BATCH, INPUTS, FEATURES = 40, 3, 2, 8
SPANS = (1.0, 2.0, 7.3, 32.0)
RESETS = np.zeros((STEPS, BATCH), bool)
RESETS[[5, 17, 18], [0, 1, 1]] = True


def _x(steps=STEPS, dtype=jnp.float32, seed=0):
    return jnp.asarray(
        2 + 3 * np.random.default_rng(seed).normal(size=(steps, BATCH, INPUTS)), dtype
    )


def _unit(cell="gru", **options):
    options = {"event_features": "trace", "time_constants": SPANS, "rate": 0.3, **options}
    return selective(cell, switches.event(STEPS, **options))


_init = jax.jit(lambda unit, x: unit.init(jax.random.key(0), x, FEATURES), static_argnums=0)


def _clocks(resets):
    """Steps since the start, row by row."""
    clocks = np.zeros(resets.shape, np.int32)
    for t in range(1, len(clocks)):
        clocks[t] = np.where(resets[t], 0, clocks[t - 1] + 1)
    return clocks


def test_an_average_is_a_weighted_mean_of_all_inputs_since_the_start():
    """Equal weights up to τ inputs; then each falls by 1 - 1/τ a step, and their sum stays 1."""
    x, clocks = np.asarray(_x(), np.float64), _clocks(RESETS)
    nothing = jnp.full((BATCH, INPUTS * len(SPANS)), jnp.nan, jnp.float32)
    got = running_averages(SPANS, _x(), nothing, jnp.asarray(clocks))
    got = np.asarray(got).reshape(STEPS, BATCH, len(SPANS), INPUTS)
    for t, b, k in np.ndindex(STEPS, BATCH, len(SPANS)):
        n, span = clocks[t, b] + 1, SPANS[k]
        whole = min(n, int(span))  # the first so many share a weight
        weights = np.array([1 / whole] * whole + [0.0] * (n - whole))
        for i in range(whole, n):
            weights[:i] *= 1 - 1 / span
            weights[i] = 1 / span
        assert weights.sum() == pytest.approx(1)
        want = weights @ x[t - n + 1 : t + 1, b]
        np.testing.assert_allclose(got[t, b, k], want, rtol=1e-5, atol=1e-5)


def test_it_reads_the_input_and_its_change():
    x = _x()
    after = running_averages(SPANS, x, jnp.zeros((BATCH, 8), jnp.float32), np.arange(STEPS))
    before = np.concatenate([np.zeros_like(after[:1]), after[:-1]])
    seen = SwitchInputs(x, before, np.arange(STEPS))
    read = np.asarray(switches.EVENT_FEATURES["trace"](seen))
    x = np.asarray(x)
    assert read.shape == (STEPS, BATCH, INPUTS * (1 + len(SPANS)))
    last, slow = read[..., 2:4], read[..., -2:]
    np.testing.assert_array_equal(read[..., :2], x)
    np.testing.assert_array_equal(last[1:], x[1:] - x[:-1])  # τ = 1 is the input before
    np.testing.assert_array_equal(read[0], np.tile(x[0], (1, 1 + len(SPANS))))
    mean = np.cumsum(np.asarray(x, np.float64), 0)[:-1] / np.arange(1, STEPS)[:, None, None]
    np.testing.assert_allclose(slow[1:33], (x[1:] - mean)[:32], atol=1e-5)


def test_a_clock_beyond_int32_is_not_a_start():
    x = np.ones((1, 1, 1), np.float32)
    got = running_averages((4.0,), jnp.asarray(x), jnp.zeros((1, 1), jnp.float32), np.int32([-5]))
    assert got.tolist() == [[[0.25]]]


def test_nothing_changes_where_the_input_stands_still():
    still = jnp.broadcast_to(jnp.float32(0.1), (STEPS, BATCH, INPUTS))
    averages = running_averages(SPANS, still, jnp.zeros((BATCH, 8), jnp.float32), jnp.arange(STEPS))
    np.testing.assert_array_equal(averages, np.float32(0.1))


def _with(given):
    return {"resets": jnp.asarray(RESETS)} if given == "resets" else {}


@pytest.mark.parametrize("given", ["resets", full("nothing")])
def test_steps_and_chunks_keep_the_averages_of_the_sequence_bit_for_bit(given):
    unit, x, more = _unit(), _x(), _with(given)
    params = _init(unit, x)
    whole = run(unit, params, x, **more)
    assert 0.1 < whole.rate < 0.5
    parts, carry = [], None
    for part in (slice(0, 20), slice(20, STEPS)):
        result = run(unit, params, x[part], carry=carry, **{k: v[part] for k, v in more.items()})
        carry = result.carry
        parts.append(result.update_mask)
    np.testing.assert_array_equal(carry.previous, whole.carry.previous)
    np.testing.assert_array_equal(np.concatenate(parts), whole.update_mask)
    carry = unit.initial_carry(params, (BATCH,))
    for t, now in enumerate(x):
        before = carry.cell.h
        carry, output = step(unit, params, carry, now, **{k: v[t] for k, v in more.items()})
        np.testing.assert_allclose(output, whole.outputs[t], atol=1e-6)
        if not more:  # a reset changes closed neurons, too
            shut = np.asarray(whole.update_mask[t] == 0)
            np.testing.assert_array_equal(output[shut], before[shut])
    np.testing.assert_array_equal(carry.previous, whole.carry.previous)


@pytest.mark.full
def test_a_packed_sequence_opens_as_it_does_alone():
    """After a reset, whatever was before it: the mask and the averages at the end."""
    unit, x = _unit(), _x().at[4, 0].set(jnp.nan)
    params = _init(unit, _x())
    packed = run(unit, params, x, resets=jnp.asarray(RESETS))
    alone = run(unit, params, x[5:, :1])
    np.testing.assert_array_equal(packed.update_mask[5:, 0], alone.update_mask[:, 0])
    np.testing.assert_array_equal(packed.carry.previous[0], alone.carry.previous[0])


def test_a_masked_step_counts_as_zeros_and_padding_not_at_all():
    unit, params = _unit(), _init(_unit(), _x())
    mask = np.random.default_rng(1).random((STEPS, BATCH)) < 0.7
    lengths = jnp.asarray([STEPS, 13, 0])
    inside = mask & (np.arange(STEPS)[:, None] < np.asarray(lengths))

    @functools.partial(jax.jit, static_argnums=3)
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def solved(params, x, mask, padded):
        result = run(unit, params, x, mask=mask, lengths=lengths if padded else None)
        carried = jnp.sum(jnp.square(result.carry.previous))
        return jnp.sum(jnp.square(result.outputs)) + result.rate + carried, result

    grads, result = solved(params, jnp.where(inside[..., None], _x(), jnp.nan), mask, True)
    zeros = jnp.where(inside[..., None], _x(), 0)
    same, clean = solved(params, zeros, jnp.ones_like(mask), True)
    np.testing.assert_array_equal(result.carry.previous, clean.carry.previous)
    np.testing.assert_array_equal(result.update_mask[inside], clean.update_mask[inside])
    assert not result.carry.previous[2].any()
    assert jax.tree.all(jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), grads))
    assert not grads[1][~inside].any()
    assert same[1][~inside & (np.arange(STEPS)[:, None] < np.asarray(lengths))].any()


@pytest.mark.full
def test_a_switch_that_saw_no_data_is_made_for_noise():
    unit = _unit(rate=0.1)
    params = _init(unit, jnp.zeros((STEPS, BATCH, INPUTS), jnp.float32))
    noise = jnp.asarray(np.random.default_rng(1).normal(size=(600, BATCH, INPUTS)), jnp.float32)
    result = run(unit, params, noise)
    np.testing.assert_allclose(result.update_mask[STEPS:].mean((0, 1)), 0.1, atol=0.04)


@pytest.mark.full
def test_the_scale_of_weights_is_the_deviation_in_noise():
    made = switches.event(STEPS, event_features="trace", time_constants=SPANS, scale="weights")
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2000, BATCH, 1)), jnp.float32)
    unit = selective("tanh", made)
    params = _init(unit, x)["switch"]
    nothing = jnp.zeros((BATCH, len(SPANS)), jnp.float32)
    position = jnp.arange(len(x))
    before = scan.unit.previous_inputs(running_averages(SPANS, x, nothing, position), nothing)
    a = made.logits(params, SwitchInputs(x, before, position))
    np.testing.assert_allclose(np.std(a[100:], (0, 1)), 1, atol=0.1)


@pytest.mark.full
def test_calibrate_shows_a_layer_what_the_scan_shows():
    random = np.random.default_rng(1)
    mask, resets = (jnp.asarray(random.uniform(size=(BATCH, STEPS)) < p) for p in (0.8, 0.1))
    options = {"mask": mask, "resets": resets, "seq_lengths": jnp.asarray([STEPS, 33, 20])}
    x = jnp.moveaxis(_x(), 0, 1)
    layer = Recurrent(
        "gru", FEATURES, _unit().switch, reverse=True, keep_order=True, return_run=True
    )
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    moved = jax.jit(functools.partial(calibrate, layer))(variables, 3 + 10 * x, **options)
    result = jax.jit(layer.apply)(moved, 3 + 10 * x, **options)
    valid = mask & (jnp.arange(STEPS)[None] < options["seq_lengths"][:, None])
    each = result.update_mask[np.asarray(valid)].mean(0)
    np.testing.assert_allclose(each, 0.3, atol=1.5 / int(valid.sum()))


@pytest.mark.full
@pytest.mark.parametrize("make", ["vmap", "bfloat16", "jvp", "one example"])
def test_transformed(make):
    unit, x = _unit(), _x()
    params = _init(unit, x)
    whole = run(unit, params, x)
    if make == "vmap":
        carry = unit.initial_carry(params, (BATCH,))
        one = jax.jit(jax.vmap(lambda c, x: scan.run(unit, params, x, carry=c), (0, 1), 0))
        got = one(carry, x)
        np.testing.assert_array_equal(got.carry.previous, whole.carry.previous)
        np.testing.assert_allclose(np.moveaxis(got.outputs, 0, 1), whole.outputs, atol=1e-6)
    elif make == "one example":
        got = run(unit, params, x[:, 0])
        np.testing.assert_array_equal(got.carry.previous, whole.carry.previous[0])
        np.testing.assert_array_equal(got.update_mask, whole.update_mask[:, 0])
    elif make == "bfloat16":
        low = run(unit, params, x.astype(jnp.bfloat16), dtype=jnp.bfloat16)
        same = run(unit, params, x.astype(jnp.bfloat16).astype(jnp.float32))
        assert low.carry.previous.dtype == jnp.float32
        np.testing.assert_array_equal(low.carry.previous, same.carry.previous)
        np.testing.assert_array_equal(low.update_mask, same.update_mask)
    else:

        def averages(x):
            return run(unit, params, x).carry.previous

        forward = jax.jit(jax.jacfwd(averages))(x)
        backward = jax.jit(jax.jacrev(averages))(x)
        np.testing.assert_allclose(forward, backward, atol=1e-7)
        # The last input has the weight 1/τ in each.
        last = np.asarray(backward)[0].reshape(len(SPANS), INPUTS, STEPS, BATCH, INPUTS)
        for k, span in enumerate(SPANS):
            np.testing.assert_allclose(last[k, :, -1, 0], np.eye(INPUTS) / span, atol=1e-7)


@pytest.mark.full
def test_exported():
    layer = Recurrent("gru", FEATURES, _unit().switch)
    x = jnp.moveaxis(_x(), 0, 1)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    whole, first, one = (
        jax.export.deserialize(bytearray(make(layer, variables, x, platforms=("cpu",)))).call
        for make in (export.sequence, export.begin, export.step)
    )
    lengths = np.asarray([STEPS, 13, 0], np.int32)
    want = jax.jit(layer.apply)(variables, x, seq_lengths=lengths)
    np.testing.assert_allclose(whole(x, lengths), want, atol=1e-6)
    carry = first(x[:, 0])
    for t in range(STEPS):
        carry, output = one(carry, x[:, t])
        np.testing.assert_allclose(output[0], want[0, t], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"time_constants": (2, 8)},
            '^event: time_constants are for event_features="trace", got event_features="input"$',
        ),
        *(
            (
                {"event_features": "trace", "time_constants": wrong},
                "^event: time_constants must be a tuple of steps, each at least 1, got ",
            )
            for wrong in ((), (2, 0.5), (float("inf"),), 8, "28", (2, "8"))
        ),
    ],
)
def test_wrong_options_are_refused(options, said):
    for make in (switches.event, switches.threshold):
        with pytest.raises(ValueError, match=said):
            make(9, **options)


def test_the_constants_are_part_of_the_switch():
    made = switches.event(9, event_features="trace")
    assert made.averages == (2.0, 8.0, 32.0)
    assert switches.event(9, event_features="trace", time_constants=[4]).averages == (4.0,)
    assert hash(switches.event(9, event_features="trace", time_constants=[4])) != hash(made)
    carry = selective("gru", made).zero_carry((5,), 3, 4, jnp.float32)
    assert carry.previous.shape == (5, 9)


def test_no_steps_and_no_rows():
    """A call with none of either, as a stream that ends on the border of a chunk makes."""
    unit = _unit()
    params = jax.eval_shape(lambda x: unit.init(jax.random.key(0), x, FEATURES), _x())
    for shape in ((0, BATCH, INPUTS), (STEPS, 0, INPUTS)):
        found = jax.eval_shape(functools.partial(scan.run, unit), params, jnp.zeros(shape))
        assert found.outputs.shape == (*shape[:2], FEATURES)
        assert found.carry.previous.shape == (shape[1], INPUTS * len(SPANS))
