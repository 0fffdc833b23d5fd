"""Derivatives of every order and mode, and JAX's own checks of numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import (
    BACK_ENDS,
    GATES,
    SWITCHES,
    assert_close,
    label,
    problem,
    random_like,
    setting,
    solve,
    switch,
)
from jax.flatten_util import ravel_pytree
from tiers import full, tiered

from surnn_jax import run, selective, switches
from surnn_jax.scan import derivatives
from surnn_jax.scan.twin import twin

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("gate", [switches.triangular(), *map(full, GATES[1:])], ids=label)
def test_debug_nans_is_silent_on_finite_numbers(gate):
    """A switch makes no NaN on the way to its value, whether operations run alone or compiled."""
    unit = selective("tanh", switches.fourier(9, gate=gate))
    params, x, *_ = setting(unit, steps=3)

    def loss(params, backend):
        return jnp.sum(run(unit, params, x, backend=backend).outputs ** 2)

    with jax.debug_nans(True):
        gate.value(jnp.array([-1.0, 0.0, 1.0]))
        for backend in ("reference", "masked"):
            assert jnp.isfinite(jax.value_and_grad(loss)(params, backend)[0])
    assert jnp.isnan(gate.value(jnp.array([jnp.nan]))).all()


@pytest.mark.full
@pytest.mark.parametrize("kind", [SWITCHES[1], SWITCHES[3]], ids=label)
def test_debug_nans_is_silent_on_a_new_switch(kind):
    """Thresholds and phases are made without a NaN, also in float32."""
    unit = selective("tanh", switch(kind))
    x = jax.random.normal(jax.random.key(0), (5, 2, 3), jnp.float32)
    with jax.debug_nans(True):
        params = unit.init(jax.random.key(1), x, 4, jnp.float32)
        outputs = run(unit, params, x, backend="masked").outputs
    assert jnp.isfinite(outputs).all()


KINDS = [SWITCHES[1], *(pytest.param(k, marks=pytest.mark.full) for k in (SWITCHES[3], None))]
EVERY = tiered([name for name in (*BACK_ENDS, "auto") if name != "reference"], ("masked", "rows"))


# What makes a second derivative is one for all back ends, see `derivatives`.
ONE = tiered([name for name in (*BACK_ENDS, "auto") if name != "reference"], ("masked",))


def _once(function):
    """`function`, which is run once for each kind: a kind has options, which cannot be hashed."""
    made = {}

    def kept(*kind, **options):
        key = repr((kind, options))
        if key not in made:
            made[key] = function(*kind, **options)
        return made[key]

    return kept


@_once
def _case(kind, cell="gru", steps=3):
    """A unit, a loss of everything free by a back end, where to differentiate it, and whither."""
    unit = selective(cell, None if kind is None else switch(kind, gate=switches.sigmoid()))
    free, given = problem(unit, 3, steps=steps, features=4)
    free["x"] = jnp.nan_to_num(free["x"])

    def loss(free, backend):
        result = solve(unit, free, given, backend)
        return jnp.sum(jnp.sin(result.outputs)) + result.rate**2

    along = random_like(np.random.default_rng(1), free)
    return loss, free, along


def _inner(one, two):
    return sum(jnp.vdot(p, q) for p, q in zip(*map(jax.tree.leaves, (one, two)), strict=True))


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("kind", KINDS, ids=label)
def test_forward_mode(kind, backend):
    """`jvp` and `linearize` give the product of the gradient with the direction."""
    loss, free, along = _case(kind)

    @jax.jit
    def forward(free, along):
        run = lambda free: loss(free, backend)  # noqa: E731
        return jax.jvp(run, (free,), (along,)), jax.linearize(run, free)[1](along)

    (value, moved), linear = forward(free, along)
    want, slope = _wanted(kind)
    assert_close((value, moved, linear), (want, *[slope] * 2))


@_once
def _wanted(kind):
    """The reference's value, and the product of its gradient with the direction."""
    loss, free, along = _case(kind)

    @jax.jit
    def product(free):
        value, gradient = jax.value_and_grad(loss)(free, "reference")
        return value, _inner(gradient, along)

    return product(free)


@pytest.mark.parametrize("backend", ONE)
@pytest.mark.parametrize("kind", KINDS, ids=label)
def test_second_order(kind, backend):
    """The gradient of a gradient, and both mixed orders, give one Hessian: the plain loop's."""
    loss, free, along = _case(kind, steps=2)

    @jax.jit
    def products(free):
        run = lambda free: loss(free, backend)  # noqa: E731
        return {
            "reverse over reverse": jax.grad(lambda f: _inner(jax.grad(run)(f), along))(free),
            "forward over reverse": jax.jvp(jax.grad(run), (free,), (along,))[1],
            "reverse over forward": jax.grad(lambda f: jax.jvp(run, (f,), (along,))[1])(free),
        }

    @jax.jit
    def wanted(free):
        gradient = jax.grad(lambda free: loss(free, "reference"))
        return jax.jvp(gradient, (free,), (along,))[1]

    want = wanted(free)
    for product in products(free).values():
        assert_close(product, want, 1e-8, 1e-10)


