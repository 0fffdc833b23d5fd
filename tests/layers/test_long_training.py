"""Training for thousands of steps leaves nothing behind."""

import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from surnn_jax import switches
from surnn_jax.layers import Recurrent


def held():
    """Resident bytes, descriptors, threads, temporary files, arrays."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    counts = [len(os.listdir(f"/proc/self/{what}")) for what in ("fd", "task")]
    return pages * os.sysconf("SC_PAGE_SIZE"), *counts, len(jax.live_arrays())


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")
def test_ten_thousand_steps_hold_no_more_than_a_thousand(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    layer = Recurrent("gru", 4, switches.event(6, rate=0.5))
    x = jax.random.normal(jax.random.key(0), (2, 6, 3))
    params = layer.init(jax.random.key(1), x)
    optimizer = optax.sgd(1e-2, momentum=0.9)

    @jax.jit
    def step(params, state):
        gradient = jax.grad(lambda params: jnp.mean(layer.apply(params, x) ** 2))(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for number in range(10_001):
        params, state = step(params, state)
        if number in (1000, 10_000):
            jax.block_until_ready(params)
            if number == 1000:
                before = held()
    after = held()
    assert after[0] - before[0] < 8e6
    assert after[1:] == before[1:]
    assert not list(tmp_path.iterdir())
