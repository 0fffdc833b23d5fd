"""Builds the CUDA kernel: ``python -m surnn_jax.scan.cuda.build``.

Needs a C++ compiler and CUDA's nvcc, no GPU: nvcc is taken from ``$NVCC``, the path, ``$CUDA_HOME``
or the wheels that ``jax[cuda13]`` brings. As the CPU kernel it is built beside this file with a
manifest. ``--arch=90`` builds for one architecture only, which takes a quarter of the time.

``--table`` compiles without building, and prints what the compiler says of registers, spills and
memory of every kernel: that is `registers.json`.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from surnn_jax.scan.native.build import Unavailable, compiler, headers, run, write

SOURCES = pathlib.Path(__file__).resolve().parent / "src"
LIBRARY = "_kernel.so"
COMMAND = "python -m surnn_jax.scan.cuda.build"

ARCHITECTURES = ("80", "90", "100", "120")
"""A100; H100 and H200; B200; RTX 50. Others of the same major version run these."""

CELLS = ("tanh", "gru", "lstm", "lstm_peephole")  # as numbered in src/kernel.h
_ENTRY = re.compile(
    r"surnn_(?P<way>forward|backward)I(?P<state>[fd])(?P<operand>f|d|NS_8Bfloat16E)"
    r"NS_\d(?P<cell>Tanh|Gru|Lstm)(?:ILb(?P<peephole>[01])EE)?ELi(?P<rows>\d)E"
)
_OPERANDS = {"f": "float32", "d": "float64", "NS_8Bfloat16E": "bfloat16"}


def nvcc() -> pathlib.Path:
    """CUDA's compiler.

    Raises:
        Unavailable: if there is none.
    """
    places = [os.environ.get("NVCC"), shutil.which("nvcc")]
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda", *_wheels()]
    places += [f"{home}/bin/nvcc" for home in homes if home]
    for place in places:
        if place and shutil.which(place) and _works(place):
            return pathlib.Path(place).resolve()
    raise Unavailable("no nvcc found, of CUDA or of jax[cuda13]")


def _wheels() -> list[str]:
    """The folders that NVIDIA's wheels for CUDA 13 share."""
    found = importlib.util.find_spec("nvidia")
    roots = (found and found.submodule_search_locations) or ()
    return [str(path) for root in roots for path in sorted(pathlib.Path(root).glob("cu1*"))]


def _works(place: str) -> bool:
    return subprocess.run([place, "--version"], capture_output=True).returncode == 0


def _command(cell: int) -> list[str]:
    more = ["-Xcompiler", "-fPIC", f"-DSURNN_CELL={cell}", "-c", str(SOURCES / "kernel.cu")]
    return [str(nvcc()), "-std=c++17", "-O3", "-ccbin", compiler().split()[0], *more]


def build(target: pathlib.Path, architectures: tuple[str, ...] = ARCHITECTURES) -> None:
    """Builds the shared library `target`, and its manifest beside it.

    Args:
        target: the file to write.
        architectures: of GPUs, "90" for compute capability 9.0. The last one's intermediate code
            is kept too, for GPUs to come.

    Raises:
        Unavailable: if it cannot be built.
    """
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    newest = architectures[-1]
    codes.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            [*_command(cell), *codes, "-o", f"{folder}/{name}.o"] for cell, name in enumerate(CELLS)
        ]
        binding = [*compiler().split(), "-std=c++17", "-O2", "-fPIC", "-w"]
        binding += [f"-isystem{headers()}", "-c", str(SOURCES / "ffi.cc"), "-o"]
        jobs.append([*binding, f"{folder}/ffi.o"])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(run, jobs))
        made = pathlib.Path(folder) / LIBRARY
        home = nvcc().parents[1]
        places = [f"-L{home / name}" for name in ("lib64", "lib") if (home / name).is_dir()]
        libraries = ["-lcudart_static", "-ldl", "-lrt", "-lpthread"]
        objects = [job[-1] for job in jobs]
        run([*compiler().split(), "-shared", "-o", str(made), *objects, *places, *libraries])
        write(target, made.read_bytes(), SOURCES)


def emulate(target: pathlib.Path, cell: int | None = None) -> None:
    """Builds the kernel's text for the CPU, as the tests run it (src/emulation.h).

    Args:
        target: the shared library to write.
        cell: by number, to compile one alone; None for all.

    Raises:
        Unavailable: if it cannot be built.
    """
    base = [*compiler().split(), "-std=c++17", "-O0" if cell is not None else "-O1", "-fPIC"]
    base += ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-DSURNN_EMULATION"]
    base += [] if cell is None else [f"-DSURNN_ONLY={cell}"]
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            [*base, f"-DSURNN_CELL={n}", "-x", "c++", "-c", str(SOURCES / "kernel.cu"), "-o"]
            for n in (range(len(CELLS)) if cell is None else [cell])
        ]
        jobs.append([*base, f"-isystem{headers()}", "-c", str(SOURCES / "ffi.cc"), "-o"])
        for n, job in enumerate(jobs):
            job.append(f"{folder}/{n}.o")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(run, jobs))
        made = pathlib.Path(folder) / target.name
        run([*compiler().split(), "-shared", "-o", str(made), *(job[-1] for job in jobs)])
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        fresh.write_bytes(made.read_bytes())
        fresh.replace(target)


def table(architectures: tuple[str, ...] = ARCHITECTURES) -> list[dict]:
    """What ptxas says of every kernel: registers, and bytes of spills, stack and constants.

    Raises:
        Unavailable: if it cannot be compiled.
    """

    def said(job):
        arch, cell = job
        command = [*_command(cell), f"-arch=sm_{arch}", "-Xptxas=-v", "-o", os.devnull]
        return list(_entries(arch, run(command)))

    jobs = [(arch, cell) for arch in architectures for cell in range(len(CELLS))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [row for rows in pool.map(said, jobs) for row in rows]


def _entries(arch: str, text: str):
    """The rows of one run of the compiler."""
    for block in text.split("Compiling entry function")[1:]:
        entry = _ENTRY.search(block)
        if entry is None:
            raise Unavailable(f"a kernel of a name that is not known: {block.splitlines()[0]}")
        numbers = {
            name: int(found[1]) if (found := re.search(pattern, block)) else 0
            for name, pattern in (
                ("registers", r"Used (\d+) registers"),
                ("spill_stores", r"(\d+) bytes spill stores"),
                ("spill_loads", r"(\d+) bytes spill loads"),
                ("stack", r"(\d+) bytes stack frame"),
            )
        }
        cell = entry["cell"].lower() + ("_peephole" if entry["peephole"] == "1" else "")
        kind = {"operands": _OPERANDS[entry["operand"]], "rows": int(entry["rows"])}
        yield {"arch": f"sm_{arch}", "cell": cell, "way": entry["way"], **kind, **numbers}


def main() -> None:
    """Builds in place, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", action="append", help="an architecture, such as 90; repeatable")
    parser.add_argument("--table", action="store_true", help="print registers and spills as JSON")
    options = parser.parse_args()
    architectures = tuple(options.arch or ARCHITECTURES)
    try:
        if options.table:
            rows = ",\n    ".join(json.dumps(row) for row in table(architectures))
            version = run([str(nvcc()), "--version"]).splitlines()[-2].rpartition("V")[2]
            print(f'{{\n  "nvcc": "{version}",\n  "kernels": [\n    {rows}\n  ]\n}}')
        else:
            build(pathlib.Path(__file__).resolve().parent / LIBRARY, architectures)
    except Unavailable as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
