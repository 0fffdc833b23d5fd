"""What a run promises beside its numbers: held states, padding, packing, parts, directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import (
    BACK_ENDS,
    SWITCHES,
    UNITS,
    answer,
    assert_close,
    cotangents,
    label,
    problem,
    run,
    setting,
    solve,
    step,
    switch,
    weigh,
)
from tiers import full, tiered

from surnn_jax import selective

each_unit = pytest.mark.parametrize(
    "unit", [UNITS["dense"], full(UNITS["fourier"]), UNITS["event"]], ids=UNITS
)
the_richest = pytest.mark.parametrize(
    "unit", [full(UNITS["dense"]), full(UNITS["fourier"]), UNITS["event"]], ids=UNITS
)
WAYS = [(False, "dense"), (False, "fourier"), (True, "event")]
# An event switch has a rhythm, too.
KEPT = (WAYS[0], WAYS[2])
each_way = pytest.mark.parametrize(
    ("reverse", "unit"),
    [
        (reverse, UNITS[name]) if (reverse, name) in KEPT else full(reverse, UNITS[name])
        for reverse, name in (*WAYS, *((not reverse, name) for reverse, name in WAYS))
    ],
    ids=[f"{way}-{name}" for way in ("one way", "the other") for name in UNITS],
)
pytestmark = pytest.mark.usefixtures("float64", "compiled_back_ends")


def _equal(got, want):
    """The same tree, bit for bit."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, two in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (one.shape, one.dtype) == (two.shape, two.dtype)
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes()


# Closed switches


@pytest.mark.parametrize(
    ("kind", "backend"),
    tiered(
        [(kind, name) for kind in (SWITCHES[1], SWITCHES[3]) for name in BACK_ENDS],
        [
            (SWITCHES[1 if name == "native" else 3], name)
            for name in ("reference", "masked", "native")
        ],
    ),
    ids=label,
)
def test_a_unit_that_never_opens_passes_state_and_gradient_through(kind, backend):
    unit = selective("lstm", switch(kind))
    task = problem(unit, 0, resets=False)
    task.free["params"]["switch"]["b"] -= 1000.0
    shapes = cotangents(0, jax.eval_shape(lambda: solve(unit, *task, "masked")))
    weights = jax.tree.map(np.ones_like, shapes)
    result, grad = answer(unit, task, weights, backend)
    assert result.rate == 0
    _equal(result.carry.cell, task.free["cell"])
    # One for each carry, one for the end, and h once more for each output within the length.
    held = len(task.free["x"]) + 1.0
    np.testing.assert_array_equal(grad["cell"].c, jnp.full_like(grad["cell"].c, held))
    shown = task.given["lengths"][:, None].astype(jnp.float64)
    np.testing.assert_array_equal(grad["cell"].h - held, jnp.broadcast_to(shown, (3, 6)))
    assert not any(leaf.any() for leaf in jax.tree.leaves(grad["params"]))


# Padding


@each_way
def test_promise_3_what_the_padding_contains_changes_no_bit(unit, reverse):
    params, x, carry, begin, given = setting(unit)
    lengths = np.array([4, 6, 0])
    padding = np.arange(6)[:, None] >= lengths

    @jax.jit
    def results(fill, padded):
        flags = {k: jnp.where(padding, padded, given[k]) for k in ("mask", "resets")}
        flags |= {"lengths": lengths, "reverse": reverse}

        def loss(free):
            params, x, begin = free
            result = run(unit, params, x, carry=carry, reset_carry=begin, **flags)
            return weigh(result, cotangents(0, result)), result

        filled = jnp.where(padding[..., None], fill, x)
        return jax.grad(loss, has_aux=True)((params, filled, begin))

    grad, result = results(0.0, False)
    for fill, padded in ((jnp.nan, True), (1e300, True), (-jnp.inf, False)):
        _equal(results(fill, padded), (grad, result))
    assert not grad[1][padding].any()
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grad))
    assert not result.outputs[padding].any()
    if not reverse:
        assert (result.outputs[~padding] != 0).all()
    cell = result.carry.cell if unit.switch is not None else result.carry
    start = carry.cell if unit.switch is not None else carry
    _equal(jax.tree.map(lambda leaf: leaf[2], cell), jax.tree.map(lambda leaf: leaf[2], start))
    if unit.switch is not None:
        assert result.carry.clock[2] == carry.clock[2]
        if unit.switch.uses_previous_input:
            _equal(result.carry.previous[2], carry.previous[2])


