"""Calls outside `jit`, as in a notebook: nothing is compiled after the first ones."""

import time

import jax
import jax.numpy as jnp
import pytest
from tiers import tiered

from surnn_jax import switches
from surnn_jax.layers import Recurrent, UnitCell, mixers

BATCH, INPUTS, FEATURES = 2, 3, 8
SWITCHES = {"none": None, "fourier": switches.fourier(100), "event": switches.event(100)}


def stream(name, kind):
    """A step ``(carry, x) -> (carry, y)`` that is not jitted, and its first carry."""
    x = jax.random.normal(jax.random.key(0), (BATCH, 5, INPUTS))
    if name == "mixer":
        layer = mixers.make(kind, INPUTS + 1, mixers.Options(num_heads=2))
        x = jnp.concatenate([x, x[..., :1]], axis=-1)
    else:
        layer = (UnitCell if name == "cell" else Recurrent)("gru", FEATURES, SWITCHES[kind])
    if name == "cell":
        carry = layer.initialize_carry(None, x[:, 0].shape)
        variables = jax.jit(layer.init)(jax.random.key(1), carry, x[:, 0])
        return lambda carry: layer.apply(variables, carry, x[:, 0]), carry
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    carry = layer.apply(variables, (BATCH,), method="initial_carry")
    if name == "sequence":
        options = {"return_carry": True}
        return lambda carry: layer.apply(variables, x, initial_carry=carry, **options), carry
    return lambda carry: layer.apply(variables, carry, x[:, 0], method="step"), carry


@pytest.mark.parametrize(
    ("name", "kind"),
    tiered(
        [
            *((name, kind) for name in ("step", "cell") for kind in SWITCHES),
            ("sequence", "event"),
            *(("mixer", kind) for kind in ("attention", "s4d", "lru", "mamba", "mamba2")),
        ],
        [
            ("step", "event"),
        ],
    ),
)
def test_a_loop_outside_jit_compiles_nothing_after_its_first_steps(name, kind):
    step, carry = stream(name, kind)
    for _ in range(3):
        carry, outputs = step(carry)
    compiled, seconds = [], []

    def note(event, duration, **more):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        for _ in range(50):
            start = time.process_time()  # whatever else the machine does
            carry, outputs = step(carry)
            outputs.block_until_ready()
            seconds.append(time.process_time() - start)
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert not compiled
    if name != "mixer":  # those are more operations, each dispatched by itself
        assert sorted(seconds)[25] < 0.02
