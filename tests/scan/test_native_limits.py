"""The compiled kernel where 32 bits end, and in a forked child."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from surnn_jax import cells, switches
from surnn_jax.scan import ScanSpec, native
from surnn_jax.scan.native import build
from surnn_jax.scan.spec import ScanShape


@pytest.mark.full
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_at_its_limits(tmp_path):
    """Inputs of more than 2^31 numbers, and a child forked after use: `native_limits.cc`."""
    guard = "-fsanitize=address,undefined"
    base = [
        *build.compiler().split(),
        "-std=c++17",
        "-O1",
        "-g",
        guard,
        "-fno-sanitize-recover=all",
    ]
    base += ["-DSURNN_ROLLED", "-DSURNN_BYTES=16", "-DSURNN_ISA=portable", f"-I{build.SOURCES}"]
    limits = Path(__file__).parents[1] / "support" / "native_limits.cc"
    program = tmp_path / "limits"
    sources = [str(build.SOURCES / "kernel.cc"), str(limits)]
    subprocess.run([*base, *sources, "-o", str(program), "-pthread"], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("features", [0, (1 << 20) + 1])
def test_neurons_that_it_cannot_count_run_dense(features):
    """Places in arrays have 64 bits, but neurons have 32. No memory is taken to see it."""
    spec = ScanSpec(cells.TANH, switches.triangular(), jnp.dtype("float32"))
    shape = ScanShape(5, 3, features, jnp.dtype("float32"), False, "cpu")
    assert f"{features} neurons" in native.unsupported(spec, shape)


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_children_of_a_loader_leave_the_parent_right():
    """Forked after use and gone again, they take none of the threads along that the parent uses."""
    code = """
import os, jax, jax.numpy as jnp, numpy as np
from surnn_jax import run, selective, switches
unit = selective("gru", switches.fourier(50, rate=0.2))
x = jax.random.normal(jax.random.key(0), (50, 16, 8))
params = unit.init(jax.random.key(1), x, 32)
loss = lambda params: jnp.sum(run(unit, params, x, backend="native").outputs ** 2)
gradient = jax.jit(jax.value_and_grad(loss))
before = jax.block_until_ready(gradient(params))
children = []
for _ in range(4):
    children.append(os.fork())
    if not children[-1]:
        os._exit(int(np.arange(10).sum() != 45))
    jax.tree.map(np.testing.assert_array_equal, gradient(params), before)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
