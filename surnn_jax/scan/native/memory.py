"""Lets glibc keep freed memory in the process instead of giving it back after every call."""

import ctypes
import functools
import os

VARIABLE = "SURNN_MALLOC"


@functools.cache
def keep_freed() -> bool:
    """Makes glibc keep what is freed; called once, when the package finds its compiled kernel.

    With glibc's defaults every call maps new pages for its arrays of some megabytes and touches
    them for the first time. At 5 % updates that takes as long as the kernel itself. The process
    then holds on to the most memory that it ever used.

    Returns:
        Whether it does. Not without glibc, not with ``SURNN_MALLOC=0``, and not if the environment
        already says how memory is to be managed (``MALLOC_…``, ``GLIBC_TUNABLES``).
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    chosen |= "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if os.environ.get(VARIABLE) == "0" or chosen or not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # One arena: those of threads are freed whatever the threshold is. With one, the masked scan was
    # as fast as with several, and variants that need less memory were faster.
    trim_threshold, top_pad, most_mapped, most_arenas = -1, -2, -4, -8
    options = {trim_threshold: 2**31 - 1, top_pad: 64 << 20, most_mapped: 0, most_arenas: 1}
    return all(mallopt(option, value) for option, value in options.items())


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False
