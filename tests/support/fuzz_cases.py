"""The readers that ``fuzz.py`` tries, each with a small file of its own making."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_layouts
import fuzz_own
import jax.numpy as jnp
import numpy as np
import scipy.io
from data_case import rolls, write_mat
from fuzz import Case, batch
from original_case import riff, sphere, tone

import data
from data import cache as prepared
from data import files, paths, storage
from data.sets import audio, cifar, images, jsb_16th, music, retrieval, wikitext
from data.sets.pathfinder import source as pathfinder
from data.source import SPLITS, Column, Reading, Source
from experiments.runner import parameters, records
from surnn_jax.train import files as run_files

__all__ = ["CASES", "batch"]

# A child loads JAX's back end now, before its memory is limited.
jnp.zeros(())


def _rolls_right(value: Any) -> bool:
    return list(value) == list(SPLITS) and all(
        x.dtype == np.uint8 and x.ndim == 2 and x.shape[1] == 88 and x.max(initial=0) <= 1
        for split in value.values()
        for x in split
    )


def _notes() -> dict[str, list]:
    return {
        split: [[tuple((np.flatnonzero(step) + 21).tolist()) for step in x] for x in pieces]
        for split, pieces in rolls(sizes=(2, 1, 1)).items()
    }


@cache
def _mat(compressed: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = write_mat(Path(folder) / "a.mat", rolls(sizes=(2, 1, 1)))
        if compressed:
            variables = {k: v for k, v in scipy.io.loadmat(path).items() if k[0] != "_"}
            scipy.io.savemat(path, variables, do_compression=True)
        return path.read_bytes()


def _packed_mat(raw: bytes) -> bytes:
    packed = zlib.compress(raw)
    return _mat(False)[:128] + struct.pack("<II", 15, len(packed)) + packed


def _mat_case(form: str) -> Case:
    if form == "inside":  # One variable, without the others.
        size = 8 + struct.unpack_from("<I", _mat(False), 132)[0]
        read = _refusing_missing(music.read_mat)
        return Case(_mat(False)[128 : 128 + size], read, lambda value: True, _packed_mat)
    return Case(_mat(form == "packed"), music.read_mat, _rolls_right)


def _refusing_missing(read: Callable) -> Callable[[Path], Any]:
    def tried(path: Path) -> Any:
        try:
            return read(path)
        except ValueError as error:
            if "no variable" in str(error):
                return None
            raise

    return tried


def _pickle_case(protocol: int) -> Case:
    return Case(pickle.dumps(_notes(), protocol), music.read_pickle, _rolls_right)


def _json_case() -> Case:
    def read(path: Path) -> Any:
        return jsb_16th.read_rolls(path)

    raw = json.dumps(_notes()).encode()
    return Case(raw, read, _rolls_right, lzma.compress, sums=True, name="a.json.xz")


def _idx_case(packed: bool) -> Case:
    raw = b"\0\0\x08\3" + struct.pack(">3I", 3, 28, 28) + bytes(range(256)) * 9 + bytes(48)
    right = lambda value: value.dtype == np.uint8  # noqa: E731
    if packed:
        return Case(raw, images.read_idx, right, gzip.compress, sums=True, name="a.gz")
    return Case(raw, images.read_idx, right)


def _npy_case() -> Case:
    stream = io.BytesIO()
    np.save(stream, np.arange(2048, dtype=np.uint8).reshape(2, 32, 32))
    return Case(
        stream.getvalue(),
        cifar._load,
        lambda value: value.dtype.kind in "biufV",
        lzma.compress,
        sums=True,
        name="a.npy.xz",
    )


def _cifar_case(protocol: int) -> Case:
    rows = np.random.default_rng(0).integers(0, 256, (2, 3072), np.uint8)
    raw = pickle.dumps({"data": rows, "labels": [3, 9], "batch_label": "a"}, protocol)
    return Case(
        raw,
        lambda path: cifar.read_batch(path.read_bytes(), str(path)),
        lambda value: value[0].shape[1:] == (1024, 3) and value[0].dtype == np.uint8,
    )


def _sound_case(raw: bytes, rate: int) -> Case:
    return Case(
        raw,
        lambda path: audio.waveform(path.read_bytes(), rate, str(path)),
        lambda value: value.dtype == np.int16 and value.ndim == 1 and len(value) > 0,
    )


_CONTENTS = {"a/one.txt": b"hello " * 90, "a/" + "long" * 40: bytes(range(256)), "z.txt": b"end"}


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name, content in _CONTENTS.items():
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = len(content), {"comment": "ä"}
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _zip(method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in _CONTENTS.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def _archive_case(ending: str) -> Case:
    def read(path: Path) -> Any:
        return list(files.members(path, lambda name: True))

    def right(value: Any) -> bool:
        return all(".." not in name and name[:1] != "/" for name, _ in value)

    name = f"a{ending}"
    if ending.endswith(".zip"):
        method = {".lzma.zip": 14, ".bz2.zip": 12, ".zip": 8}[ending]
        return Case(_zip(method), read, right, name=name)
    packs = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.xz": lzma.compress}
    pack = (packs | {".tar.bz2": bz2.compress})[ending]
    return Case(_tar(), read, right, pack, sums=pack is not bytes, name=name)


def _content_case(ending: str, pack: Callable[[bytes], bytes]) -> Case:
    right = lambda value: isinstance(value, str)  # noqa: E731
    return Case("Wörter, 言葉\n".encode() * 50, files.text, right, pack, True, f"a{ending}")


def _aan_case() -> Case:
    raw = b"1.0\ta\tb\tone text\tanother\n" * 5 + b"0.0\ta\tb\tone text\tanother\n"
    return Case(
        raw,
        lambda path: list(retrieval._pairs(path, "train")),
        lambda value: all(len(example["x"]) and example["y"] in (0, 1) for _, example in value),
    )


def _words_case() -> Case:
    def read(path: Path) -> Any:
        return wikitext.vocabulary_and_ids(files.lines(path), str(path))

    raw = b" = Title = \n \n one two <unk> three one \n" * 20
    right = lambda value: value[1].max() < len(value[0])  # noqa: E731
    return Case(raw, read, right, gzip.compress, sums=True, name="a.gz")


def _png_case() -> Case:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)).save(
        stream, "PNG"
    )

    def resealed(raw: bytes) -> bytes:
        """The chunks with their right sums, as far as their sizes go."""
        whole, place = raw[:8], 8
        while place + 12 <= len(raw):
            (size,) = struct.unpack_from(">I", raw, place)
            chunk = raw[place + 4 : place + 8 + min(size, len(raw))]
            whole += raw[place : place + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
            place += 12 + size
        return whole

    return Case(
        stream.getvalue(),
        lambda path: pathfinder.pixels(str(path), 32)[1][0]["x"],
        lambda value: value.shape == (32, 32) and value.dtype == np.uint8,
        resealed,
    )


_RECORD = records.Record(
    *("music", "jsb", "gru", "none", 0, 10, 5, 0.5, {"test_nll": 8.5}, 3, 100, 1.5),
    *({"seed": 0, "rate": [1, {"a": None}]}, {"python": "3"}, "a command"),
)


def _result_case() -> Case:
    raw = json.dumps(records.to_fields(_RECORD)).encode()
    return Case(raw, records.read, lambda value: 0 <= value.update_rate <= 1, name="result.json")


def _params_case() -> Case:
    params = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((), np.int32)}
    with tempfile.TemporaryDirectory() as folder:
        content = parameters.write(params, folder).read_bytes()[:-64]

    def read(path: Path) -> Any:
        return [np.asarray(leaf) for leaf in parameters.read(path.parent, params).values()]

    return Case(
        content,
        read,
        lambda value: [leaf.shape for leaf in value] == [(2, 3), ()],
        lambda raw: raw + hashlib.sha256(raw).hexdigest().encode(),
        sums=True,
        name=parameters.FILE,
    )


def _log_case() -> Case:
    raw = b"".join(json.dumps({"step": n, "loss": 0.5}).encode() + b"\n" for n in range(9))
    return Case(raw, run_files.read_lines, lambda value: isinstance(value, list))


_COLUMNS = {"x": Column("uint8", (None, 2), ""), "y": Column("int32", (), "")}


def _export_case(file: str) -> Case:
    """A prepared set from elsewhere, with a manifest that fits its broken file."""
    splits = {
        split: [(f"{split}{n}", {"x": np.full((n + 1, 2), n), "y": n}) for n in range(3)]
        for split in SPLITS
    }
    home = Path(tempfile.mkdtemp())
    os.environ[paths.CACHE_VARIABLE] = str(home)
    target = home / "set" / "key"
    reading = Reading("here", splits, {"classes": 3}, None)
    prepared.write(target, lambda folder: storage.write("set", _COLUMNS, reading, folder))
    source = Source("set", "", "", "", _COLUMNS, lambda _: "", lambda *_: reading, lambda *_: [])

    def read(path: Path) -> Any:
        folder = path.parent.parent / f"{path.parent.name}.d"
        exported = folder / prepared.EXPORTS / "set"
        try:
            exported.mkdir(parents=True)
            for old in target.rglob("*"):
                new = exported / old.relative_to(target)
                if old.is_file():
                    new.parent.mkdir(exist_ok=True)
                    new.write_bytes(
                        path.read_bytes() if new == exported / file else old.read_bytes()
                    )
            found = {
                str(p.relative_to(exported)): prepared._hash(p)
                for p in prepared._files(exported)
                if p.name != prepared.MANIFEST
            }
            manifest = {"files": found, "digest": prepared._hash_of_all(found)}
            (exported / prepared.MANIFEST).write_text(json.dumps(manifest))
            try:
                split = data.load_from(source, "train", folder)
                return [split.example(n) for n in range(len(split))]
            except ValueError as error:
                # The file lies elsewhere.
                raise ValueError(str(error).replace(str(exported), str(path), 1)) from error
        finally:
            import shutil

            shutil.rmtree(folder, ignore_errors=True)

    return Case(
        (target / file).read_bytes(),
        read,
        lambda value: all(
            len(example["x"]) and example["x"].shape[1:] == (2,) for example in value
        ),
        name=Path(file).name,
    )


CASES: dict[str, Callable[[], Case]] = {
    **{f"mat {form}": lambda form=form: _mat_case(form) for form in ("plain", "packed", "inside")},
    **{f"pickle {n}": lambda n=n: _pickle_case(n) for n in (0, 2, 5)},
    "json": _json_case,
    "idx": lambda: _idx_case(False),
    "idx gz": lambda: _idx_case(True),
    "npy": _npy_case,
    **{f"cifar {n}": lambda n=n: _cifar_case(n) for n in (3, 4)},
    "wav": lambda: _sound_case(riff(tone(7)), 8000),
    "sphere": lambda: _sound_case(sphere(tone(7)), 16000),
    **{
        ending[1:]: lambda ending=ending: _archive_case(ending)
        for ending in (*(".tar", ".tar.gz", ".tar.xz", ".tar.bz2"), ".zip", ".lzma.zip", ".bz2.zip")
    },
    "gz": lambda: _content_case(".gz", gzip.compress),
    "xz": lambda: _content_case(".xz", lzma.compress),
    "bz2": lambda: _content_case(".bz2", bz2.compress),
    "aan": _aan_case,
    "words": _words_case,
    **fuzz_layouts.CASES,
    **fuzz_own.CASES,
    "png": _png_case,
    "result.json": _result_case,
    "params.npz": _params_case,
    "metrics.jsonl": _log_case,
    **{
        f"export {file}": lambda file=file: _export_case(file)
        for file in ("facts.json", "train/x.npy", "train/x.offsets.npy", "train/ids.txt")
    },
}
"""By name, what makes each."""
