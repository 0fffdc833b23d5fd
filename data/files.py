"""Originals as they lie: plain, compressed, in an archive or a folder; nothing is unpacked to disk.

What cannot be read whole is a ``ValueError`` that names the file.
"""

import bz2
import contextlib
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_OPEN = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
_BROKEN = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, tarfile.TarError)
_BROKEN = (*_BROKEN, zipfile.BadZipFile, NotImplementedError)

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")
"""How the name of an archive may end."""


def either(file: str) -> list[str]:
    """The names under which a file may lie: as it is, or compressed."""
    return [file, *(file + ending for ending in _OPEN)]


def archived(stem: str) -> list[str]:
    """The names under which a folder may lie: as it is, or as an archive."""
    return [stem, *(stem + ending for ending in ARCHIVES)]


def content(path: Path) -> bytes:
    """The bytes of a file, uncompressed where its name ends in ``.xz``, ``.gz`` or ``.bz2``.

    Raises:
        ValueError: the file is cut short or damaged.
        OSError: it cannot be read.
    """
    with _whole(path), _OPEN.get(path.suffix, open)(path, "rb") as stream:
        return stream.read()


def text(path: Path) -> str:
    """``content`` as UTF-8.

    Raises:
        ValueError: as ``content``; or it is no UTF-8, and where.
    """
    return decoded(content(path), str(path))


def decoded(raw: bytes, where: str) -> str:
    """UTF-8 bytes as text.

    Raises:
        ValueError: they are not UTF-8; the message says where.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: byte {error.start} is not UTF-8 ({raw[error.start]:#04x}); fetch it again"
        ) from error


def members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """The files of a folder or an archive, one after another, in its order (a folder's: sorted).

    Args:
        path: a folder, or an archive (tar, also compressed, or zip).
        wanted: which, from the path inside, with slashes, the folder or archive not included.

    Raises:
        ValueError: the archive is cut short or damaged, or a member would lie outside of it.
        OSError: it cannot be read.
    """
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            inside = file.relative_to(path).as_posix()
            if file.is_file() and wanted(inside):
                yield inside, file.read_bytes()
        return
    opened = _zipped if path.name.lower().endswith(".zip") else _tarred
    with _whole(path):
        for name, read in opened(path):
            parts = PurePosixPath(name).parts
            if ".." in parts or name.startswith("/"):
                raise ValueError(f"{path}: a member named {name!r} would lie outside; not to trust")
            inside = str(PurePosixPath(name))
            if wanted(inside):
                yield inside, read()


def _tarred(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if member.isfile():
                stream = archive.extractfile(member)
                yield member.name, stream.read


def _zipped(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield member.filename, lambda member=member: archive.read(member)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{path}: cut short or damaged ({reason}; {path.stat().st_size} bytes); fetch it again"
        ) from error
