"""Surrogates: the value of a switch and the slope that replaces its derivative."""

import core_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import GATES, label
from tiers import full

from surnn_jax import switches

each_gate = pytest.mark.parametrize("gate", GATES, ids=label)
pytestmark = pytest.mark.usefixtures("float64")


@each_gate
def test_gate_is_what_the_equation_says(gate):
    a = np.concatenate([np.linspace(-1.5, 1.5, 31), [np.inf, -np.inf, -0.0, 1e-300]])
    np.testing.assert_allclose(gate.value(jnp.asarray(a)), core_oracle.value(gate, a), 1e-12)
    # exp overflows quietly where a is infinite
    with np.errstate(over="ignore"):
        slope = core_oracle.slope(gate, a)
    np.testing.assert_allclose(gate.slope(jnp.asarray(a)), slope, rtol=1e-12, atol=1e-300)
    assert gate.hard == set(np.asarray(gate.value(jnp.asarray(a)))).issubset({0.0, 1.0})


@each_gate
def test_derivative_of_a_gate_is_its_slope(gate):
    a = jnp.linspace(-1.5, 1.5, 31)
    value, pull = jax.vjp(gate, a)
    np.testing.assert_array_equal(value, gate.value(a))
    np.testing.assert_allclose(pull(jnp.full_like(a, 3.0))[0], 3.0 * gate.slope(a), rtol=1e-14)
    moved = jax.jvp(gate, (a,), (jnp.ones_like(a),))[1]
    np.testing.assert_allclose(moved, gate.slope(a), rtol=1e-14)


@pytest.mark.parametrize(
    "gate", [switches.triangular(), switches.triangular(0.1), switches.sigmoid()]
)
def test_surrogate_integrates_to_one(gate):
    """As the derivative of a step does. Nothing is beyond the support of a window."""
    a = np.linspace(-8, 8, 160_001)
    assert np.trapezoid(gate.slope(jnp.asarray(a)), a) == pytest.approx(1, abs=1e-6)
    outside = jnp.asarray([gate.support, -gate.support, 2 * gate.support])
    assert not gate.slope(outside).any()


def test_soft_gate_has_its_true_derivative():
    gate, a, eps = switches.soft(3.0), jnp.linspace(-2, 2, 21), 1e-6
    difference = (gate.value(a + eps) - gate.value(a - eps)) / (2 * eps)
    np.testing.assert_allclose(gate.slope(a), difference, rtol=1e-8)


@each_gate
@pytest.mark.parametrize("dtype", ["float32", full("float64"), full("bfloat16")])
def test_nan_is_neither_open_nor_closed(gate, dtype):
    a = jnp.asarray([jnp.nan, 1.0], dtype)
    value, pull = jax.vjp(gate, a)
    assert value.dtype == dtype
    assert jnp.isnan(value).tolist() == [True, False]
    slope = pull(jnp.ones_like(a))[0]
    assert jnp.isnan(slope).tolist() == [gate.name != "straight_through", False]


def test_gates_by_name():
    assert [switches.get_surrogate(name) for name in switches.SURROGATES] == [
        switches.triangular(0.25),
        switches.sigmoid(4.0),
        switches.straight_through(),
        switches.soft(8.0),
    ]
    assert switches.get_surrogate(GATES[0]) is GATES[0]
    assert switches.fourier(9).gate == switches.triangular(0.25)


def test_names_in_old_records_are_read():
    assert switches.get_surrogate("window") == switches.triangular()
    assert switches.get_surrogate("identity") == switches.straight_through()
    assert switches.fourier(9, gate="sigmoid").gate == switches.sigmoid()
