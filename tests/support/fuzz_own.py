"""The readers of a user's own files that ``fuzz.py`` tries."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import Case
from original_case import riff, tone
from own_case import arrays as arrays_of
from own_case import midi

from data.sets.own import arrays, music, speech, text


def _midi_case() -> Case:
    notes = [(240 * n, 60 + n % 12, 240) for n in range(30)]
    return Case(
        midi(notes),
        lambda path: music.roll(path.read_bytes(), str(path), 4)[0],
        lambda value: value.dtype == np.uint8 and value.shape[1:] == (88,) and value.max() == 1,
    )


def _wav_case() -> Case:
    def read(path: Path) -> int:
        return speech.rate_of(path.read_bytes(), str(path))

    return Case(riff(tone(7)), read, lambda value: 0 < value < 2**32)


def _text_case(tokenizer: str) -> Case:
    def read(path: Path) -> Any:
        streams, facts = text.streams_of(path.read_bytes(), str(path), tokenizer)
        return [*streams, len(facts["vocabulary"])]

    def right(value: Any) -> bool:
        *streams, size = value
        return all(len(x) and x.dtype == np.int32 and x.max() < size for x in streams)

    return Case("Wörter, 言葉\nund Wörter und\n".encode() * 40, read, right)


def _npz_case(task: str, broken: str) -> Case:
    """One array is broken, or the whole file around it."""
    members = {}
    for name, array in arrays_of(task).items():
        stream = io.BytesIO()
        np.save(stream, array)
        members[name] = stream.getvalue()

    def packed(raw: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in {**members, broken: raw}.items():
                archive.writestr(f"{name}.npy", content)
        return stream.getvalue()

    def read(path: Path) -> Any:
        source = arrays.source(path, split_seed=0)
        return [
            {name: np.asarray(value) for name, value in example.items()}
            for split in source.read(None, path).splits.values()
            for _, example in split
        ]

    def right(value: Any) -> bool:
        # A broken header may turn floats into integers, and a task into another.
        return len(value) > 2 and all(
            own["x"].dtype.name in ("float32", "uint8", "int32") and np.isfinite(own["x"]).all()
            for own in value
        )

    return Case(members[broken], read, right, packed, name="a.npz")


CASES: dict[str, Callable[[], Case]] = {
    "own midi": _midi_case,
    "own wav": _wav_case,
    **{f"own {name}": lambda name=name: _text_case(name) for name in text.TOKENIZERS},
    "own classify": lambda: _npz_case("classify", "y"),
    "own tag": lambda: _npz_case("tag", "lengths"),
    "own estimate": lambda: _npz_case("estimate", "x"),
    "own track": lambda: _npz_case("track", "y"),
}
"""By name, what makes each."""
