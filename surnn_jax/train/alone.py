"""One process at a time in a folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(workdir: Path) -> Iterator[None]:
    """Holds a folder that is there; the system lets go of it however the process ends.

    Raises:
        BlockingIOError: another process holds it.
    """
    descriptor = os.open(workdir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{workdir}: another process trains there") from None
        yield
    finally:
        os.close(descriptor)
