"""One run at a time in a folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from surnn_jax.train.distributed import is_first


@contextlib.contextmanager
def lock_directory(workdir: Path) -> Iterator[None]:
    """Holds a folder that is there; the system lets go of it however the process ends.

    Of several processes of one run the first holds it.

    Raises:
        BlockingIOError: another process holds it.
    """
    if not is_first():
        yield
        return
    descriptor = os.open(workdir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{workdir}: another process trains there") from None
        yield
    finally:
        os.close(descriptor)