@each_way
def test_promise_3_padding_equals_no_padding(unit, reverse):
    """Values and gradients of 4 steps are those of the first 4 of 6."""
    params, x, carry, begin, _ = setting(unit)
    lengths = jnp.full((3,), 4, jnp.int32)
    weights = np.random.default_rng(1).normal(size=(4, 3, 6))

    def loss(free, padded):
        params, x, carry, begin = free
        if unit.switch is not None:
            carry = carry._replace(clock=jnp.full((3,), 2, jnp.int32))
        flags = {"lengths": lengths} if padded else {}
        x = x if padded else x[:4]
        result = run(unit, params, x, carry=carry, reset_carry=begin, reverse=reverse, **flags)
        shown = (result.outputs[:4], result.carry, result.rate)
        return jnp.sum(result.outputs[:4] * weights) + result.rate, shown

    floats = carry._replace(clock=None) if unit.switch is not None else carry
    x = x.at[4:].set(jnp.nan)
    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    results = [gradient((params, x, floats, begin), padded) for padded in (True, False)]
    assert_close(results[0], results[1])


@each_unit
def test_length_beyond_the_array_is_its_length(unit):
    params, x, carry, begin, _ = setting(unit)
    six, many = (jnp.full((3,), n, jnp.int32) for n in (6, 99))
    want = run(unit, params, x, carry=carry, reset_carry=begin, lengths=six)
    _equal(run(unit, params, x, carry=carry, reset_carry=begin, lengths=many), want)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32", "int64"])
def test_lengths_of_any_integer_dtype(dtype):
    """Also where the number of steps does not fit the dtype."""
    unit = UNITS["dense"]
    params, x, *_ = setting(unit, steps=300, batch=2)
    want = run(unit, params, x, lengths=jnp.asarray([0, 100], jnp.int32), reverse=True)
    _equal(run(unit, params, x, lengths=np.array([0, 100], dtype), reverse=True), want)


# Packing


@each_way
def test_packed_sequences_equal_the_same_in_rows_of_their_own(unit, reverse):
    """Values and gradients, the first carry learned. The rows of their own are padded."""
    rows = ((3, 1, 2), (2, 4))
    params, x, _, begin, _ = setting(unit, steps=12, batch=1)
    tokens = x[:, 0]
    starts, resets = np.zeros((6, 2), bool), np.zeros((6, 2), bool)
    places = []  # of each sequence's tokens: steps and row
    for b, row in enumerate(rows):
        for i, length in enumerate(row):
            first = sum(row[:i])
            starts[first, b] = True
            places.append((np.arange(first, first + length), b))
    resets[:] = starts
    resets[0, 0] = False  # at the beginning there is nothing to forget
    packed = np.zeros((6, 2), int)
    padded = np.zeros((4, 5), int)
    lengths, used = [], 0
    for n, (steps, b) in enumerate(places):
        mine = np.arange(used, used + len(steps))
        packed[steps, b] = mine
        padded[: len(steps), n] = mine
        lengths.append(len(steps))
        used += len(steps)
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(12, 6)))
    order = {"reverse": reverse, "keep_order": True}

    def in_rows(free):
        params, tokens, begin = free
        result = run(
            unit, params, tokens[packed], reset_carry=begin, resets=jnp.asarray(resets), **order
        )
        return jnp.sum(result.outputs * weights[packed]) + result.rate, result

    def in_batch(free):
        params, tokens, begin = free
        given = jnp.asarray(lengths)
        result = run(unit, params, tokens[padded], reset_carry=begin, lengths=given, **order)
        return jnp.sum(result.outputs * weights[padded]) + result.rate, result

    free = (params, tokens, begin)
    grad, one = jax.jit(jax.grad(in_rows, has_aux=True))(free)
    want, two = jax.jit(jax.grad(in_batch, has_aux=True))(free)
    assert_close((grad, one.rate), (want, two.rate))
    for n, (steps, b) in enumerate(places):
        assert_close(
            jax.tree.map(lambda leaf, s=steps, b=b: leaf[s, b], (one.outputs, one.carries)),
            jax.tree.map(lambda leaf, n=n: leaf[: lengths[n], n], (two.outputs, two.carries)),
        )


