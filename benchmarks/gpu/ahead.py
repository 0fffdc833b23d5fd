"""Compiles a function for a GPU that is described but absent.

JAX's plug-in for CUDA compiles without a driver, given a description of the device, and XLA writes
out what it would launch. Kernels are not tuned by timing, so another choice of tiles may run on the
device; which kernels there are, and in which order, does not depend on that.
"""

import contextlib
import functools
import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from benchmarks.gpu import launches

_DEVICES = Path(__file__).parent / "devices"

DEVICES = tuple(sorted(path.stem for path in _DEVICES.glob("*.txtpb")))
"""The described devices."""


class Built(NamedTuple):
    """What a compiled program does.

    Attributes:
        counts: launches, see :class:`.launches.Counts`.
        memory: bytes of arguments, results and temporary arrays; donated ones count once.
        registers: the most that a thread of any kernel takes.
        spills: bytes that a thread of any kernel stores beside its registers, the most.
        kernels: number of kernels compiled.
    """

    counts: launches.Counts
    memory: int
    registers: int
    spills: int
    kernels: int


_BUILT: dict[tuple[str, str, bool], Built] = {}
"""Hash of a program, device and whether it was assembled -> what was found."""


def capacity(device: str) -> int:
    """Bytes of memory of a described device."""
    text = (_DEVICES / f"{device}.txtpb").read_text(encoding="utf-8")
    return int(re.search(r"device_memory_size: (\d+)", text)[1])


@functools.cache
def _mesh(device: str) -> jax.sharding.Mesh:
    text = (_DEVICES / f"{device}.txtpb").read_text(encoding="utf-8")
    described = topologies.get_topology_desc(platform="cuda", target_config=text, topology="1x1x1")
    return topologies.make_mesh(described, (1,), ("device",))


@contextlib.contextmanager
def on_gpu() -> Iterator[None]:
    """While it lasts, code that asks JAX for its platform hears ``gpu``: `auto` chooses for one."""
    own = jax.default_backend
    jax.default_backend = lambda: "gpu"
    try:
        yield
    finally:
        jax.default_backend = own


def build(
    function: Callable[..., Any],
    arguments: Any,
    device: str,
    assemble: bool = True,
    **jit: Any,
) -> Built:
    """Compiles ``function(*arguments)``.

    Args:
        function: what to compile.
        arguments: trees of arrays, or of anything with a shape and a dtype.
        device: one of :data:`DEVICES`.
        assemble: whether kernels become machine code; without, there are no registers and spills,
            and it takes half the time.
        **jit: more arguments of `jax.jit`, such as ``donate_argnums``.
    """
    place = jax.NamedSharding(_mesh(device), jax.P())
    given = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), arguments
    )
    with on_gpu():
        lowered = jax.jit(function, **jit).trace(*given).lower(lowering_platforms=("cuda",))
    # Presets that differ in data or initial weights alone are the same program.
    key = hashlib.sha256(lowered.as_text().encode()).hexdigest(), device, assemble
    if key not in _BUILT:
        _BUILT[key] = _compiled(lowered, assemble)
    return _BUILT[key]


def _compiled(lowered: jax.stages.Lowered, assemble: bool) -> Built:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = _toolkit(folder / "cuda", assemble)
        options = {
            "xla_dump_to": str(folder / "dump"),
            "xla_dump_hlo_as_text": True,
            "xla_gpu_cuda_data_dir": str(folder / "cuda"),
        }
        compiled = lowered.compile(compiler_options=options)
        # Of several modules the last is the program; the others are what it was compiled with.
        sequence = _last(folder / "dump", "*thunk_sequence_after_thunk_passes.txt")
        names = _last(folder / "dump", "*thunk_metadata.txt")
        counts = launches.count(sequence, names, compiled.as_text())
        said = log.read_text(encoding="utf-8") if log.exists() else ""
    sizes = compiled.memory_analysis()
    memory = (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", said)]
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill stores", said)]
    return Built(counts, memory, max(registers, default=0), max(spills, default=0), len(registers))


def _toolkit(folder: Path, assemble: bool) -> Path:
    """A CUDA folder whose ptxas also writes down registers and spills; returns that log.

    If not to `assemble`, its ptxas writes empty files.

    Raises:
        FileNotFoundError: there is no ptxas.
    """
    real = _ptxas()
    (folder / "bin").mkdir(parents=True)
    log = folder / "ptxas.log"
    script = folder / "bin" / "ptxas"
    work = f'exec "{real}" -v "$@" 2>>"{log}"' if assemble else ': > "$3"'
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec "{real}" "$@"\n{work}\n', encoding="utf-8"
    )
    script.chmod(0o755)
    for tool in ("nvlink", "fatbinary"):
        if (real.parent / tool).exists():
            (folder / "bin" / tool).symlink_to(real.parent / tool)
    if (real.parents[1] / "nvvm").exists():
        (folder / "nvvm").symlink_to(real.parents[1] / "nvvm")
    return log


def _ptxas() -> Path:
    """NVIDIA's wheel's ptxas, or that on the path."""
    with contextlib.suppress(ImportError):
        import nvidia

        for place in nvidia.__path__:
            for found in sorted(Path(place).glob("*/bin/ptxas")):
                return found
    found = shutil.which("ptxas")
    if found is None:
        raise FileNotFoundError("no ptxas: pip install nvidia-cuda-nvcc")
    return Path(found)


def _last(folder: Path, pattern: str) -> str:
    return sorted(folder.glob(pattern))[-1].read_text(encoding="utf-8")
