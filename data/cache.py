"""Folders of prepared data in the cache: complete or absent, and checked on every read.

``<cache>/<data set>/<key>/`` holds a data set's prepared files and ``manifest.json`` with a hash of
each and one of all. The key is a hash of the original, so a changed original gets a new folder. The
cache may be deleted at any time.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data import paths

LAYOUT = "2"
"""Part of every key; raise it when the same original is prepared in another way."""

MANIFEST = "manifest.json"

EXPORTS = "prepared"
"""The subfolder of a data folder in which exports lie, by the data set's name."""


class DamagedData(ValueError):
    """Prepared data differ from what was once written."""


def folder(name: str, digest: str) -> Path:
    """The folder of data set ``name`` prepared from the original with this hash."""
    key = hashlib.sha256(f"{LAYOUT} {digest}".encode()).hexdigest()[:16]
    return paths.cache_folder() / name / key


def write(target: Path, fill: Callable[[Path], None]) -> bool:
    """Creates ``target`` if it is missing, and replaces it if it is damaged.

    Several processes may call this at once: one works, the others wait and find it done. A killed
    call leaves a folder ``incomplete`` beside the target, which the next call removes.

    Args:
        target: from ``folder``.
        fill: writes the files into the empty folder that it is given.

    Returns:
        Whether anything had to be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    incomplete = target.parent / "incomplete"
    with _locked(target.parent / "lock"):
        if target.exists():
            try:
                verify(target, "")
            except DamagedData:
                shutil.rmtree(target)
            else:
                return False
        if incomplete.exists():
            shutil.rmtree(incomplete)
        incomplete.mkdir()
        try:
            fill(incomplete)
            files = {str(path.relative_to(incomplete)): _hash(path) for path in _files(incomplete)}
            manifest = {"files": files, "digest": _hash_of_all(files)}
            (incomplete / MANIFEST).write_text(json.dumps(manifest, indent=1))
            incomplete.rename(target)
        except BaseException:
            shutil.rmtree(incomplete, ignore_errors=True)
            raise
    return True


def verify(target: Path, mend: str) -> None:
    """Compares every file with the hash written down when it was prepared.

    Args:
        target: from ``folder``; exists.
        mend: the command that prepares it again, for the error.

    Raises:
        DamagedData: a file is changed or missing, or the manifest is.
    """
    advice = f"prepare it again: {mend}"
    try:
        manifest = json.loads((target / MANIFEST).read_text())
        files = manifest["files"]
        whole = manifest["digest"] == _hash_of_all(files)
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise DamagedData(f"{target / MANIFEST}: missing or damaged; {advice}")
    for name, digest in files.items():
        path = target / name
        if not path.is_file():
            raise DamagedData(f"{path}: missing from the prepared data; {advice}")
        if _hash(path) != digest:
            raise DamagedData(f"{path}: changed since it was prepared; {advice}")


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash_of_all(files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The system lets go of the lock when its holder dies, however it dies.
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
