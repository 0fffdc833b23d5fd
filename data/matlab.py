"""Cell arrays of matrices out of MATLAB 5 files, in plain Python.

SciPy's reader ends the whole process on some damaged files: a flipped bit in the type of a number
is enough. This one reads numeric arrays and cell arrays of them. It takes no size from a header
that the bytes which follow do not bear out, and goes no deeper than one level of cells. Files of
MATLAB 7.3, which are HDF5, and of MATLAB 4 are refused.
"""

import math
import zlib
from typing import NamedTuple

import numpy as np

_HEAD = 128
_MATRIX, _COMPRESSED = 14, 15
# Element type -> dtype without its byte order.
_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_CELL, _NUMERIC = 1, range(6, 16)
_COMPLEX = 8
_KINDS = {2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function", 17: "opaque"}


class Other(NamedTuple):
    """A value that is not read; `kind` says what it is."""

    kind: str


Value = np.ndarray | list | Other
"""Numbers ``[...]``; the values of a cell array; or what is not read."""


class _Elements:
    """The data elements in a run of bytes, one after another."""

    def __init__(self, raw: bytes | memoryview, order: str, place: int = 0):
        self._raw, self._order, self.place = memoryview(raw), order, place

    def __bool__(self) -> bool:
        return self.place < len(self._raw)

    def next(self) -> tuple[int, memoryview]:
        """The type and the content of the next element.

        Raises:
            ValueError: it is cut short.
        """
        tag = self._take(8)
        kind, size = np.frombuffer(tag, self._order + "u4").tolist()
        if kind >> 16:  # A small one: up to four bytes within the tag.
            kind, size = kind & 0xFFFF, kind >> 16
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
            return kind, tag[4 : 4 + size]
        content = self._take(size)
        if kind != _COMPRESSED and size % 8:
            self._take(min(8 - size % 8, len(self._raw) - self.place))
        return kind, content

    def _take(self, size: int) -> memoryview:
        taken = self._raw[self.place : self.place + size]
        if len(taken) < size:
            raise ValueError(f"{size} bytes stated at byte {self.place}, {len(taken)} are left")
        self.place += size
        return taken


def parse(raw: bytes, limit: int) -> dict[str, Value]:
    """The variables of a file, by name.

    Args:
        raw: the file.
        limit: bytes that all of its variables together may have when uncompressed.

    Raises:
        ValueError: it is cut short, damaged, too large or of another kind.
    """
    order = {b"IM": "<", b"MI": ">"}.get(raw[126:128])
    if order is None or np.frombuffer(raw, order + "u2", 1, 124)[0] != 0x0100:
        raise ValueError("it has no head of MATLAB 5")
    variables: dict[str, Value] = {}
    elements = _Elements(raw, order, _HEAD)
    while elements:
        kind, content = elements.next()
        if kind == _COMPRESSED:
            inner = _Elements(_uncompressed(content, limit), order)
            kind, content = inner.next()
            limit -= inner.place
            if inner:
                raise ValueError("more than one variable in a compressed element")
        name, value = _matrix(kind, content, order, cells=True)
        if name in variables:
            raise ValueError(f"two variables {name!r}")
        variables[name] = value
    return variables


def _uncompressed(content: memoryview, limit: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(content, max(limit, 1))
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if stream.unconsumed_tail:
        raise ValueError("more than it may hold, uncompressed")
    if not stream.eof or stream.unused_data:
        raise ValueError("a compressed element does not end where it should")
    return raw


def _matrix(kind: int, content: memoryview, order: str, cells: bool) -> tuple[str, Value]:
    """The name and the value of a ``miMATRIX`` element."""
    if kind != _MATRIX:
        raise ValueError(f"an element of type {kind} in place of a matrix")
    if not len(content):
        return "", np.zeros((0, 0))  # How an empty cell is written.
    parts = _Elements(content, order)
    flags = _numbers(*parts.next(), order)
    shape = _numbers(*parts.next(), order).tolist()
    label = _numbers(*parts.next(), order)
    if flags.dtype.itemsize != 4 or len(flags) != 2:
        raise ValueError("a matrix without flags")
    if not 2 <= len(shape) <= 32 or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("a matrix without a shape")
    if label.dtype.itemsize != 1:
        raise ValueError("a matrix without a name")
    name = label.tobytes().decode("latin1")
    form, count = int(flags[0]) & 0xFF, math.prod(shape)
    if form == _CELL:
        if not cells:
            return name, Other("cell")
        # Each of them takes a tag, at least.
        if count > len(content) // 8:
            raise ValueError(f"{count} cells stated in {len(content)} bytes")
        value: Value = [_matrix(*parts.next(), order, cells=False)[1] for _ in range(count)]
    elif form in _NUMERIC and not int(flags[0]) >> 8 & _COMPLEX:
        numbers = _numbers(*parts.next(), order)
        if len(numbers) != count:
            raise ValueError(f"{len(numbers)} numbers in a matrix of shape {shape}")
        value = numbers.reshape(shape, order="F")
    elif form in _NUMERIC:
        return name, Other("complex")
    elif form in _KINDS:
        return name, Other(_KINDS[form])
    else:
        raise ValueError(f"a matrix of the unknown class {form}")
    if parts:
        raise ValueError(f"{len(content) - parts.place} bytes after the end of a matrix")
    return name, value


def _numbers(kind: int, content: memoryview, order: str) -> np.ndarray:
    if kind not in _TYPES:
        raise ValueError(f"an element of type {kind} in place of numbers")
    dtype = np.dtype(order + _TYPES[kind])
    if len(content) % dtype.itemsize:
        raise ValueError(f"{len(content)} bytes are no whole numbers of {dtype}")
    return np.frombuffer(content, dtype)
