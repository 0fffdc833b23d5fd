"""A cell whose rule mixes neurons is recognised, and right on every back end."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import BACK_ENDS, SWITCHES, switch
from tiers import full, tiered

from surnn_jax import cells, run, selective
from surnn_jax.cells.pointwise import rule_is_pointwise
from surnn_jax.scan import auto

pytestmark = pytest.mark.usefixtures("float64", "small_chunks")


def _normalised(params, carry, z, u):
    total = z["h"] + u["h"] + params["b"]
    total = (total - total.mean(-1, keepdims=True)) / jnp.sqrt(total.var(-1, keepdims=True) + 1e-5)
    return cells.TanhCarry(0.5 * carry.h + jnp.tanh(total))


LAYER_NORM = dataclasses.replace(cells.TANH, name="layer_norm", rule=_normalised)


@functools.cache
def _posed(kind):
    """The gradient as a function of the back end, and what the plain loop gives."""
    unit = selective(LAYER_NORM, switch(SWITCHES[kind], rate=0.4))
    x = jax.random.normal(jax.random.key(0), (9, 3, 2), jnp.float64)
    params = jax.jit(lambda x: unit.init(jax.random.key(1), x, 6, jnp.float64))(x)
    mask = jnp.arange(9)[:, None] != jnp.arange(3)[None]

    def loss(params, x, backend):
        done = run(unit, params, x, mask=mask, backend=backend)
        return jnp.sum(jnp.sin(done.outputs)) + done.rate, (done.outputs, done.rate)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2)
    call = functools.partial(gradient, params, x)
    return call, call("reference")


OTHERS = [name for name in BACK_ENDS if name != "reference"] + ["auto"]
# The others do not know the cell and pass it on; the kernels of `pallas` compile slowly.
SKIPPING = ("masked", "compact", "rows", "auto")


@pytest.mark.parametrize("backend", tiered(OTHERS, SKIPPING))
@pytest.mark.parametrize("kind", [0, full(3)], ids=["shared", "per_example"])
def test_every_back_end_equals_the_loop(kind, backend):
    """Values and gradients, closed neurons' part in the mean of the open ones included."""
    call, wanted = _posed(kind)
    found = call(backend)
    assert 0.2 < wanted[1][1] < 0.8
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)


def test_it_is_never_run_row_by_row():
    unit = selective(LAYER_NORM, switch(SWITCHES[0], rate=0.05, frozen=True))
    assert auto.choose(unit, 256, 1024, 16, platform="cpu").backend not in ("rows", "native")
    said = auto.explain(unit, 256, 1024, 16, platform="cpu")
    assert "rows: layer_norm needs all neurons to update one" in said


def _with(function):
    def rule(params, carry, z, u):
        return cells.TanhCarry(function(z["h"] + u["h"] + params["b"]) * carry.h)

    return dataclasses.replace(cells.TANH, rule=rule)


@jax.custom_jvp
def _mixed_derivative(v):
    return jnp.tanh(v)


_mixed_derivative.defjvp(lambda primals, tangents: (jnp.tanh(*primals), jnp.flip(*tangents, -1)))


@pytest.mark.parametrize(
    ("function", "pointwise"),
    [
        (jax.nn.gelu, True),
        (jax.nn.softplus, True),
        (jax.checkpoint(jnp.tanh), True),
        (lambda v: jnp.where(v > 0, v, 0.1), True),
        (lambda v: jax.lax.stop_gradient(v) + 1, True),
        (lambda v: v - jax.lax.stop_gradient(v.mean()), False),
        (lambda v: jnp.roll(v, 1, -1), False),
        (lambda v: jnp.flip(v, 0), False),
        (lambda v: v @ jnp.ones((v.shape[-1],) * 2, v.dtype), False),
        (lambda v: v.reshape(*v.shape[:-1], 4, -1).reshape(v.shape), False),
        (_mixed_derivative, False),
    ],
)
def test_what_counts_as_pointwise(function, pointwise):
    assert _with(function).pointwise == pointwise


def test_the_cells_that_there_are():
    """All but those that normalise and one with a product inside, whose rule is pointwise, too."""
    mixing = ["gru_layer_norm", "lstm_layer_norm"]
    assert [c.name for c in cells.CELLS.values() if not c.pointwise] == ["gru_before", *mixing]
    assert [c.name for c in cells.CELLS.values() if not c.rule_is_pointwise] == mixing


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_a_mesh_around_the_first_call_changes_nothing(kind):
    """It adds operations to every trace, and a wrong answer would be kept."""
    rule_is_pointwise.cache_clear()
    with jax.set_mesh(jax.make_mesh((2,), ("data",), axis_types=(kind,))):
        assert sum(not cell.rule_is_pointwise for cell in cells.CELLS.values()) == 2
