"""Pathfinder as a data set: generated, read from LRA's files, and files that are refused."""

import io
import struct
import zlib
from dataclasses import asdict

import numpy as np
import pytest
from tiers import full

import data
from data.sets.pathfinder import source as pathfinder
from data.sets.pathfinder.source import PATHFINDER32
from data.source import SPLITS

Image = pytest.importorskip("PIL.Image", reason="needs pillow")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SURNN_DATA", raising=False)


def small(name="pathfinder32", recipe=PATHFINDER32):
    return pathfinder.pathfinder_source(name, recipe, {"train": 8, "valid": 3, "test": 2}, images=5)


def test_nothing_is_made_in_place_of_a_folder_that_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds none of pathfinder32/"):
        data.load_from(small(), "train", tmp_path)


def test_made_set():
    source = small()
    splits = [data.load_from(source, split, None) for split in SPLITS]
    assert [len(split) for split in splits] == [8, 3, 2]
    blocks = [pathfinder.block(number, 0, 5, asdict(PATHFINDER32)) for number in range(3)]
    for column in ("x", "y"):
        expected = np.concatenate([block[column] for block in blocks])[:13]
        np.testing.assert_array_equal(np.concatenate([s[column] for s in splits]), expected)
    assert splits[0]["x"].shape == (8, 1024)
    facts = splits[0].facts
    assert (facts["classes"], facts["side"]) == (2, 32)
    *picture, last = source.show(splits[0].example(0), facts)
    assert len(picture) == 32
    bright = splits[0]["x"][0].reshape(32, 32) == 255
    assert [
        [line.ljust(64)[2 * x] == "@" for x in range(32)] for line in picture
    ] >= bright.tolist()
    assert last == f"label {splits[0]['y'][0]}: " + ("two curves", "one curve")[splits[0]["y"][0]]


HARD = "curv_contour_length_14"


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def lra(tmp_path):
    """LRA's layout, in folders "2" and "10" of 13 images; and what is in it."""
    root = tmp_path / "user" / "lra_release" / "pathfinder32" / HARD
    pictures = np.random.default_rng(0).integers(0, 256, (13, 32, 32), np.uint8)
    lines = {"2": [], "10": []}
    for number, pixels in enumerate(pictures):
        folder = "2" if number < 6 else "10"
        file = root / "imgs" / folder / f"sample_{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(pixels))
        label = number % 3 % 2
        lines[folder].append(f"imgs/{folder} {file.name} {number} {label} 1.0 14 4 2 0.5 1 1\n")
    (root / "metadata").mkdir()
    for name, listed in lines.items():
        (root / "metadata" / f"{name}.npy").write_text("".join(listed), "utf-8")
    return root, pictures


@pytest.mark.parametrize(
    "given", ["user", full("user/lra_release"), full("user/lra_release/pathfinder32")]
)
def test_files_of_the_user(lra, tmp_path, given):
    _, pictures = lra
    splits = [data.load_from(small(), split, tmp_path / given) for split in SPLITS]
    assert [len(split) for split in splits] == [8, 3, 2]
    np.testing.assert_array_equal(
        np.concatenate([split["x"] for split in splits]), pictures.reshape(13, -1)
    )
    labels = [number % 3 % 2 for number in range(13)]
    assert np.concatenate([split["y"] for split in splits]).tolist() == labels
    assert splits[2].ids[1] == "imgs/10/sample_12.png"
    assert splits[0].facts["made"] == "by others"


def _line(line):
    def change(root):
        path = root / "metadata" / "10.npy"
        path.write_text(line + "\n" + path.read_text("utf-8").partition("\n")[2], "utf-8")

    return change


def _picture(content):
    return lambda root: (root / "imgs/2/sample_0.png").write_bytes(content)


PIXELS = np.arange(1024, dtype=np.uint8).reshape(32, 32)
GOOD = png(PIXELS)
FLIPPED = GOOD[:60] + bytes([GOOD[60] ^ 4]) + GOOD[61:]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_line("imgs/10 sample_6.png 6 2 1.0"), "10.npy, line 1: .* label .0 or 1."),
        (_line("imgs/10 sample_6.png 6"), "10.npy, line 1: .* folder, file, number, label"),
        (_line(""), "10.npy, line 1: ''"),
        (_line("../../imgs x.png 6 1"), "10.npy, line 1: .* would lie outside"),
        (_line("/etc passwd 6 1"), "10.npy, line 1: /etc/passwd would lie outside"),
        (
            lambda root: (root / "metadata/10.npy").write_bytes(b"\x93NUMPY"),
            "10.npy: byte 0 is not",
        ),
        (lambda root: (root / "metadata/10.npy").unlink(), "lists 6 images; the published has 13"),
        (lambda root: (root / "metadata/2.npy").write_bytes(b""), "lists 7 images"),
        (lambda root: (root / "imgs/2/sample_0.png").unlink(), "sample_0.png: no such file"),
        (_picture(b""), "sample_0.png: no whole image"),
        (_picture(GOOD[:-20]), "sample_0.png: no whole image"),
        (_picture(FLIPPED), "sample_0.png: no whole image"),
        (_picture(png(PIXELS[:31])), r"sample_0.png: \(31, 32\) pixels of mode L"),
        (_picture(png(np.stack([PIXELS] * 3, -1))), "sample_0.png: .* of mode RGB"),
    ],
)
def test_bad_files(lra, tmp_path, change, error):
    change(lra[0])
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        data.load_from(small(), "train", tmp_path / "user")


def test_image_whose_header_asks_for_memory_is_refused(lra, tmp_path):
    """65,500 x 65,500 pixels would be 4 GB; the checksum of the header is right."""
    head = b"IHDR" + struct.pack(">II", 65_500, 65_500) + GOOD[24:29]
    _picture(GOOD[:12] + head + struct.pack(">I", zlib.crc32(head)) + GOOD[33:])(lra[0])
    with pytest.raises(ValueError, match=r"sample_0\.png: .*(65500|exceeds limit)"):
        data.load_from(small(), "train", tmp_path / "user")


def test_image_of_another_format_is_not_decoded(lra, tmp_path):
    """Pillow knows dozens of formats; only PNG is asked for."""
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "BMP")
    _picture(stream.getvalue())(lra[0])
    with pytest.raises(ValueError, match=r"sample_0\.png: no whole image \(cannot identify"):
        data.load_from(small(), "train", tmp_path / "user")
