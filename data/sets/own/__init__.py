"""A user's own files, which ``--data=PATH`` names: MIDI, WAV, a text, or arrays.

Each kind has a function ``source(path, …)`` that gives a :class:`data.source.Source` of these very
files. What is prepared is kept by a hash of their content and of the settings, so that it is never
stale.
"""

from pathlib import Path

from data.sets.own import arrays, files, music, speech, text
from data.source import Source

KINDS = {"midi": music, "wav": speech, "text": text, "arrays": arrays}
"""Kind -> its module, which has the functions ``find`` and ``source``."""

SETTINGS = {
    "midi": ("split_seed", "frames_per_quarter"),
    "wav": ("split_seed",),
    "text": ("tokenizer",),
    "arrays": ("split_seed",),
}
"""Kind -> what its function takes besides the path."""


def kind_of(path: str | Path) -> str:
    """The kind of the files at this path, by the endings of their names.

    Raises:
        ValueError: a folder with neither MIDI nor WAV files in it, or with both.
        FileNotFoundError: there is nothing at the path.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not path.is_dir():
        return "arrays" if path.suffix.lower() == ".npz" else "text"
    found = [
        kind
        for kind, endings in (("midi", music.ENDINGS), ("wav", speech.ENDINGS))
        if files.names(path, endings)
    ]
    if len(found) != 1:
        what = "both .mid and .wav files" if found else "neither .mid nor .wav files"
        raise ValueError(f"{path}: {what} in it; name a folder of one kind")
    return found[0]


def find(kind: str, path: str | Path) -> files.Files:
    """The files of a kind at a path, with their hashes; they are not looked into.

    Raises:
        OSError: there are none.
        ValueError: there are too few, or they are too large.
    """
    return KINDS[kind].find(Path(path))


def check(kind: str, path: str | Path, **settings: int | str) -> None:
    """Refuses a path at which there is nothing, and bad settings; reads no file.

    Raises:
        OSError: there is nothing, a folder in place of a file, or a file in place of a folder.
        ValueError: a setting that does not exist.
    """
    if not Path(path).exists() or Path(path).is_dir() != (kind in ("midi", "wav")):
        find(kind, path)  # Says what there should be.
    if "tokenizer" in settings:
        text.check_tokenizer(str(settings["tokenizer"]))


def source(kind: str, path: str | Path, **settings: int | str) -> Source:
    """The source of a kind; of the settings it takes those that concern it."""
    return KINDS[kind].source(Path(path), **{name: settings[name] for name in SETTINGS[kind]})
