"""The readers of other publishers' forms, and of sound in all its forms, that ``fuzz.py`` tries."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzz import Case
from original_case import tone

from data import parquet
from data.sets import audio, cifar, images


def _sound_case(kind: str) -> Case:
    code, dtype, tag = {
        "float": (3, "<f4", b"RIFF"),
        "mu-law": (7, "u1", b"RIFF"),
        "24 bits": (1, "V3", b"RIFF"),
        "RF64": (1, "<i2", b"RF64"),
        "extensible": (0xFFFE, "<i2", b"RIFF"),
    }[kind]
    width = np.dtype(dtype).itemsize
    raw = (tone(7) / 40000).astype("<f4").tobytes() * 3
    fmt = struct.pack("<HHIIHH", code, 1, 8000, 8000 * width, width, 8 * width)
    if kind == "extensible":
        fmt += struct.pack("<HHIH", 22, 16, 4, 1) + bytes.fromhex("000000001000800000aa00389b71")
    large = struct.pack("<4sIQQQI", b"ds64", 28, 0, len(raw), 0, 0) if kind == "RF64" else b""
    size = 0xFFFFFFFF if large else len(raw)
    head = struct.pack("<4sI", b"fmt ", len(fmt)) + fmt + struct.pack("<4sI", b"data", size)
    body = b"WAVE" + large + head + raw
    return Case(
        tag + struct.pack("<I", len(body)) + body,
        lambda path: audio.read(path.read_bytes(), str(path))[0],
        lambda value: value.dtype == np.int16 and value.ndim == 1,
    )


def _keras_case() -> Case:
    stream = io.BytesIO()
    pixels, labels = np.arange(1568, dtype=np.uint8).reshape(2, 28, 28), np.array([1, 2], np.uint8)
    np.savez(stream, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    return Case(
        stream.getvalue(),
        images._read_keras,
        lambda value: len(value) == 4 and all(part.dtype.kind in "biufV" for part in value),
        name="mnist.npz",
    )


def _binary_case() -> Case:
    rows = np.random.default_rng(0).integers(0, 256, (2, 3073), np.uint8)
    rows[:, 0] = 3, 9
    return Case(
        rows.tobytes(),
        lambda path: cifar.read_binary(path.read_bytes(), str(path)),
        lambda value: value[0].shape[1:] == (1024, 3) and value[1].max() < 10,
    )


def _parquet_case() -> Case:
    import pyarrow
    from pyarrow.parquet import write_table

    stream = io.BytesIO()
    write_table(pyarrow.table({"text": [" = A title = \n", "", " one two \n"] * 5}), stream)

    def read(path: Path) -> list[bytes]:
        return list(parquet.lines(path))

    return Case(
        stream.getvalue(),
        read,
        lambda value: all(line.endswith(b"\n") for line in value),
        name="a.parquet",
    )


CASES: dict[str, Callable[[], Case]] = {
    **{
        f"wav {kind}": lambda kind=kind: _sound_case(kind)
        for kind in ("float", "mu-law", "24 bits", "RF64", "extensible")
    },
    "npz": _keras_case,
    "cifar binary": _binary_case,
    "parquet": _parquet_case,
}
"""By name, what makes each."""
