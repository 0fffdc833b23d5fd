"""Bad own files: each is one line that names the file and the cure, and leaves nothing behind."""

from pathlib import Path

import numpy as np
import pytest
from original_case import riff
from own_case import arrays, midi, midi_folder, npz_file, samples, text_file, wav_folder

import data
from data.sets import own

SETTINGS = {"split_seed": 0, "frames_per_quarter": 4, "tokenizer": "words"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def folder_with(name: str, content: bytes, make=midi_folder):
    def build(folder: Path) -> Path:
        path = make(folder / "folder")
        (path / name).write_bytes(content)
        return path

    return build


def npz_with(task: str = "classify", **changes):
    """A good archive with other arrays; None takes one away."""

    def build(folder: Path) -> Path:
        given = arrays(task)
        for name, change in changes.items():
            made = change(given.get(name)) if callable(change) else change
            given[name] = made
        return npz_file(folder / "a.npz", **{k: v for k, v in given.items() if v is not None})

    return build


def text_with(content: bytes):
    def build(folder: Path) -> Path:
        (folder / "a.txt").write_bytes(content)
        return folder / "a.txt"

    return build


def with_nan(x):
    x[3, 5, 0] = np.nan
    return x


def objects(_):
    return np.array([[1], [2, 3]], object)


MP3 = b"ID3\3" + bytes(200)
REFUSED = {
    "no folder": ("midi", lambda folder: folder / "none", "none: no such folder; name the folder"),
    "a file": ("wav", text_with(b"a"), "a.txt: a file; name the folder of your .wav files"),
    "empty": ("midi", lambda folder: folder, ": no .mid or .midi files in it; it needs 3 at"),
    "two": ("wav", lambda f: wav_folder(f / "w", 2), "w: 2 .wav files in it; it needs 3"),
    "corrupt midi": (
        "midi", folder_with("bad.mid", midi([(0, 60, 480)])[:-6]),
        r"folder/bad.mid: not a whole MIDI file \(cut short: a track should have 14 bytes\); save",
    ),
    "no midi": ("midi", folder_with("bad.mid", b"hello"), r"bad.mid: not a whole MIDI file"),
    "drums": (
        "midi", folder_with("d.mid", midi([(0, 60, 9)], channel=9)), "d.mid: no notes of a piano"
    ),
    "mp3": ("wav", folder_with("z.wav", MP3, wav_folder), "z.wav: not a whole .wav file"),
    "cut wav": ("wav", folder_with("z.wav", riff(samples(3))[:-40], wav_folder), "z.wav: .*cut"),
    "silence": (
        "wav", folder_with("z.wav", riff(np.zeros(90)), wav_folder), "z.wav: silent: every sample"
    ),
    "no text": ("text", lambda folder: folder / "x.txt", "x.txt: no such file; name a file of"),
    "a folder": ("text", lambda folder: folder, ": a folder; name a file of text"),
    "empty text": ("text", text_with(b""), "a.txt: 0 bytes are too small a text"),
    "latin1": (
        "text", text_with("für".encode("latin1") * 9),
        r"a.txt: byte 1 is not UTF-8 \(0xfc\); save it as UTF-8, as iconv does, or take",
    ),
    "all different": (
        "text", text_with(" ".join(map(str, range(99))).encode()), "a.txt: no word is there twice"
    ),
    "no npz": ("arrays", lambda f: text_with(b"a")(f).rename(f / "a.npz"), "a.npz: not whole arr"),
    "objects": (
        "arrays", npz_with(x=objects), r"a.npz: x: not whole .*Python objects, which are never",
    ),
    "text labels": (
        "arrays", npz_with(y=lambda y: np.where(y, "yes", "no")),
        "a.npz: y: not whole arrays of numbers .it holds text; give numbers",
    ),
    "complex": ("arrays", npz_with(x=lambda x: x + 0j), "a.npz: x: not whole arrays of numbers"),
    "nan": ("arrays", npz_with(x=with_nan), r"a.npz: x has nan at \[3, 5, 0\]; it should be fini"),
    "huge": ("arrays", npz_with(x=lambda x: x * 1e300), r"a.npz: x has .* at \[0, 0, 0\]; it"),
    "counts": ("arrays", npz_with(y=lambda y: y[:-1]), r"a.npz: y is \[29\], but x has 30 seq"),
    "no y": ("arrays", npz_with(y=None), "a.npz: y is missing; save it too: np.savez"),
    "no x": ("arrays", npz_with(x=None), "a.npz: x is missing"),
    "neither": ("arrays", npz_with(x=None, y=None, z=np.ones(3)), "a.npz: holds z; it should"),
    "no test": (
        "arrays", npz_with(x=None, y=None, train_x=np.ones((3, 2)), train_y=np.arange(3)),
        "a.npz: holds train_x, train_y; it should hold x and y, or train_x",
    ),
    "float labels": (
        "arrays", npz_with(y=lambda y: y.astype(float)),
        r"a.npz: y is float64 \[N\] of whole numbers: labels are integers: y.astype\(np.int32\)",
    ),
    "negative": ("arrays", npz_with(y=lambda y: y - 1), "a.npz: y has -1; tokens and classes beg"),
    "one class": ("arrays", npz_with(y=lambda y: 0 * y), "a.npz: y has 1 classes by its largest"),
    "flat": ("arrays", npz_with(x=lambda x: x[:, 0, 0]), r"a.npz: x is \[30\]; it should be \["),
    "tokens": ("arrays", npz_with(x=lambda x: x.astype(int)), r"a.npz: x is int64 \[30, 12, 3\]"),
    "tags": ("arrays", npz_with("tag", y=lambda y: y[:, :5]), r"a.npz: y is \[30, 5\], but x has"),
    "lengths": ("arrays", npz_with("tag", lengths=lambda n: n + 5), r"a.npz: lengths has 1\d at"),
    "0 length": ("arrays", npz_with("tag", lengths=lambda n: n - 4), r"a.npz: lengths has 0 at \["),
    "float lengths": (
        "arrays", npz_with("tag", lengths=lambda n: n / 1), r"lengths is float64 \[30\]; it should"
    ),
    "too few": ("arrays", lambda f: npz_file(f / "a.npz", **arrays("tag", 2)), "a.npz: 2 sequenc"),
    "parts differ": (
        "arrays", npz_with(x=None, y=None, **{
            f"{split}_{name}": array
            for split, task in (("train", "tag"), ("valid", "tag"), ("test", "classify"))
            for name, array in arrays(task).items()
        }),
        "a.npz: test_x and test_y have other dtypes or shapes than those of train",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_line_that_names_the_file_and_leaves_nothing(tmp_path, cache, name):
    kind, build, words = REFUSED[name]
    (tmp_path / "given").mkdir()
    path = build(tmp_path / "given")

    def read():
        data.load_from(own.source(kind, path, **SETTINGS), "train", None)

    with pytest.raises((ValueError, OSError), match=words) as caught:
        read()
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1
    # But for locks.
    assert [p.name for p in cache.glob("*/*") if p.name != "lock"] == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokenizer": "word"}, "unknown tokenizer 'word'; one of: words, characters, bytes"),
        ({"frames_per_quarter": 0}, "frames_per_quarter must be at least 1, got 0"),
    ],
)
def test_bad_settings(tmp_path, settings, words):
    kind, make = ("text", text_file) if "tokenizer" in settings else ("midi", midi_folder)
    with pytest.raises(ValueError, match=words):
        own.source(kind, make(tmp_path / "given"), **{**SETTINGS, **settings})