# Holding


@each_unit
def test_mask_holds_the_state_and_hides_the_input_while_time_goes_on(unit):
    params, x, carry, begin, given = setting(unit)
    mask = given["mask"].at[2].set(False)

    def loss(x):
        result = run(unit, params, x, carry=carry, reset_carry=begin, mask=mask)
        return weigh(result, cotangents(0, result)), result

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    grad, result = gradient(x)
    assert not grad[~mask].any()
    assert grad[mask].any()
    hidden = gradient(jnp.where(mask[..., None], x, jnp.nan))
    _equal(hidden, (grad, result))
    start = carry if unit.switch is None else carry.cell
    before = jax.tree.map(lambda s, c: jnp.concatenate([s[None], c[:-1]]), start, result.carries)
    _equal(*(jax.tree.map(lambda leaf: leaf[~mask], tree) for tree in (result.carries, before)))
    if unit.switch is not None:
        _equal(result.carry.clock, carry.clock + 6)


# Batch axes


@pytest.mark.full
@the_richest
def test_any_number_of_batch_axes(unit):
    params, x, carry, begin, given = setting(unit, batch=6, seed=3)
    given = {k: given[k] for k in ("lengths", "mask", "resets")}
    order = {"reverse": True, "keep_order": True}
    want = run(unit, params, x, carry=carry, reset_carry=begin, **given, **order)

    def two(leaf, axis):
        return leaf.reshape(*leaf.shape[:axis], 2, 3, *leaf.shape[axis + 1 :])

    fields = want._fields
    axes = dict(zip(fields, (1, 0, 1, None, 1, None), strict=True))
    got = run(
        unit,
        params,
        two(x, 1),
        carry=jax.tree.map(lambda leaf: two(leaf, 0), carry),
        reset_carry=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None, None], (2, 3, 6)), begin),
        **{k: two(v, v.ndim - 1) for k, v in given.items()},
        **order,
    )
    for field in fields:
        axis, wanted = axes[field], getattr(want, field)
        if axis is not None:
            wanted = jax.tree.map(lambda leaf, a=axis: two(leaf, a), wanted)
        _equal(getattr(got, field), wanted)

    first = run(
        unit,
        params,
        x[:, :1],
        carry=jax.tree.map(lambda leaf: leaf[:1], carry),
        reset_carry=begin,
        **{k: v[..., :1] for k, v in given.items()},
        **order,
    )
    none = run(
        unit,
        params,
        x[:, 0],
        carry=jax.tree.map(lambda leaf: leaf[0], carry),
        reset_carry=begin,
        **{k: v[..., 0] for k, v in given.items()},
        **order,
    )
    for field in fields:
        axis, wanted = axes[field], getattr(first, field)
        if axis is not None:
            wanted = jax.tree.map(lambda leaf, a=axis: jnp.squeeze(leaf, a), wanted)
        _equal(getattr(none, field), wanted)


def test_update_mask_of_a_rhythm_is_shared_by_the_batch_until_clocks_differ():
    unit = UNITS["fourier"]
    params, x, *_ = setting(unit)
    assert run(unit, params, x).update_mask.shape == (6, 6)
    resets = jnp.zeros((6, 3), bool).at[2, 1].set(True)
    assert run(unit, params, x, resets=resets).update_mask.shape == (6, 3, 6)
    assert run(UNITS["event"], setting(UNITS["event"])[0], x).update_mask.shape == (6, 3, 6)
    dense = run(UNITS["dense"], setting(UNITS["dense"])[0], x)
    assert (dense.update_mask, dense.rate) == (None, 1)


