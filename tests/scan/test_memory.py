"""Freed memory stays in the process, unless its user decides otherwise."""

import os
import subprocess
import sys

import pytest

from surnn_jax.scan.native import library, memory

FAULTS = """
import resource
import jax, jax.numpy as jnp
import surnn_jax

call = jax.jit(lambda x: (jnp.tanh(x), x[::-1] * 2))
x = jnp.ones((9, 1024, 1024))  # 36 MB: beyond any threshold of glibc
for _ in range(3):
    jax.block_until_ready(call(x))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    jax.block_until_ready(call(x))
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 4)
"""


def faults(**environment):
    """New pages a call touches, of outputs that have 18,432."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.full
@pytest.mark.skipif(not library.FILE.exists(), reason="there is no compiled kernel")
@pytest.mark.skipif(not memory._is_glibc(), reason="there is no glibc")
def test_a_call_touches_no_new_pages():
    assert faults(SURNN_MALLOC="0") > 15_000
    # A thread that NumPy started before has an arena of its own. XLA may use it: then part of the
    # memory is given back after all (seen: 0, 0 and 11,520 pages).
    assert min(faults() for _ in range(4)) < 2_000


@pytest.mark.parametrize(
    "variable",
    ["SURNN_MALLOC=0", "MALLOC_ARENA_MAX=2", "GLIBC_TUNABLES=glibc.malloc.arena_max=1"],
)
def test_what_the_environment_says_stands(monkeypatch, variable):
    monkeypatch.setenv(*variable.split("=", 1))
    assert memory.keep_freed.__wrapped__() is False