@pytest.mark.full
@pytest.mark.parametrize("cell", ["sa_gru", "skip_gru"])
def test_second_order_of_units_that_decide(cell):
    """Straight through a rounding, at every order: three ways, one answer."""
    loss, free, along = _case(None, cell, steps=2)

    @jax.jit
    def products(free):
        def by(backend):
            return lambda free: loss(free, backend)

        return [
            jax.grad(lambda f: jax.jvp(by("reference"), (f,), (along,))[1])(free),
            jax.grad(lambda f: _inner(jax.grad(by("masked"))(f), along))(free),
            jax.jvp(jax.grad(by("masked")), (free,), (along,))[1],
        ]

    want, *got = products(free)
    assert_close(got, [want, want], 1e-8, 1e-10)


@pytest.mark.full
def test_jacobians_and_vmap():
    """`jacfwd`, `hessian`, gradients of `vmap` and `vmap` of gradients, on the default back end."""
    unit = selective("tanh", switch(SWITCHES[1], gate=switches.sigmoid()))
    params, x, *_ = setting(unit, steps=3, features=3)

    def outputs(x, backend="auto"):
        return run(unit, params, x, backend=backend).outputs

    def loss(x, backend="auto"):
        return jnp.sum(outputs(x, backend) ** 3)

    forward, wanted = jax.jit(jax.jacfwd(outputs)), jax.jit(jax.jacrev(outputs), static_argnums=1)
    assert_close(forward(x), wanted(x, "reference"))
    hessian = jax.jit(jax.hessian(loss))(x)
    size = x.size
    square = hessian.reshape(size, size)
    assert_close(square, square.T, 1e-8, 1e-10)
    assert_close(jax.jit(jax.jacrev(jax.jacrev(loss)))(x), hessian, 1e-8, 1e-10)
    two = jnp.stack([x, 0.5 * x])
    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    want = jnp.stack([gradient(one, "reference") for one in two])
    assert_close(jax.jit(jax.grad(lambda two: jnp.sum(jax.vmap(loss)(two))))(two), want)
    assert_close(jax.jit(jax.vmap(jax.grad(loss)))(two), want)


@pytest.mark.full
def test_a_soft_hessian_is_that_of_differences():
    """Without a surrogate, second derivatives are those of the function itself."""
    unit = selective("lstm", switch(SWITCHES[1], gate=switches.soft(3.0)))
    params, x, *_ = setting(unit, steps=3, features=3)
    along = random_like(np.random.default_rng(2), params)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: jnp.sum(run(unit, p, x).outputs ** 2))(params)

    def moved(by):
        return gradient(jax.tree.map(lambda p, d: p + by * d, params, along))

    found = jax.jit(lambda p: jax.jvp(gradient, (p,), (along,))[1])(params)
    want = jax.tree.map(lambda p, q: (p - q) / 2e-5, moved(1e-5), moved(-1e-5))
    assert_close(found, want, 1e-5, 1e-7)


@pytest.mark.parametrize("backend", EVERY)
def test_a_gradient_runs_the_kernels_alone(backend):
    """The twin costs nothing unless it is asked for; that is settled before XLA compiles."""
    loss, free, _ = _case(SWITCHES[1], steps=2)
    calls = []

    def counted(*args):
        calls.append(args)
        return twin(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derivatives, "twin", counted)
        jax.jit(jax.grad(lambda f: loss(f, backend))).lower(free)
        assert not calls
        jax.jit(lambda f: jax.jvp(lambda f: loss(f, backend), (f,), (f,))).lower(free)
    assert calls


@pytest.mark.full
@pytest.mark.parametrize(
    ("backend", "order", "cell"),
    [
        *((name, 2, "gru") for name in ("native", "reference", "masked", "compact", "rows")),
        *((name, 3, "tanh") for name in ("reference", "masked", "native")),
        ("parallel", 3, "min_gru"),
        ("masked", 3, "skip_gru"),
    ],
)
def test_reverse_over_reverse_inside_a_loop(backend, order, cell):
    """`lax.scan` keeps no rule of `custom_jvp` there: hard switches had no second derivative."""
    switch = None if cell == "skip_gru" else switches.fourier(6, rate=0.4, gate=switches.sigmoid())
    unit = selective(cell, switch)
    # What a third derivative compiles grows with every step and neuron.
    chunks, steps, batch, size = (3, 2, 4, 3) if order == 2 else (2, 2, 1, 2)
    x = jax.random.normal(jax.random.key(0), (chunks, steps, batch, size), jnp.float64)
    params = unit.init(jax.random.key(1), x[0], size, jnp.float64)
    flat, restore = ravel_pytree(params)

    def loss(flat, loops):
        params = restore(flat)

        def one(carry, x):
            done = run(unit, params, x, carry=carry, backend=backend)
            return done.carry, jnp.sum(done.outputs**2) + done.rate**2

        carry = run(unit, params, x[0], backend=backend).carry
        if loops:
            return jax.lax.scan(one, carry, x)[1].sum()
        total = 0.0
        for frames in x:
            carry, more = one(carry, frames)
            total += more
        return total

    def derivative(order, loops):
        """Along one direction: as much as a Hessian would show, at the cost of a few gradients."""
        along = jnp.cos(jnp.arange(flat.size))

        def slope(lower):
            return lambda flat: jax.grad(lower)(flat) @ along

        function = functools.partial(loss, loops=loops)
        for _ in range(order - 1):
            function = slope(function)
        return jax.grad(function)

    both = jax.jit(lambda flat: [derivative(order, loops)(flat) for loops in (True, False)])
    np.testing.assert_allclose(*both(flat), rtol=1e-9, atol=1e-11)
