"""The CUDA kernel's text in place of a GPU: compiled for the CPU, as an emulation, and registered
for JAX's CPU under the names that the kernel has on a GPU."""

import ctypes
import fcntl
import functools
import hashlib
import pathlib

from surnn_jax.scan.cuda import build, call, library
from surnn_jax.scan.native.build import describe

FOLDER = pathlib.Path(__file__).parents[2] / ".cache" / "cuda"
"""What is compiled is kept for the next time; `make clean` removes it."""


def built(cell: int | None = None) -> pathlib.Path:
    """The emulation, for one cell by number or for all; compiled once for the sources as they are.

    Raises:
        native.build.Unavailable: if there is no compiler.
    """
    made = hashlib.sha256(str(describe(build.SOURCES)).encode()).hexdigest()[:12]
    target = FOLDER / f"{made}-{'all' if cell is None else build.CELLS[cell]}.so"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:  # another worker may be at it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            build.emulate(target, cell)
    return target


class Emulation:
    """The emulation; of a process, the first one counts."""

    def __init__(self, cell: int | None = None):
        self._library = ctypes.CDLL(str(built(cell)))
        library.register_for("cpu", self._library)

    def order(self, seed: int) -> None:
        """Draws the order of threads between barriers; 0 for that of their numbers."""
        self._library.surnn_cuda_order(ctypes.c_uint64(seed))


@functools.cache
def scan(rows: int | None = None, piece: int | None = None):
    """The back end's scan on the emulation, so many rows a block and steps a piece; one object for
    each."""
    return functools.partial(call.scan_on, "cpu", rows=rows, piece=piece)
