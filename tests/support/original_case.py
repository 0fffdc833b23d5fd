"""Tiny originals, archives and sound files, for the tests of `data.sets`; and the real ones."""

import io
import tarfile
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

import data
from data.source import Source

SOUND = np.array([0, 300, -32768, 32767, 5, -6, 7], np.int16)


def load_real(name: str, folder: Path) -> dict[str, data.Split]:
    """The splits of a real data set, prepared into a folder; skips where there is no original."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SURNN_CACHE", str(folder))
        try:
            return {split: data.load(name, split) for split in data.SPLITS}
        except FileNotFoundError as error:
            pytest.skip(f"needs the real data: {error}")


def load_splits(source: Source, folder: Path) -> dict[str, data.Split]:
    """The splits of a data set whose original lies in this folder."""
    return {split: data.load_from(source, split, folder) for split in data.SPLITS}


def write(path: Path, contents: dict[str, bytes]) -> None:
    """Writes files into an archive, if the path ends like one, or else into a folder."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    elif ".tar" in path.name:
        with tarfile.open(path, f"w:{path.suffix[1:]}") as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        for name, content in contents.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def riff(samples=SOUND, rate=8000, channels=1, dtype="<i2") -> bytes:
    """A RIFF file, by the standard library."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(np.dtype(dtype).itemsize)
        sound.setframerate(rate)
        sound.writeframes(np.asarray(samples).astype(dtype).tobytes())
    return stream.getvalue()


def sphere(samples=SOUND, order="01", left_out=(), **changed) -> bytes:
    """A NIST SPHERE file; `changed` are fields of its header."""
    samples = np.asarray(samples, np.int16)
    fields = {
        "channel_count": "-i 1",
        "sample_count": f"-i {len(samples)}",
        "sample_rate": "-i 16000",
        "sample_min": f"-i {samples.min(initial=0)}",
        "sample_max": f"-i {samples.max(initial=0)}",
        "sample_n_bytes": "-i 2",
        "sample_byte_format": f"-s2 {order}",
        **{name: f"-i {value}" for name, value in changed.items()},
    }
    lines = [f"{name} {value}" for name, value in fields.items() if name not in left_out]
    head = "\n".join(["NIST_1A", "    512", *lines, "end_head", ""]).ljust(512)
    return head.encode() + samples.astype(">i2" if order == "10" else "<i2").tobytes()


def tone(number: int) -> np.ndarray:
    """A sound that no other number has."""
    return np.array([number % 30000, number // 30000, -1, 7], np.int16)
