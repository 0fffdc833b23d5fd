"""Settings of every test: they must stand before JAX looks for devices."""

import gc
import importlib.metadata
import os
import shutil
import threading
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is XLA's compiling, and what is compiled runs for milliseconds. The older
# generator of code takes a fifth of the time of the one of today; a jaxlib to come may not have it,
# and would end at a flag that it does not know.
if "XLA_FLAGS" not in os.environ:
    quick = ["--xla_backend_optimization_level=0"]
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        quick += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
    os.environ["XLA_FLAGS"] = " ".join(quick)
# What is compiled is kept for the next run, and shared by the workers and the programs that tests
# start: those find the folder's name in their environment. `make clean` removes it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    kept = Path(__file__).parents[1] / ".cache" / "xla"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(kept)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    # Programs of older versions of the code are never asked for again: begin anew now and then.
    if kept.is_dir() and sum(entry.stat().st_size for entry in os.scandir(kept)) > 2**31:
        shutil.rmtree(kept, ignore_errors=True)

import hypothesis
import jax
import pytest
from jax._src.interpreters import mlir

# Importing and tracing make objects by the million: the garbage collector looks at them less often
# than it would, which took a third of the time of collecting the tests.
gc.set_threshold(100_000, 20, 20)

# Nothing in the package leans on implicit promotion, so that nothing is computed in a dtype or
# shape that nobody wrote.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", int(os.environ.get("SURNN_TEST_DEVICES", "2")))

MAPPINGS = 30_000
PROGRAMS = 100
"""So many programs share a context of MLIR; it keeps types and constants of all of them."""

hypothesis.settings.register_profile("surnn", deadline=None, print_blob=True)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("surnn"), derandomize=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "surnn")


def _share_contexts():
    """Each thread lowers many programs in one context of MLIR.

    JAX makes one for each program, which takes 3.6 ms of the 12 ms of an operation outside `jit`.
    """
    make, mine = mlir.make_ir_context, threading.local()

    def shared():
        count = getattr(mine, "count", 0)
        if count % PROGRAMS == 0:
            mine.context = make()
        mine.count = count + 1
        return mine.context

    mlir.make_ir_context = shared


# Nothing public does so: only under the JAX that it was tried with.
if jax.__version__.startswith("0.10."):
    _share_contexts()


@pytest.fixture(scope="module")
def float64():
    """The module computes in float64: for comparisons with oracles."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def compiled_back_ends():
    """Each back end is compiled once a shape, not at every call; the border around it runs as is.

    The reference stays a plain loop: running it takes less time than compiling it.
    """
    from core_case import BACKENDS, compiled

    with pytest.MonkeyPatch.context() as patch:
        for name in set(BACKENDS) - {"reference"}:
            patch.setitem(BACKENDS, name, compiled(name))
        yield


@pytest.fixture
def small_chunks(monkeypatch):
    """`pallas` takes three steps of two examples a chunk: several, and a last that is not full."""
    from surnn_jax.scan.pallas import call

    monkeypatch.setattr(call, "_ROWS", 6)


@pytest.fixture(scope="module", autouse=True)
def room_for_programs():
    """A program takes about ten memory mappings, of which Linux allows a process 65,530.

    They are forgotten before it comes to that only, for that takes ten seconds.
    """
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MAPPINGS:
        jax.clear_caches()


def pytest_collection_finish():
    """The garbage collector looks no more at what is imported."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """A table of the faults that tests injected, see test_faults.py."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    found = [value for r in reports for name, value in r.user_properties if name == "fault"]
    if found:
        terminalreporter.section("faults")
        terminalreporter.write_line(f"{'fault':<34}{'times tried':>12}{'lost':>6}")
        for fault, tried, lost in sorted(found):
            terminalreporter.write_line(f"{fault:<34}{tried:>12}{int(lost):>6}")
