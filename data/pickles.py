"""Pickles of numbers, texts, containers and NumPy's arrays, with nothing called that they name.

This is Python's own unpickler in Python, not the one in C: that reserves what a file asks for (an
index of 32 bits makes it fill gigabytes), and fails in odd ways on damaged files. Left out are
sets, buffers, and keys other than texts and numbers (the hash of a nested tuple takes for ever). An
array is rebuilt here from its bytes, so no code of NumPy sees the state in the file.

What a pickle holds may take sixty times its size in memory. A list may hold itself, or one list a
thousand times: whoever goes through the result has to count.
"""

import io
import pickle
from typing import Any, ClassVar

import numpy as np

from data import arrays


def load(content: bytes, with_arrays: bool = False) -> Any:
    """The value in a pickle; Python 2's byte strings become texts by latin1.

    Args:
        content: of the file.
        with_arrays: whether NumPy's arrays are read; otherwise they are refused.

    Raises:
        ValueError: it is cut short, damaged, or wants to call something; in one line.
    """
    try:
        return _Unpickler(content, with_arrays).load()
    except Exception as error:  # Foreign bytes raise almost anything.
        reason = " ".join(str(error).split())[:200]
        raise ValueError(reason or type(error).__name__) from error


class Array:
    """An array as a pickle holds it; `value` makes it one of NumPy's."""

    def __init__(self) -> None:
        self._state: Any = None

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def value(self) -> np.ndarray:
        """The array.

        Raises:
            ValueError: its bytes are not as many as its shape says, or no numbers.
        """
        match self._state:
            case (int(), tuple(shape), _Dtype() as dtype, bool() | int() as fortran, raw):
                raw = raw.encode("latin1") if isinstance(raw, str) else raw
                if isinstance(raw, bytes):
                    return arrays.shaped(raw, dtype.order + dtype.code, list(shape), bool(fortran))
        raise ValueError("an array without its shape, type and bytes")


class _Dtype:
    def __init__(self, code: str, *_: Any):
        if not isinstance(code, str):
            raise ValueError("a type of numbers without a name")
        self.code, self.order = code, "|"

    def __setstate__(self, state: Any) -> None:
        match state:
            case (int(), "|" | "<" | ">" as order, None, None, None, *_):
                self.order = order
            case _:
                raise ValueError("a type of numbers that is none")


def _new_array(*_: Any) -> Array:
    return Array()


class _NoCall:
    """Stands for the class ``numpy.ndarray``, which is named, and never called."""


_ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): _NoCall,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle._Unpickler):
    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)
    for _code in (
        *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.BYTEARRAY8),
        *(pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.PERSID, pickle.BINPERSID),
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX),
    ):
        del dispatch[_code[0]]

    def __init__(self, content: bytes, with_arrays: bool):
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._known = _ARRAYS if with_arrays else {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._known:
            return self._known[module, name]
        raise ValueError(f"it wants to call {module}.{name}; not to trust")

    def load_setitem(self) -> None:
        _check_key(self.stack[-2])
        super().load_setitem()

    def load_setitems(self) -> None:
        for key in self.stack[::2]:
            _check_key(key)
        super().load_setitems()

    def load_dict(self) -> None:
        for key in self.stack[::2]:
            _check_key(key)
        super().load_dict()

    def load_build(self) -> None:
        # Without this, a state would be written into any object's dictionary.
        if not isinstance(self.stack[-2], (Array, _Dtype)):
            raise ValueError("a state for what has none; not to trust")
        super().load_build()

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.BUILD[0]] = load_build


def _check_key(key: Any) -> None:
    if type(key) not in (str, bytes, int):
        raise ValueError(f"a key of type {type(key).__name__}")
