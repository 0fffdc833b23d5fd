"""The folders that are searched for originals, and those of prepared and downloaded data."""

import hashlib
import os
import re
from pathlib import Path

from data import cli, tree
from data.source import Folder

ROOT = Path(__file__).resolve().parent.parent
"""The root of the repository."""

DATA_VARIABLE = "SURNN_DATA"
CACHE_VARIABLE = "SURNN_CACHE"
TFDS_VARIABLE = "TFDS_DATA_DIR"


def folders(data_dir: Folder = None) -> list[Path]:
    """The folders that are searched for originals, in order.

    Args:
        data_dir: if given, the only one, so that a mistyped folder is an error.

    Returns:
        Without `data_dir`, those that exist of: ``SURNN_DATA``, ``../shared/data`` beside the
        checkout, TFDS's folder, and what ``data.prepare --download`` has fetched.

    Raises:
        FileNotFoundError: a folder that was named does not exist.
        NotADirectoryError: it is not a folder.
        ValueError: it is the address of something remote.
    """
    if data_dir is not None:
        return [_existing(data_dir, "--data_dir")]
    found = []
    if variable := os.environ.get(DATA_VARIABLE):
        found.append(_existing(variable, DATA_VARIABLE))
    tfds = Path(os.environ.get(TFDS_VARIABLE) or "~/tensorflow_datasets").expanduser()
    usual = [ROOT.parent / "shared" / "data", tfds, downloads_folder()]
    return found + [folder for folder in usual if folder.is_dir()]


def original(name: str, places: list[str], data_dir: Folder = None, *, file: bool = False) -> Path:
    """The path of an original, a file or a folder; see ``folders`` for where it is looked for.

    Names may differ in case, and in blanks, hyphens and low lines.

    Args:
        name: the data set, for the error.
        places: its possible paths in such a folder; the first that exists is taken.
        data_dir: see ``folders``.
        file: whether it must be a file.

    Raises:
        FileNotFoundError: there is none; or a folder that was named does not exist.
        NotADirectoryError: what was named is not a folder.
        ValueError: there are two whose names differ in case alone.
    """
    found = find(places, data_dir, file=file)
    if found is None:
        for path in (folder / place for folder in folders(data_dir) for place in places):
            if path.is_symlink() and not path.exists():
                to = os.readlink(path)
                raise FileNotFoundError(f"{path}: a link to {to}, which is not there")
        wanted = " or ".join(places[:4]) + (" or the like" if places[4:] else "")
        searched = ", ".join(str(folder) for folder in folders(data_dir)) or "no folder"
        raise FileNotFoundError(
            f"{name} needs {wanted}, which is not in {searched}; give the folder that holds it by "
            f"--data_dir=FOLDER or {DATA_VARIABLE}=FOLDER to python -m data.prepare {name}; see "
            "data/README.md"
        )
    return found


def find(places: list[str], data_dir: Folder = None, *, file: bool = False) -> Path | None:
    """``original``, or None if there is none."""
    for folder in folders(data_dir):
        # What is named exactly comes first.
        for place in places:
            if (folder / place).is_file() if file else (folder / place).exists():
                return folder / place
        inside = tree.Places(folder)
        for place in places:
            if found := inside.find(place, file=file):
                return found
    return None


def find_or_make(name: str, places: list[str], data_dir: Folder = None) -> Path | None:
    """``find`` for a data set that can be made: None says that it is to be made.

    Raises:
        FileNotFoundError: a folder was named by `data_dir` and does not hold it. Other data than
            the user named are never made in their place.
    """
    found = find(places, data_dir)
    if found is None and data_dir is not None:
        raise FileNotFoundError(
            f"{name}: {data_dir} holds none of {', '.join(places[:4])}; rename yours to one of "
            f"these, or leave out --data_dir to make {name} here"
        )
    return found


def own_name(path: str | Path) -> str:
    """The name of the data set that own files at a path are, such as ``own_waltzes``."""
    return "own_" + (re.sub(r"[^\w.-]+", "_", Path(path).stem)[:40].strip("._") or "data")


def stamp(*paths: Path, version: int = 1) -> str:
    """A hash that changes when some files do, without reading them.

    It covers path, size and modification time of every file, and of all files in a folder.

    Args:
        *paths: files and folders; at least one exists.
        version: raise it when the same original is read in another way.
    """
    hashed = hashlib.sha256(str(version).encode())
    for path in paths:
        files = tree.files_below(path) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                state = file.stat()
                hashed.update(f"{file.resolve()} {state.st_size} {state.st_mtime_ns}\n".encode())
    return hashed.hexdigest()


def cache_folder() -> Path:
    """The folder of prepared data: ``SURNN_CACHE``, else ``~/.cache/surnn_jax``; may not exist."""
    return Path(_local(os.environ.get(CACHE_VARIABLE) or "~/.cache/surnn_jax", CACHE_VARIABLE))


def downloads_folder() -> Path:
    """The folder of what ``data.prepare --download`` downloads; may not exist."""
    return cache_folder() / "downloads"


def _existing(path: str | Path, name: str) -> Path:
    folder = Path(_local(path, name))
    if not folder.exists():
        raise FileNotFoundError(f"{name}={path}: no such folder; name the folder of the originals")
    if not folder.is_dir():
        raise NotADirectoryError(f"{name}={path}: not a folder; name the folder of the originals")
    return folder


def _local(path: str | Path, name: str) -> str:
    try:
        return cli.local_path(str(path))
    except ValueError as error:
        raise ValueError(f"{name}={error}") from None
