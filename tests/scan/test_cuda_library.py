"""The CUDA kernel where it is missing, wrong, or for another device; what of it needs no GPU."""

import functools
import json
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import full

from surnn_jax import cells, switches
from surnn_jax.scan import ScanInputs, ScanSpec, auto, cuda, masked, selective
from surnn_jax.scan.cuda import build, call, check, library, measured
from surnn_jax.scan.cuda.check import Kind
from surnn_jax.scan.native.build import Unavailable
from surnn_jax.scan.spec import ScanShape

SPEC = ScanSpec(cells.GRU, switches.triangular(), jnp.float32)
KIND = Kind(cells.GRU, jnp.dtype("float32"), 2, 5, 1)


@pytest.fixture(autouse=True)
def _anew():
    """What is said once a process, is said once a test."""
    for cached in (library.load, library.register, library.warn, library.warn_of, check.refusal):
        cached.cache_clear()
    yield
    for cached in (library.load, library.register, library.warn, library.warn_of, check.refusal):
        cached.cache_clear()


def inputs():
    params = cells.GRU.init(jax.random.key(0), 2, 3)
    start = cells.GRU.initial_carry(params, (1,))
    return ScanInputs(params, jnp.ones((4, 1, 2)), jnp.ones((4, 3)), start, start)


