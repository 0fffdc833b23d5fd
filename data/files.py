"""Reads originals as they are: plain, compressed, in an archive or a folder, without unpacking.

A file that cannot be read completely raises a ``ValueError`` that names it.
"""

import bz2
import contextlib
import errno
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

_OPEN = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
_BROKEN = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, tarfile.TarError)
# Raised by zipfile when a flipped bit asks for an unknown or encrypted form.
_BROKEN = (*_BROKEN, zipfile.BadZipFile, NotImplementedError, RuntimeError)

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
    with _whole(path), _uncompressed(path) as stream:
        return stream.read()


def lines(path: Path, member: str | None = None) -> Iterator[bytes]:
    """The lines of a file of any size, one after another, each with its line feed.

    Args:
        path: the file, compressed or not as for ``content``; or a zip archive.
        member: of a zip archive, the name of the file, in whatever folder inside.

    Raises:
        ValueError: the file is cut short or damaged, or the archive has no such member.
        OSError: it cannot be read.
    """
    with _whole(path):
        if member is None:
            with _uncompressed(path) as stream:
                yield from stream
            return
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if PurePosixPath(name).name == member]
            if not names:
                raise ValueError(f"{path}: no {member} in it; fetch it again")
            with archive.open(names[0]) as stream:
                yield from stream


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


def _uncompressed(path: Path) -> BinaryIO:
    name = path.name.lower().replace(".tgz", ".tar.gz")
    opener = _OPEN.get(PurePosixPath(name).suffix, open)
    if opener is gzip.open and path.stat().st_size == 0:
        raise EOFError("it is empty")  # To gzip that is nothing, compressed.
    return opener(path, "rb")


class _Member(tarfile.TarInfo):
    """A member whose damaged header is an error; tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise  # The block of zeros that ends an archive.
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _tarred(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    # Uncompressed by Python's own readers, which compare checksums; tarfile's do not.
    with _uncompressed(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
            for member in archive:
                if member.isfile():
                    yield member.name, archive.extractfile(member).read
        while stream.read(1 << 20):  # The checksum comes last.
            pass


def _zipped(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with zipfile.ZipFile(path) as archive:
        listed = len(archive.infolist())
        if (listed - _promised(path)) % (1 << 16):
            raise zipfile.BadZipFile("its list of contents is damaged")
        for member in archive.infolist():
            # Compares the names in the list of contents and before the member.
            with archive.open(member) as stream:
                if not member.is_dir():
                    yield member.filename, stream.read


def _promised(path: Path) -> int:
    """The number of members that a zip file states, modulo 2^16; zipfile ignores it."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - (1 << 16) - 22))
        last = stream.read()
    count = last.rfind(b"PK\5\6") + 10
    return int.from_bytes(last[count : count + 2], "little")


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except (*_BROKEN, OSError) as error:
        # The system's errors have a number; bzip2's damage is an OSError that has none, and a
        # damaged zip file asks for places before its start.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{path}: cut short or damaged ({reason}; {path.stat().st_size} bytes); fetch it again"
        ) from error
