"""Builds the compiled kernel: ``python -m surnn_jax.scan.native.build``.

Builds beside this file, and writes a manifest beside the library: what it was built from and for,
and its digest, by which :func:`refusal` tells a library that would not work before it is loaded.
With ``--check`` builds and runs a test program under AddressSanitizer,
UndefinedBehaviorSanitizer and ThreadSanitizer.

Nothing but the standard library is imported: setup.py runs this where the package cannot be.
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

SOURCES = pathlib.Path(__file__).resolve().parent / "src"
LIBRARY = "_kernel.so"
COMMAND = "python -m surnn_jax.scan.native.build"

# -ffp-contract allows fused multiply-adds. Never -ffast-math: NaN and infinity must pass, and the
# rounding inside the exponential must not be folded away.
_FLAGS = ("-std=c++17", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
_SETS = {"portable": ("-DSURNN_BYTES=16",)}
# By processor, as the sources call it.
_MORE_SETS = {
    "SURNN_X86": {
        "avx2": ("-mavx2", "-mfma", "-DSURNN_BYTES=32"),
        "avx512": (
            "-mavx2",
            "-mfma",
            "-mavx512f",
            "-mavx512dq",
            "-mavx512vl",
            "-mavx512bw",
            "-mprefer-vector-width=512",
            "-DSURNN_BYTES=64",
            "-DSURNN_REGISTERS=24",
        ),
    },
    "SURNN_ARM": {"neon": ("-DSURNN_NEON", "-DSURNN_BYTES=16", "-DSURNN_REGISTERS=24")},
}
_PROCESSORS = {
    "x86_64": "SURNN_X86",
    "amd64": "SURNN_X86",
    "aarch64": "SURNN_ARM",
    "arm64": "SURNN_ARM",
}
# What `check_arm` needs, as Debian packages it.
_ARM_COMPILERS = ("aarch64-linux-gnu-g++", "clang++ --target=aarch64-linux-gnu")
_ARM_EMULATOR = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]


class Unavailable(Exception):
    """The kernel cannot be built here; the message says why."""


def compiler() -> str:
    """The C++ compiler: ``$CXX``, else c++, g++ or clang++.

    Raises:
        Unavailable: if there is none.
    """
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in wanted:
        if shutil.which(name.split()[0]):
            return name
    raise Unavailable(f"no C++ compiler found (tried {', '.join(wanted)})")


def headers() -> pathlib.Path:
    """Where the headers of XLA's foreign function interface are; jaxlib brings them.

    Raises:
        Unavailable: if jaxlib is not installed.
    """
    found = importlib.util.find_spec("jaxlib")
    for place in (found and found.submodule_search_locations) or ():
        path = pathlib.Path(place) / "include"
        if (path / "xla" / "ffi" / "api" / "ffi.h").exists():
            return path
    raise Unavailable("jaxlib, whose headers the kernel needs, is not installed")


def describe(sources: pathlib.Path = SOURCES) -> dict[str, str]:
    """What a library built here is for, and from what: the manifest, less the library's digest.

    Args:
        sources: the folder that it is compiled from, likewise below.

    Raises:
        Unavailable: if jaxlib is not installed, or its headers do not tell their version.
    """
    text = (headers() / "xla" / "ffi" / "api" / "c_api.h").read_text()
    version = [re.search(rf"#define XLA_FFI_API_{part} (\d+)", text) for part in ("MAJOR", "MINOR")]
    if not all(version):
        raise Unavailable("the headers of jaxlib do not tell the version of their interface")
    files = sorted(sources.iterdir())
    return {
        "jaxlib": importlib.metadata.version("jaxlib"),
        "interface": ".".join(found[1] for found in version),
        "machine": f"{sys.platform} {platform.machine()}",
        "sources": _digest(b"".join(file.name.encode() + file.read_bytes() for file in files)),
    }


def refusal(library: pathlib.Path, sources: pathlib.Path = SOURCES) -> str:
    """Why a library cannot work here, in one line; empty if it can.

    To load a damaged one can kill the process, and so can one for another interface of XLA.
    """
    if not library.exists():
        return "it is not built"
    try:
        told = json.loads(library.with_suffix(".json").read_text())
        digest, jaxlib, interface = told["digest"], told["jaxlib"], told["interface"]
        machine, source = told["machine"], told["sources"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{library.name} has no manifest that tells what it was built for"
    try:
        here = describe(sources)
    except Unavailable as error:
        return str(error)
    if digest != _digest(library.read_bytes()):
        return f"{library.name} is damaged"
    if machine != here["machine"]:
        return f"{library.name} was built for {machine}, and this is {here['machine']}"
    if source != here["sources"]:
        return f"{library.name} was built from other sources than are installed"
    # Minor versions speak with each other: src/ffi.cc.
    if interface.partition(".")[0] != here["interface"].partition(".")[0]:
        return (
            f"{library.name} was built for jaxlib {jaxlib} (interface {interface}), and jaxlib "
            f"{here['jaxlib']} (interface {here['interface']}) is installed"
        )
    return ""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def run(command: list[str]) -> str:
    """Runs a compiler; what it says.

    Raises:
        Unavailable: with all that it said, if it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _objects(
    folder: pathlib.Path,
    flags: list[str],
    extra: str,
    command: str | None = None,
    machine: str | None = None,
) -> list[str]:
    """Compiles every kernel, the interface in C and the source `extra`; paths of the object files.

    `command` and `machine` are the compiler and the processor if not those of this machine.
    """
    processor = _PROCESSORS.get((machine or platform.machine()).lower())
    sets = {**_SETS, **_MORE_SETS.get(processor, {})}
    base = [*(command or compiler()).split(), *_FLAGS, *flags]
    base += [f"-D{processor}"] if processor else []
    jobs = [
        [*base, *more, f"-DSURNN_ISA={name}", "-c", str(SOURCES / "kernel.cc"), "-o", name + ".o"]
        for name, more in sets.items()
    ]
    jobs.append([*base, "-c", str(SOURCES / "surnn.cc"), "-o", "surnn.o"])
    jobs.append([*base, f"-isystem{headers()}", "-c", str(SOURCES / extra), "-o", "main.o"])
    for job in jobs:
        job[-1] = str(folder / job[-1])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, jobs))
    return [job[-1] for job in jobs]