def said(times=2):
    """What a scan warns of, several times over; and its answer, which is that of `masked`."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(times):
            found = cuda.scan(SPEC, inputs())
    np.testing.assert_array_equal(found.h, masked.scan(SPEC, inputs()).h)
    return [str(warning.message) for warning in seen]


def test_on_a_cpu_it_runs_dense_and_says_so_once():
    assert said() == [
        "the CUDA kernel is for NVIDIA's GPUs: on this cpu the back end 'cuda' runs as 'masked'"
    ]


def test_without_the_library(monkeypatch, tmp_path):
    monkeypatch.setattr(call.compiled, "platform", lambda: "gpu")
    monkeypatch.setattr(library, "FILE", tmp_path / "_kernel.so")
    assert said() == [
        "no CUDA kernel (it is not built; `python -m surnn_jax.scan.cuda.build` builds it, with "
        "CUDA's nvcc): the back end 'cuda' runs as 'masked'"
    ]


def test_a_kernel_that_differs_is_not_used(monkeypatch):
    """A little off in one neuron of the last step: `masked` answers."""

    def off(spec, inputs, rows=None):
        carries = masked.scan(spec, inputs)
        return carries._replace(h=carries.h.at[-1, 0, 2].add(1e-2))

    monkeypatch.setattr(call.compiled, "platform", lambda: "gpu")
    monkeypatch.setattr(library, "register", lambda: "")
    monkeypatch.setattr(call, "_on_gpu", lambda rows: off)
    (reason,) = said()
    assert re.fullmatch(
        r"the CUDA kernel is wrong for gru in float32 with 3 neurons \(\.values\.h differs by "
        r"\d\.\de-0[23] of its largest\): the back end 'cuda' runs as 'masked'",
        reason,
    )


def test_a_kernel_that_fails_is_not_used(monkeypatch):
    """There is no GPU here, so XLA does not find what it calls."""
    monkeypatch.setattr(call.compiled, "platform", lambda: "gpu")
    monkeypatch.setattr(library, "register", lambda: "")
    monkeypatch.setattr(call, "_on_gpu", lambda rows: functools.partial(call.scan_on, "cpu"))
    monkeypatch.setattr(library, "FORWARD", "surnn_of_no_library")
    (reason,) = said()
    assert reason.startswith(
        "the CUDA kernel failed at its check of gru in float32 with 3 neurons ("
    )
    assert "surnn_of_no_library" in reason


@pytest.mark.parametrize("leaf", [full(0), full(9), 11, full(13)])
def test_every_gradient_is_checked(leaf):
    """Those of a kernel, of a vector, of the logits, of the carry after a reset."""

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def off(spec, inputs):
        return masked.scan(spec, inputs)

    def forward(spec, inputs):
        return off(spec, inputs), inputs

    def backward(spec, inputs, ct):
        owed = jax.vjp(functools.partial(masked.scan, spec), inputs)[1](ct)[0]
        leaves, form = jax.tree.flatten(owed)
        leaves[leaf] *= 1.01
        return (jax.tree.unflatten(form, leaves),)

    off.defvjp(forward, backward)
    assert check.difference(masked.scan, KIND) == ""
    assert check.difference(off, KIND).startswith(".gradients")


def test_it_is_checked_while_jax_traces():
    """In a `vmap` of a gradient under `jit`, once."""
    times = []

    def counted(spec, inputs):
        times.append(1)
        return masked.scan(spec, inputs)

    @jax.jit
    def traced(x):
        def inside(x):
            assert isinstance(x, jax.core.Tracer)
            assert check.refusal(counted, KIND) == ""
            return x**2

        return jax.vmap(jax.grad(inside))(x)

    traced(jnp.ones(3))
    traced(jnp.ones(4))
    assert times == [1]


@pytest.mark.parametrize("platforms", [full(("cuda",)), ("cpu", "cuda"), full(("tpu",))])
def test_a_program_for_a_gpu_that_is_not_there_has_it(platforms, monkeypatch):
    """One call forward, one backward; none if it is exported or lowered for another device."""
    monkeypatch.setattr(library, "register", lambda: "")

    def loss(free):
        carries = cuda.scan(SPEC, ScanInputs(*free))
        return jnp.sum(jnp.sin(carries.h))

    gradient = jax.jit(jax.grad(loss))
    with pytest.warns(UserWarning, match="on this cpu"):
        traced = gradient.trace(inputs()[:5])
    lowered = traced.lower(lowering_platforms=platforms).as_text()
    assert lowered.count("@surnn_cuda_") == (2 if "cuda" in platforms else 0)
    made = jax.export.export(
        gradient, platforms=platforms, disabled_checks=[jax.export.DisabledSafetyCheck.platform()]
    )(inputs()[:5])
    assert "@surnn_" not in made.mlir_module()


def test_auto_takes_it_on_measured_devices_alone(monkeypatch):
    unit = selective("gru", switches.fourier(784, rate=0.1))
    monkeypatch.setattr(call, "_missing", lambda platform: None)
    choose = functools.partial(auto.choose, unit, 256, 784, 16, platform="gpu")
    assert choose().backend == "masked"
    assert measured.MEASURED == {}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setitem(measured.MEASURED, jax.devices()[0].device_kind, (0.01, 0.5))
    assert choose().backend == "cuda"
    assert choose().costs["cuda"] == pytest.approx(0.06)


def test_what_it_does_not_know():
    def refusal(cell=cells.GRU, dtype="float32", carry="float32", platform="gpu", features=64):
        shape = ScanShape(8, 2, features, jnp.dtype(carry), False, platform)
        return cuda.unsupported(ScanSpec(cell, switches.triangular(), dtype), shape)

    assert refusal(cells.GRU_BEFORE) == "the kernel does not know the cell gru_before"
    assert refusal(dtype="float16") == (
        "the kernel does not mix float16 operands with a float32 state"
    )
    assert refusal(features=4000) == "4000 neurons do not fit into the shared memory of a GPU"
    assert refusal(platform="tpu") == "the kernel does not run on a tpu"


@pytest.mark.parametrize(
    ("batch", "per_example", "dtype", "rows"),
    [
        (104, False, "float32", 1),
        (105, False, "float32", 2),
        (209, False, "float32", 4),
        (209, True, "float32", 1),
        (209, False, "float64", 1),
    ],
)
def test_rows_of_a_block(batch, per_example, dtype, rows):
    shape = ScanShape(8, batch, 64, jnp.dtype(dtype), per_example, "gpu")
    assert call.rows_of(cells.GRU, shape) == rows


def test_many_neurons_share_no_block():
    shape = ScanShape(8, 999, 900, jnp.dtype("float32"), False, "gpu")
    assert call.rows_of(cells.GRU, shape) == 1


def test_no_nvcc_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match=r"^no nvcc found, of CUDA or of jax\[cuda13\]$"):
        build.nvcc()


def test_the_table_of_registers_has_every_kernel_and_no_spill():
    """One row a kernel; `python -m surnn_jax.scan.cuda.build --table` makes it anew."""
    rows = json.loads((build.SOURCES.parent / "registers.json").read_text())["kernels"]
    kernels = {tuple(list(row.values())[:5]) for row in rows}
    kinds = [("float32", n) for n in (1, 2, 4)] + [("bfloat16", n) for n in (1, 2, 4)]
    wanted = {
        (f"sm_{arch}", cell, way, *kind)
        for arch in build.ARCHITECTURES
        for cell in build.CELLS
        for way in ("forward", "backward")
        for kind in [*kinds, ("float64", 1)]
    }
    assert kernels == wanted
    assert len(rows) == len(wanted)
    spilled = [row for row in rows if row["spill_stores"] + row["spill_loads"]]
    assert [row for row in spilled if row["operands"] != "float64"] == []
