"""A compiled kernel that would not work is told by its file, said in one line and not loaded."""

import json
import os
import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import pytest
from tiers import full

from surnn_jax import cells, switches
from surnn_jax.scan import ScanInputs, ScanSpec, masked, native
from surnn_jax.scan.native import build, library

COMPUTES = """
import sys, warnings, jax
from surnn_jax.scan.native import library
library.FILE = library.pathlib.Path(sys.argv[1])
from surnn_jax.scan import native
assert native.available(), library.load()  # before JAX has looked for its devices
from surnn_jax import cells, switches
import numpy as np, jax.numpy as jnp
from surnn_jax.scan import ScanInputs, ScanSpec, masked
params = cells.GRU.init(jax.random.key(0), 2, 3)
x = jax.random.normal(jax.random.key(1), (7, 2, 2))
start = cells.GRU.initial_carry(params, (2,))

def solve(scan):
    def loss(params, x, a):
        spec = ScanSpec(cells.GRU, switches.triangular(), jnp.float32)
        carries = scan(spec, ScanInputs(params, x, a, start, start))
        return jax.numpy.sum(jnp.sin(carries.h))
    return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(params, x, x[:, 0, :1] + jnp.zeros(3))

with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    found = [solve(native.scan) for _ in range(2)]
jax.tree.map(lambda f, w: np.testing.assert_allclose(f, w, atol=1e-5), found[0], solve(masked.scan))
for warning in seen:
    print(warning.message)
"""


