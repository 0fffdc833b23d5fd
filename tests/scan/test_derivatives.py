"""Derivatives of every order and mode, and JAX's own checks of numbers."""

import jax
import jax.numpy as jnp
import pytest
from core_case import GATES, SWITCHES, label, setting, switch

from surnn_jax import run, selective, switches

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("gate", [switches.triangular(), *GATES[1:]], ids=lambda g: g.name)
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


@pytest.mark.parametrize("kind", [SWITCHES[1], SWITCHES[3]], ids=label)
def test_debug_nans_is_silent_on_a_new_switch(kind):
    """Thresholds and phases are made without a NaN, also in float32."""
    unit = selective("tanh", switch(kind))
    x = jax.random.normal(jax.random.key(0), (5, 2, 3), jnp.float32)
    with jax.debug_nans(True):
        params = unit.init(jax.random.key(1), x, 4, jnp.float32)
        outputs = run(unit, params, x, backend="masked").outputs
    assert jnp.isfinite(outputs).all()
