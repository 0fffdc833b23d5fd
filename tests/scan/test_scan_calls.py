"""The public calls under JAX's transformations, and what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import (
    BACK_ENDS,
    SWITCHES,
    UNITS,
    assert_close,
    label,
    problem,
    setting,
    solve,
    switch,
)
from tiers import full, tiered

from surnn_jax import cells, run, selective, step, switches
from surnn_jax.scan import BACKENDS

each_unit = pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
pytestmark = pytest.mark.usefixtures("float64")


# Transformations


@pytest.mark.parametrize("kind", [full(SWITCHES[1]), SWITCHES[3]], ids=label)
def test_transformations(kind):
    """jit, vmap over parameters, and rematerialisation change no number of the default back end."""
    unit = selective("gru", switch(kind))
    free, given = problem(unit, 5)

    def loss(free, backend="masked"):
        result = solve(unit, free, given, backend)
        return jnp.sum(result.outputs**2) + result.rate

    def of_params(params, backend="masked"):
        return jax.value_and_grad(loss)({**free, "params": params}, backend)

    want = of_params(free["params"], "reference")
    assert_close(jax.jit(of_params)(free["params"]), want)
    again = jax.value_and_grad(jax.checkpoint(loss))
    assert_close(jax.jit(again)(free), want)
    other = jax.tree.map(lambda leaf: leaf * 0.5, free["params"])
    stacked = jax.tree.map(lambda p, q: jnp.stack([p, q]), free["params"], other)
    both = jax.jit(jax.vmap(of_params))(stacked)
    assert_close(jax.tree.map(lambda leaf: leaf[0], both), want)
    assert_close(jax.tree.map(lambda leaf: leaf[1], both), of_params(other, "reference"))


@pytest.mark.parametrize(
    "backend",
    tiered([name for name in BACK_ENDS if name != "reference"], ("native",)),
)
def test_promise_11_gradient_in_shard_map(backend):
    """On two devices, half of the batch each, with JAX's check of what varies: that of one."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    unit = selective("gru", switch(SWITCHES[1]))
    x = jax.random.normal(jax.random.key(0), (3, 4, 3), jnp.float64)
    params = jax.jit(lambda x: unit.init(jax.random.key(1), x, 5, jnp.float64))(x)

    @functools.partial(jax.grad, argnums=(0, 1))
    def gradient(params, x):
        return jnp.sum(run(unit, params, x, backend=backend).outputs ** 2)

    @jax.jit
    @jax.shard_map(
        mesh=mesh,
        in_specs=(jax.P(), jax.P(None, "data")),
        out_specs=(jax.P(), jax.P(None, "data")),
        check_vma=True,
    )
    def sharded(params, x):
        return gradient(params, x)

    assert_close(sharded(params, x), jax.jit(gradient)(params, x))


@pytest.mark.parametrize(
    ("unit", "backend"),
    tiered(
        [(name, "masked") for name in UNITS]
        + [("fourier", name) for name in BACK_ENDS if name != "masked"],
        [("event", "masked"), ("fourier", "rows"), ("fourier", "native")],
    ),
)
def test_promise_10_one_trace_a_shape(unit, backend):
    """Neither lengths, mask, resets, parameters nor the rate are part of what is compiled."""
    unit, traced = UNITS[unit], []

    @jax.jit
    def outputs(free, given):
        traced.append(free["x"].shape)
        return solve(unit, free, given, backend).outputs

    for seed in range(3):
        task = problem(unit, seed)
        if unit.switch is not None:
            task.free["params"]["switch"]["b"] += 1000.0 * (seed - 1)
        outputs(*task)
    assert traced == [(4, 3, 2)]
    outputs(*problem(unit, 0, steps=2))
    assert traced == [(4, 3, 2), (2, 3, 2)]


@each_unit
def test_one_trace_for_a_stream(unit):
    """A carry goes in as it came out."""
    params, x, *_ = setting(unit)
    traced = []

    @jax.jit
    def forward(carry, frame):
        traced.append(0)
        return step(unit, params, carry, frame)[0]

    carry = unit.initial_carry(params, (3,))
    for t in range(3):
        carry = forward(carry, x[t])
    assert len(traced) == 1