# In parts


@each_way
def test_parts_equal_the_whole(unit, reverse):
    """Of 2, 0 and 4 steps, the carry passed on; backwards the last part comes first."""
    params, x, carry, begin, given = setting(unit)
    given = {k: given[k] for k in ("mask", "resets")}
    if reverse:  # backwards, the part before has to begin within a sequence
        given["resets"] = given["resets"].at[2].set(False)
    lengths = np.array([6, 3, 0])
    order = {"reverse": reverse, "keep_order": True, "reset_carry": begin}
    whole = run(unit, params, x, carry=carry, lengths=lengths, **given, **order)
    parts, places = [], [(0, 2), (2, 2), (2, 6)]
    for first, last in places[::-1] if reverse else places:
        part = run(
            unit,
            params,
            x[first:last],
            carry=carry,
            lengths=np.clip(lengths - first, 0, last - first),
            **{k: v[first:last] for k, v in given.items()},
            **order,
        )
        carry = part.carry
        parts.append(part)
    assert_close(carry, whole.carry)
    parts = parts[::-1] if reverse else parts
    assert_close(jnp.concatenate([part.outputs for part in parts]), whole.outputs)
    if unit.switch is not None:
        inside = np.arange(6)[:, None] < lengths
        table = jnp.concatenate(
            [jnp.broadcast_to(p.update_mask, (len(p.update_mask), 3, 6)) for p in parts]
        )
        np.testing.assert_array_equal(table[inside], whole.update_mask[inside])


@each_unit
def test_promise_4_step_equals_sequence(unit):
    params, x, carry, begin, _ = setting(unit)
    whole = run(unit, params, x, carry=carry, reset_carry=begin)
    for t in range(6):
        carry, output = step(unit, params, carry, x[t], reset_carry=begin)
        assert_close(output, whole.outputs[t])
    assert_close(carry, whole.carry)


@each_unit
def test_steps_from_rest_equal_a_run_from_rest(unit):
    params, x, *_ = setting(unit)
    whole = run(unit, params, x)
    carry = unit.initial_carry(params, (3,))
    for t in range(6):
        carry, output = step(unit, params, carry, x[t])
        assert_close(output, whole.outputs[t])
    assert_close(carry, whole.carry)


# Backwards


@the_richest
def test_reverse_is_flipping_each_sequence_by_hand(unit):
    params, x, _, begin, given = setting(unit)
    lengths, mask = (4, 6, 0), given["mask"]
    flags = {"reset_carry": begin, "lengths": jnp.asarray(lengths), "mask": mask}
    straight = run(unit, params, x, reverse=True, **flags)
    ordered = run(unit, params, x, reverse=True, keep_order=True, **flags)
    _equal(ordered.carry, straight.carry)
    _equal(ordered.rate, straight.rate)
    for b, n in enumerate(lengths):
        by_hand = run(unit, params, x[:n, b][::-1], reset_carry=begin, mask=mask[:n, b][::-1])
        for got, want in (
            (straight.outputs[:n, b], by_hand.outputs),
            (ordered.outputs[:n, b], by_hand.outputs[::-1]),
            (ordered.carries.h[:n, b], by_hand.carries.h[::-1]),
        ):
            assert_close(got, want)
        if unit.switch is not None:
            np.testing.assert_array_equal(ordered.update_mask[:n, b], by_hand.update_mask[::-1])
            table = straight.update_mask
            table = jnp.broadcast_to(table if table.ndim == 3 else table[:, None], (6, 3, 6))
            np.testing.assert_array_equal(table[:n, b], by_hand.update_mask)
    plain = run(unit, params, x, reverse=True, keep_order=True)
    assert_close(plain.outputs, run(unit, params, x[::-1]).outputs[::-1])
