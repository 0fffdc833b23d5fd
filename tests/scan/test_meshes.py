"""Scans on a mesh of any kind of axes: the numbers of one device, forward and backward."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from tiers import full, tiered

from surnn_jax import run, selective, step, switches

STEPS, BATCH, WIDTH, FEATURES = 6, 8, 3, 4
CLOSE = {"rtol": 2e-5, "atol": 1e-5}
ROWS, WHOLE = jax.P(None, "data"), jax.P()
SWITCHES = {
    "always": None,
    "fourier": switches.fourier(STEPS, rate=0.5),
    "event": switches.event(STEPS, rate=0.5, event_features="pair"),
    "every": switches.every(STEPS),
    # Scaled so, gradients do not depend on which rows a device has.
    "trace": switches.event(STEPS, rate=0.5, event_features="trace", scale="weights"),
}


def mesh_of(kind, names=("data",), shape=None):
    shape = (jax.device_count(),) if shape is None else shape
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(names))


def close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), got, want)


def problem(kind, cell="gru"):
    unit = selective(cell, SWITCHES[kind])
    x = jax.random.normal(jax.random.key(0), (STEPS, BATCH, WIDTH))
    resets = jax.random.bernoulli(jax.random.key(2), 0.2, (STEPS, BATCH))
    lengths = jnp.array([6, 5, 4, 3, 2, 1, 0, 6])
    init = jax.jit(unit.init, static_argnums=2)
    return unit, (init(jax.random.key(1), x, FEATURES), x, lengths, resets)


def gradient_of(unit, backend, penalty=1.0):
    def loss(params, x, lengths, resets):
        done = run(unit, params, x, lengths=lengths, resets=resets, backend=backend)
        return jnp.sum(done.outputs**2) + penalty * done.rate, (done.outputs, done.carry)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)


def put(mesh, args):
    specs = (WHOLE, ROWS, jax.P("data"), ROWS)
    return tuple(
        jax.device_put(leaf, jax.NamedSharding(mesh, spec))
        for leaf, spec in zip(args, specs, strict=True)
    )


CASES = [
    (kind, backend, axes)
    for kind in SWITCHES
    for backend in ("masked", "compact", "rows", "native", "reference", "auto")
    for axes in (AxisType.Explicit, AxisType.Auto)
    if kind != "trace" or backend in ("masked", "native")
]
KEPT = [("event", "native", AxisType.Explicit)]


@pytest.mark.parametrize(("kind", "backend", "axes"), tiered(CASES, KEPT))
def test_a_sharded_batch_gives_the_numbers_of_one_device(kind, backend, axes):
    unit, args = problem(kind)
    gradient = jax.jit(gradient_of(unit, backend))
    want, mesh = gradient(*args), mesh_of(axes)
    with jax.set_mesh(mesh):
        got = gradient(*put(mesh, args))
    close(got, want)
    (_, (outputs, _)), (_, dx) = got
    if axes == AxisType.Explicit:
        assert outputs.sharding.spec == dx.sharding.spec == jax.P(None, "data", None)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["event", "fourier"])
def test_an_explicit_mesh_is_read_off_the_arrays(kind):
    """Without `jax.set_mesh`, and outside `jit`, too."""
    unit, args = problem(kind)
    mesh = mesh_of(AxisType.Explicit)
    params, x, *_ = put(mesh, args)
    close(run(unit, params, x), run(unit, *args[:2]))
    gradient = jax.jit(gradient_of(unit, "auto"))
    close(gradient(*put(mesh, args)), gradient(*args))
    with jax.set_mesh(mesh):
        made = unit.init(jax.random.key(1), x, FEATURES)
        carry, first = step(unit, made, None, x[0])
        assert carry.clock.sharding.spec == jax.P("data")
        assert first.sharding.spec == jax.P("data", None)
    close(made, args[0])


@pytest.mark.parametrize(
    ("kind", "backend", "axes"),
    [
        ("fourier", "native", AxisType.Explicit),
        ("event", "native", AxisType.Auto),
        *(full("fourier", name, AxisType.Explicit) for name in ("masked", "rows", "compact")),
        full("event", "masked", AxisType.Explicit),
        full("trace", "masked", AxisType.Auto),
        full("trace", "native", AxisType.Explicit),
        full("fourier", "native", AxisType.Auto),
    ],
)
@pytest.mark.parametrize("restarts", [full(False), True])
def test_nothing_gathers_the_batch(kind, backend, axes, restarts):
    """Not the table of a switch either: event switches, and clocks of each row, have one a row."""
    unit, args = problem(kind)
    mesh = mesh_of(axes)

    @jax.jit
    @jax.grad
    def gradient(params, x, resets):
        resets = resets if restarts else None
        return jnp.sum(run(unit, params, x, resets=resets, backend=backend).outputs ** 2)

    params, x, _, resets = put(mesh, args)
    with jax.set_mesh(mesh):
        program = gradient.lower(params, x, resets).compile().as_text()
    assert "all-reduce" in program
    assert "all-gather" not in program


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        ("native", "fourier"),
        *(full(name, "fourier") for name in ("masked", "compact", "rows")),
        full("native", "trace"),
    ],
)
@pytest.mark.parametrize("axes", tiered([AxisType.Auto, AxisType.Explicit], [AxisType.Explicit]))
def test_manual_axes(backend, kind, axes):
    """Inside `jax.shard_map` every device has rows of its own."""
    unit, args = problem(kind)
    # A rate is the mean of a device's own rows, and no sum over all of them.
    gradient, mesh = gradient_of(unit, backend, penalty=0.0), mesh_of(axes)
    specs = (WHOLE, ROWS, jax.P("data"), ROWS)
    ends = ((jax.P("data"), (ROWS, jax.P("data"))), (WHOLE, ROWS))

    def local(*args):
        (loss, aux), found = gradient(*args)
        return (loss[None], aux), found

    sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=ends, check_vma=True)
    (losses, aux), found = jax.jit(sharded)(*put(mesh, args))
    close(((losses.sum(), aux), found), jax.jit(gradient)(*args))


@pytest.mark.parametrize("kind", [full("always"), "event"])
def test_parameters_cut_over_a_second_axis(kind):
    """Two axes: the batch is cut over one, every kernel's columns over the other."""
    unit, args = problem(kind)
    half = max(jax.device_count() // 2, 1)
    mesh = mesh_of(AxisType.Explicit, ("data", "model"), (half, jax.device_count() // half))
    gradient = jax.jit(gradient_of(unit, "auto"))
    params, *rest = put(mesh, args)
    params = jax.tree.map(
        lambda leaf: jax.device_put(
            leaf, jax.NamedSharding(mesh, jax.P(*(None,) * (leaf.ndim - 1), "model"))
        ),
        params,
    )
    with jax.set_mesh(mesh):
        got = gradient(params, *rest)
    close(got, gradient(*args))
    kernel = got[1][0]["cell"]["input"]
    assert {leaf.sharding.spec for leaf in kernel.values()} == {jax.P(None, "model")}


@pytest.mark.full
@pytest.mark.parametrize("file", ["tests/scan/test_meshes.py", "tests/layers/test_layer_meshes.py"])
def test_on_four_devices(file):
    env = {**os.environ, "SURNN_TEST_DEVICES": "4"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", "not four_devices", file]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
