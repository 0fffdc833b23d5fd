"""``.npy`` files of numbers from others: the header is matched, not evaluated, and not believed."""

import math
import re

import numpy as np

_MAGIC = b"\x93NUMPY"
_HEAD = re.compile(
    rb"\{'descr': '([<>|][biufV]\d{1,2})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}(?:, ?|,?(?=\))))*)\), \} *\n?"
)
_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|V[12])")
LONGEST_HEAD = 1 << 14
"""Bytes of a file that hold its header."""


def head(content: bytes) -> tuple[str, bool, list[int], int]:
    """The dtype, whether the first axis runs fastest, the shape, and where the numbers begin.

    Args:
        content: the file, or its first `LONGEST_HEAD` bytes.

    Raises:
        ValueError: it is no ``.npy`` file of numbers.
    """
    width = {b"\1\0": 2, b"\2\0": 4}.get(content[6:8])
    if not content.startswith(_MAGIC) or width is None:
        raise ValueError("it does not begin as one")
    start = 8 + width + int.from_bytes(content[8 : 8 + width], "little")
    found = _HEAD.fullmatch(content[8 + width : start]) if start <= LONGEST_HEAD else None
    if not found or start > len(content):
        raise ValueError("its header is damaged, or it holds other than numbers")
    dtype, fortran, shape = found.groups()
    if not _NUMBERS.fullmatch(dtype.decode()):
        raise ValueError(f"numbers of the unknown type {dtype.decode()!r}")
    return dtype.decode(), fortran == b"True", [int(n) for n in re.findall(rb"\d+", shape)], start


def from_npy(content: bytes) -> np.ndarray:
    """The array in a file, as a view of its bytes.

    Raises:
        ValueError: it is no ``.npy`` file of numbers, or not whole.
    """
    dtype, fortran, shape, start = head(content)
    return shaped(memoryview(content)[start:], dtype, shape, fortran)


def shaped(raw: bytes | memoryview, dtype: str, shape: list[int], fortran: bool) -> np.ndarray:
    """The array of these bytes.

    Raises:
        ValueError: they are no numbers of this dtype, or not as many as `shape` says.
    """
    if not _NUMBERS.fullmatch(dtype):
        raise ValueError(f"numbers of the unknown type {dtype[:20]!r}")
    if len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array without a shape")
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if wanted != len(raw):
        raise ValueError(f"{len(raw)} bytes of numbers, where its shape says {wanted:.16g}")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
