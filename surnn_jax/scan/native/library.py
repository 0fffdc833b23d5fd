"""Finds the compiled kernel and makes it known to XLA; says so, once, where there is none."""

import ctypes
import functools
import os
import pathlib
import warnings

import jax

from surnn_jax.scan.native import memory

FORWARD, BACKWARD = "surnn_forward", "surnn_backward"
FEED_FORWARD = "surnn_feed_forward"
FILE = pathlib.Path(__file__).resolve().with_name("_kernel.so")

# Of src/surnn.h.
_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_SIGNATURES = {
    "surnn_kernels": (ctypes.c_char_p, []),
    "surnn_pack": (_POINTER, [_INT, _INT, _SIZE, _SIZE, _POINTER]),
    "surnn_scan": (_INT, [_POINTER, _SIZE, _SIZE, _INT, *[_POINTER] * 6]),
    "surnn_free": (None, [_POINTER]),
}

# Now, at import: once XLA's threads have arenas of their own, most of the effect is gone.
if FILE.exists():
    memory.keep_freed()


@functools.cache
def load() -> ctypes.CDLL | str:
    """The kernel's library, or in one line why there is none."""
    # Here, or `python -m surnn_jax.scan.native.build` would find itself imported already.
    from surnn_jax.scan.native import build

    if os.environ.get("SURNN_NATIVE") == "0":
        return "switched off by SURNN_NATIVE=0"
    reason = build.refusal(FILE)
    if not reason:
        try:
            library = ctypes.CDLL(str(FILE))
            for name in (FORWARD, BACKWARD, FEED_FORWARD, "surnn_select", "surnn_threads"):
                getattr(library, name)
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            reason = f"{FILE.name} cannot be loaded ({_line(error)})"
        else:
            return library
    return f"{reason}; `{build.COMMAND}` builds it for what is installed"


@functools.cache
def register() -> str:
    """Makes the kernel known to XLA, at its first use; in one line why not, or empty."""
    library = load()
    if isinstance(library, str):
        return library
    try:
        # Before JAX has its CPU a call is only noted down, and one that XLA then refuses kills JAX.
        jax.local_devices(backend="cpu")
        for name in (FORWARD, BACKWARD, FEED_FORWARD):
            target = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(name, target, platform="cpu")
    # XLA refuses by an exception of its own.
    except Exception as error:
        return f"jaxlib {jax.lib.__version__} does not take {FILE.name} ({_line(error)})"
    return ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def available() -> bool:
    """Whether there is a compiled kernel for this machine and this jaxlib.

    Looks for no devices: what XLA says of the kernel is known at its first use (:func:`register`).
    """
    return not isinstance(load(), str)


@functools.cache
def warn() -> None:
    """Says, once a process, why there is no kernel and what runs instead."""
    warnings.warn(
        f"no compiled kernel ({register()}): the back end 'native' runs as 'masked'", stacklevel=4
    )


@functools.cache
def warn_of(platform: str) -> None:
    """Says, once a process, that the kernel runs on CPUs alone and what runs instead."""
    warnings.warn(
        f"the compiled kernel is for CPUs: on this {platform} the back end 'native' runs as "
        "'masked'",
        stacklevel=4,
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