# Errors


def _call(unit="fourier", change=None, **options):
    unit = UNITS[unit]
    params, x, *_ = setting(unit)
    if change is not None:
        params, x = change(params, x)
    return run(unit, params, x, **options)


def _carry(unit, **fields):
    params = setting(UNITS[unit])[0]
    return UNITS[unit].initial_carry(params, (3,))._replace(**fields)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            f"^unknown back end 'fast'; one of: auto, {', '.join(BACKENDS)}$",
            lambda: _call(backend="fast"),
        ),
        (
            r"^inputs must have shape \[T, \*batch, 2\] for these parameters, got \(6, 3, 5\)$",
            lambda: _call(change=lambda p, x: (p, jnp.zeros((6, 3, 5)))),
        ),
        (
            r"^inputs must have shape \[T, \*batch, 2\] .* got \(2,\)$",
            lambda: _call(change=lambda p, x: (p, x[0, 0])),
        ),
        (
            "^inputs must be floating point, got int32$",
            lambda: _call(change=lambda p, x: (p, x.astype(jnp.int32))),
        ),
        (
            "^the unit has a switch, but its parameters have no entry 'switch'$",
            lambda: _call(change=lambda p, x: ({"cell": p["cell"]}, x)),
        ),
        (
            r"^lengths must be integers of shape \(3,\), got int32 of shape \(2,\)$",
            lambda: _call(lengths=jnp.ones((2,), jnp.int32)),
        ),
        (
            r"^lengths must be integers of shape \(3,\), got float32 of shape \(3,\)$",
            lambda: _call(lengths=jnp.ones((3,), jnp.float32)),
        ),
        (
            r"^mask must be booleans of shape \(6, 3\), got bool of shape \(3, 6\)$",
            lambda: _call(mask=jnp.ones((3, 6), bool)),
        ),
        (
            r"^mask must be booleans of shape \(6, 3\), got float32 of shape \(6, 3\)$",
            lambda: _call(mask=jnp.ones((6, 3), jnp.float32)),
        ),
        (
            r"^resets must be booleans of shape \(6, 3\), got int32 of shape \(6, 3\)$",
            lambda: _call(resets=jnp.ones((6, 3), jnp.int32)),
        ),
        (
            "^carry must be a SelectiveCarry, got LSTMCarry$",
            lambda: _call(carry=_carry("fourier").cell),
        ),
        (
            "^carry must be a TanhCarry, got SelectiveCarry$",
            lambda: _call("dense", carry=_carry("fourier")),
        ),
        (
            r"^carry\.h must have shape \(3, 6\), got \(3, 5\)$",
            lambda: _call("dense", carry=cells.TanhCarry(jnp.zeros((3, 5)))),
        ),
        (
            r"^carry\.cell\.c must have shape \(3, 6\), got \(2, 6\)$",
            lambda: _call(
                carry=_carry("fourier", cell=cells.LSTMCarry(jnp.zeros((2, 6)), jnp.zeros((3, 6))))
            ),
        ),
        (
            r"^carry\.previous must have shape \(3, 2\), got \(3, 1\)$",
            lambda: _call("event", carry=_carry("event", previous=jnp.zeros((3, 1)))),
        ),
        (
            r"^carry\.clock must have shape \(\) or \(3,\), got \(2,\)$",
            lambda: _call(carry=_carry("fourier", clock=jnp.zeros((2,), jnp.int32))),
        ),
        (
            "^carry.clock must fit into int32, got 2147483648$",
            lambda: _call(carry=_carry("fourier", clock=np.int64(2**31))),
        ),
        (
            "^unknown cell 'gnu'; did you mean 'gru'\\? One of: tanh, gru, ",
            lambda: selective("gnu", None),
        ),
    ],
)
def test_what_cannot_be_run(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_switch_and_cell_by_name():
    unit = selective("lstm", switches.fourier(9))
    assert unit.cell is cells.LSTM
    assert unit.switch == switches.fourier(9)