def build(target: pathlib.Path, *, strict: bool = False) -> None:
    """Builds the shared library `target`, and its manifest beside it.

    Args:
        target: the file to write.
        strict: compiler warnings are errors.

    Raises:
        Unavailable: if it cannot be built.
    """
    warnings = ["-Wall", "-Wextra", "-Werror"] if strict else ["-w"]
    with tempfile.TemporaryDirectory() as folder:
        flags = ["-O2", *warnings]
        objects = _objects(pathlib.Path(folder), flags, "ffi.cc")
        made = pathlib.Path(folder) / LIBRARY
        run([*compiler().split(), "-shared", "-o", str(made), *objects])
        write(target, made.read_bytes())


def write(target: pathlib.Path, library: bytes, sources: pathlib.Path = SOURCES) -> None:
    """Writes a library and its manifest."""
    manifest = json.dumps({**describe(sources), "digest": _digest(library)}, indent=2) + "\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    for file, content in ((target, library), (target.with_suffix(".json"), manifest.encode())):
        # A library in use must not be overwritten: replace it.
        fresh = file.with_name(file.name + ".new")
        fresh.write_bytes(content)
        fresh.replace(file)


def check() -> None:
    """Builds and runs the test program under the sanitizers of addresses and undefined behaviour,
    then under that of threads.

    Raises:
        Unavailable: if it cannot be built.
        SystemExit: if it fails.
    """
    for guard in ("-fsanitize=address,undefined", "-fsanitize=thread"):
        _check(guard)


def _check(guard: str) -> None:
    flags = ["-O1", "-g", guard, "-fno-sanitize-recover=all", "-DSURNN_ROLLED"]
    flags += ["-Wall", "-Wextra", "-Werror"]
    with tempfile.TemporaryDirectory() as folder:
        objects = _objects(pathlib.Path(folder), flags, "driver.cc")
        program = str(pathlib.Path(folder) / "driver")
        run([*compiler().split(), guard, "-o", program, *objects, "-pthread"])
        status = subprocess.run([program]).returncode
    if status:
        raise SystemExit(status)


def arm_compilers() -> list[str]:
    """The compilers for 64-bit ARM that are here, and an emulator to run what they make.

    Raises:
        Unavailable: if there is no emulator or no compiler.
    """
    if not shutil.which(_ARM_EMULATOR[0]):
        raise Unavailable(f"no {_ARM_EMULATOR[0]} (Debian: qemu-user)")
    if not shutil.which(_ARM_COMPILERS[0].split()[0]):  # clang needs its C library as well
        raise Unavailable(f"no {_ARM_COMPILERS[0]} (Debian: g++-aarch64-linux-gnu)")
    return [command for command in _ARM_COMPILERS if shutil.which(command.split()[0])]


def check_arm() -> None:
    """Builds the test program for 64-bit ARM with each compiler that is here, and emulates it.

    Each runs as it is compiled for use, and once more with traps at undefined behaviour.

    Raises:
        Unavailable: without the tools, or if it cannot be built.
        SystemExit: if it fails.
    """
    for command in arm_compilers():
        gnu = "-fsanitize-undefined-trap-on-error"
        trap = gnu if "clang" not in command else "-fsanitize-trap=undefined"
        for guard in (["-O2"], ["-O1", "-DSURNN_ROLLED", "-fsanitize=undefined", trap]):
            print(" ".join([command, *guard]), flush=True)
            flags = [*guard, "-Wall", "-Wextra", "-Werror"]
            with tempfile.TemporaryDirectory() as folder:
                objects = _objects(pathlib.Path(folder), flags, "driver.cc", command, "aarch64")
                program = str(pathlib.Path(folder) / "driver")
                run([*command.split(), "-o", program, *objects, "-pthread"])
                status = subprocess.run([*_ARM_EMULATOR, program]).returncode
            if status:
                raise SystemExit(status)


def main() -> None:
    """Builds in place, or checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="run the sanitizers' test program")
    parser.add_argument(
        "--check-arm", action="store_true", help="run the test program on an emulated ARM processor"
    )
    try:
        options = parser.parse_args()
        if options.check:
            check()
        elif options.check_arm:
            try:
                arm_compilers()
            except Unavailable as error:
                print(f"skipped: {error}")
            else:
                check_arm()
        else:
            build(pathlib.Path(__file__).resolve().parent / LIBRARY, strict=True)
    except Unavailable as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
