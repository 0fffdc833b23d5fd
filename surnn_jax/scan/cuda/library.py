"""Finds the CUDA kernel and makes it known to XLA; says so, once, if it is missing or wrong."""

import ctypes
import functools
import pathlib
import warnings

import jax

FORWARD, BACKWARD = "surnn_cuda_forward", "surnn_cuda_backward"
FILE = pathlib.Path(__file__).resolve().with_name("_kernel.so")


@functools.cache
def load() -> ctypes.CDLL | str:
    """The kernel's library, or in one line why there is none. Needs no GPU and no driver."""
    # Here, or `python -m surnn_jax.scan.cuda.build` would find itself imported already.
    from surnn_jax.scan.cuda import build
    from surnn_jax.scan.native.build import refusal

    reason = refusal(FILE, build.SOURCES)
    if not reason:
        try:
            library = ctypes.CDLL(str(FILE))
            for name in (FORWARD, BACKWARD):
                getattr(library, name)
        except (OSError, AttributeError) as error:
            reason = f"{FILE.name} cannot be loaded ({' '.join(str(error).split())})"
        else:
            return library
    return f"{reason}; `{build.COMMAND}` builds it, with CUDA's nvcc"


@functools.cache
def register() -> str:
    """Makes the kernel known to XLA, at its first use; in one line why not, or empty."""
    library = load()
    if isinstance(library, str):
        return library
    try:
        register_for("CUDA", library)
    # XLA refuses by an exception of its own.
    except Exception as error:
        reason = " ".join(str(error).split())
        return f"jaxlib {jax.lib.__version__} does not take {FILE.name} ({reason})"
    return ""


def register_for(platform: str, library: ctypes.CDLL) -> None:
    """Makes the calls of a library known on a platform: "CUDA", or "cpu" for the emulation."""
    # Before JAX has its devices a call is only noted down, and one that XLA then refuses kills JAX.
    jax.local_devices()
    for name in (FORWARD, BACKWARD):
        target = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(name, target, platform=platform)


def available() -> bool:
    """Whether there is a kernel that was built for this machine and this jaxlib."""
    return not isinstance(load(), str)


@functools.cache
def warn(reason: str) -> None:
    """Says, once a process, why the kernel does not run and what runs instead."""
    warnings.warn(f"{reason}: the back end 'cuda' runs as 'masked'", stacklevel=4)


@functools.cache
def warn_of(platform: str) -> None:
    """Says, once a process, that the kernel runs on GPUs alone and what runs instead."""
    warnings.warn(
        f"the CUDA kernel is for NVIDIA's GPUs: on this {platform} the back end 'cuda' runs as "
        "'masked'",
        stacklevel=4,
    )