def compute(file: pathlib.Path) -> list[str]:
    """Trains a step with the library `file` in a process of its own; what it warns of."""
    run = subprocess.run(
        [sys.executable, "-c", COMPUTES, str(file)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def compiled(target: pathlib.Path, *more: str) -> None:
    """Compiles a small library and writes its manifest."""
    made = target.with_suffix(".raw")
    command = [*build.compiler().split(), "-std=c++17", "-fPIC", "-shared", "-w", "-o", str(made)]
    subprocess.run([*command, *more, f"-isystem{build.headers()}"], check=True)
    build.write(target, made.read_bytes())


@pytest.fixture
def file(tmp_path):
    """No kernel, but its manifest is true."""
    target = tmp_path / build.LIBRARY
    build.write(target, b"no library at all")
    return target


def told(file, **changes):
    manifest = file.with_suffix(".json")
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


def test_what_fits_is_not_refused(file):
    assert build.refusal(file) == ""


def test_every_reason_is_one_line(file, tmp_path):
    whole = file.with_suffix(".json").read_text()
    major, minor = json.loads(whole)["interface"].split(".")
    other = f"{int(major) + 1}.{minor}"
    for change, reason in (
        ({"machine": "linux pdp11"}, "_kernel.so was built for linux pdp11, and this is "),
        ({"sources": "0"}, "_kernel.so was built from other sources than are installed"),
        (
            {"interface": other, "jaxlib": "9.9"},
            f"_kernel.so was built for jaxlib 9.9 (interface {other}), and jaxlib "
            f"{jax.lib.__version__} (interface {major}.{minor}) is installed",
        ),
        ({"digest": "0"}, "_kernel.so is damaged"),
    ):
        file.with_suffix(".json").write_text(whole)
        told(file, **change)
        assert build.refusal(file).startswith(reason)
    for text in ("[]", "{", "{}"):
        file.with_suffix(".json").write_text(text)
        assert build.refusal(file) == "_kernel.so has no manifest that tells what it was built for"
    file.with_suffix(".json").unlink()
    assert build.refusal(file) == "_kernel.so has no manifest that tells what it was built for"
    assert build.refusal(tmp_path / "none.so") == "it is not built"


def test_another_minor_version_is_no_reason(file):
    major, minor = build.describe()["interface"].split(".")
    for other in (0, int(minor) + 1):
        told(file, interface=f"{major}.{other}")
        assert build.refusal(file) == ""


def test_what_is_no_library_is_said_with_the_command_that_builds_it(file, monkeypatch):
    monkeypatch.setattr(library, "FILE", file)
    said = library.load.__wrapped__()
    assert said.startswith("_kernel.so cannot be loaded (")
    assert said.endswith(
        "; `python -m surnn_jax.scan.native.build` builds it for what is installed"
    )


def test_a_missing_call_is_said(tmp_path, monkeypatch):
    source = tmp_path / "empty.cc"
    source.write_text('extern "C" void surnn_forward() {}')
    target = tmp_path / build.LIBRARY
    compiled(target, str(source))
    monkeypatch.setattr(library, "FILE", target)
    assert "undefined symbol: surnn_backward" in library.load.__wrapped__()


@pytest.mark.skipif(not native.available(), reason=f"no compiled kernel: {library.load()}")
def test_half_a_library_is_not_loaded(tmp_path):
    """To load it would end the process by a signal."""
    target = tmp_path / build.LIBRARY
    build.write(target, library.FILE.read_bytes())
    whole = library.FILE.read_bytes()
    target.write_bytes(whole[: len(whole) // 2])
    assert build.refusal(target) == "_kernel.so is damaged"


REFUSED = """
#include "xla/ffi/api/c_api.h"
static XLA_FFI_Error* answer(XLA_FFI_CallFrame* frame) {
    auto* asked = reinterpret_cast<XLA_FFI_Metadata_Extension*>(frame->extension_start);
    asked->metadata->api_version.major_version = 0;
    asked->metadata->api_version.minor_version = 99;
    return nullptr;
}
extern "C" XLA_FFI_Error* surnn_forward(XLA_FFI_CallFrame* frame) { return answer(frame); }
extern "C" XLA_FFI_Error* surnn_backward(XLA_FFI_CallFrame* frame) { return answer(frame); }
extern "C" XLA_FFI_Error* surnn_feed_forward(XLA_FFI_CallFrame* frame) { return answer(frame); }
extern "C" const char* surnn_kernels() { return "none"; }
extern "C" int surnn_select(const char*) { return 0; }
extern "C" void surnn_threads(int) {}
extern "C" void* surnn_pack() { return nullptr; }
extern "C" int surnn_scan() { return 1; }
extern "C" void surnn_free(void*) {}
"""


def test_what_xla_refuses_runs_dense_and_says_so_once(tmp_path):
    source = tmp_path / "refused.cc"
    source.write_text(REFUSED)
    target = tmp_path / build.LIBRARY
    compiled(target, str(source))
    (said,) = compute(target)
    assert said.startswith(
        f"no compiled kernel (jaxlib {jax.lib.__version__} does not take _kernel.so ("
    )
    assert "0.99" in said
    assert said.endswith("): the back end 'native' runs as 'masked'")


@pytest.mark.full
def test_headers_newer_than_jaxlib(tmp_path):
    """As pip's build isolation takes them."""
    newer = tmp_path / "xla" / "ffi" / "api" / "c_api.h"
    newer.parent.mkdir(parents=True)
    _, minor = build.describe()["interface"].split(".")
    text = (build.headers() / "xla" / "ffi" / "api" / "c_api.h").read_text()
    changed = text.replace(f"API_MINOR {minor}", "API_MINOR 99")
    assert changed != text
    newer.write_text(changed)
    target = tmp_path / build.LIBRARY
    flags = ["-O0", "-DSURNN_BYTES=16", "-DSURNN_ISA=portable", "-DSURNN_ROLLED"]
    sources = [str(build.SOURCES / name) for name in ("kernel.cc", "surnn.cc", "ffi.cc")]
    compiled(target, f"-I{tmp_path}", *flags, *sources)
    assert compute(target) == []


@pytest.mark.skipif(not native.available(), reason=f"no compiled kernel: {library.load()}")
@pytest.mark.parametrize(
    "platforms", [full(("cuda",)), full(("tpu",)), ("cpu", "cuda")], ids=" and ".join
)
def test_lowered_for_an_accelerator_it_is_dense(platforms):
    cell, checks = cells.LSTM, jax.export.DisabledSafetyCheck
    spec = ScanSpec(cell, switches.triangular(), jnp.float32)
    params = cell.init(jax.random.key(0), 2, 3)
    start = cell.initial_carry(params, (2,))
    x, a = (jax.random.normal(jax.random.key(n), (5, 2, size)) for n, size in ((1, 2), (2, 3)))

    def gradient(scan):
        def loss(params, x, a):
            carries = scan(spec, ScanInputs(params, x, a, start, start))
            return jnp.sum(jnp.sin(carries.h))

        return jax.jit(jax.grad(loss, (0, 2)))

    traced = gradient(native.scan).trace(params, x, a)
    lowered = traced.lower(lowering_platforms=platforms).as_text()
    assert lowered.count("@surnn_") == (2 if "cpu" in platforms else 0)
    made = jax.export.export(
        gradient(native.scan), platforms=platforms, disabled_checks=[checks.platform()]
    )(params, x, a)
    assert "@surnn_" not in made.mlir_module()  # it may run where there is no kernel
    # It has nothing that only the accelerator can run, so its numbers can be seen here.
    wanted = gradient(masked.scan)(params, x, a)
    chex.assert_trees_all_close(made.call(params, x, a), wanted, rtol=1e-5, atol=1e-6)


def test_a_kernel_of_an_earlier_build_is_not_packed(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    built = tmp_path / "surnn_jax" / "scan" / "native"
    built.mkdir(parents=True)
    for name in ("_kernel.so", "_kernel.json"):
        (built / name).touch()
    root = build.SOURCES.parents[3]
    command = [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={tmp_path}"]
    run = subprocess.run(
        [*command, f"--build-temp={tmp_path}/temp"],
        cwd=root,
        env={**os.environ, "SURNN_BUILD": "0"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "switched off by SURNN_BUILD=0" in run.stdout + run.stderr
    assert not list(built.iterdir())


def test_without_the_library():
    code = """
import warnings, jax, jax.numpy as jnp
from surnn_jax import cells, switches
from surnn_jax.scan import ScanInputs, ScanSpec, native
assert not native.available() and native.kernels() == "none"
params = cells.GRU.init(jax.random.key(0), 2, 3)
start = cells.GRU.initial_carry(params, (1,))
spec = ScanSpec(cells.GRU, switches.triangular(), jnp.float32)
inputs = ScanInputs(params, jnp.ones((4, 1, 2)), jnp.ones((4, 3)), start, start)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for _ in range(2):
        print(native.scan(spec, inputs).h.shape)
assert [str(w.message) for w in seen] == [
    "no compiled kernel (switched off by SURNN_NATIVE=0): the back end 'native' runs as 'masked'"
], seen
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "SURNN_NATIVE": "0"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[:2] == ["(4, 1, 3)"] * 2
