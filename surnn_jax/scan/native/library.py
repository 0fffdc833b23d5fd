"""Finds the compiled kernel and makes it known to XLA; says so, once, where there is none."""

import ctypes
import functools
import os
import pathlib
import warnings

import jax

FORWARD, BACKWARD = "surnn_forward", "surnn_backward"


@functools.cache
def load() -> ctypes.CDLL | str:
    """The kernel's library with its two calls registered, or why there is none."""
    if os.environ.get("SURNN_NATIVE") == "0":
        return "switched off by SURNN_NATIVE=0"
    file = pathlib.Path(__file__).resolve().with_name("_kernel.so")
    if not file.exists():
        return "it is not built; `python -m surnn_jax.scan.native.build` builds it"
    try:
        library = ctypes.CDLL(str(file))
        for name in (FORWARD, BACKWARD):
            target = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(name, target, platform="cpu")
    # XLA refuses a kernel built for another version of its interface by an exception of its own.
    except Exception as error:
        return f"{file.name} cannot be loaded, build it anew: {error}"
    library.surnn_kernels.restype = ctypes.c_char_p
    return library


def available() -> bool:
    """Whether the compiled kernel can be used."""
    return not isinstance(load(), str)


@functools.cache
def warn() -> None:
    """Says, once a process, that there is no kernel and what runs instead."""
    warnings.warn(
        f"no compiled kernel ({load()}): the back end 'native' runs as 'masked'", stacklevel=4
    )


def kernels() -> str:
    """The instruction set in use: ``portable``, ``avx2`` or ``avx512``; ``none`` without it."""
    return load().surnn_kernels().decode() if available() else "none"


def select(name: str) -> None:
    """Uses the kernels of another instruction set, for tests and comparisons.

    Raises:
        ValueError: if this processor or this build has them not.
    """
    if not available() or not load().surnn_select(name.encode()):
        raise ValueError(f"no kernels named {name!r} here; in use: {kernels()}")


def threads(most: int) -> None:
    """At most so many of XLA's threads from now on; 0 for all.

    Calls run asynchronously: one that is still under way may see the new number.
    """
    if available():
        load().surnn_threads(most)
