"""Reads originals as they are: plain, compressed, in an archive or a folder, without unpacking.

A file that cannot be read completely raises a ``ValueError`` that names it.
"""

import bz2
import contextlib
import errno
import gzip
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from data import tree

_OPEN = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
_BROKEN = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, tarfile.TarError)
# Raised by zipfile when a flipped bit asks for an unknown or encrypted form.
_BROKEN = (*_BROKEN, zipfile.BadZipFile, NotImplementedError, RuntimeError)
# A name in a zip archive, and a dictionary of LZMA larger than the memory.
_BROKEN = (*_BROKEN, UnicodeDecodeError, MemoryError)

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")
"""How the name of an archive may end."""


LARGEST = 1 << 28
"""Bytes of the largest file that is read whole."""


def allowed(size: int) -> int:
    """The bytes that an original of this size may hold, uncompressed; more is taken for a bomb.

    Text, notes and samples shrink to a tenth at the best. A few MB of zeros do no harm.
    """
    return (1 << 24) + 200 * size


_LONGEST_LINE = 1 << 26
_LONGEST_FACTS = 1 << 20
_FACTS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_FACTS = (*_FACTS, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


_MAGIC = {".gz": b"\x1f\x8b", ".xz": b"\xfd7zXZ\0", ".bz2": b"BZh", ".zip": b"PK", ".npz": b"PK"}
_OTHERS = [
    (b"version https://git-lfs", "a Git LFS pointer, not the file; run git lfs pull"),
    *((_MAGIC[end], f"compressed; its name must end in {end}") for end in (".gz", ".xz", ".bz2")),
    (b"PK\3\4", "a zip archive; unpack it"),
]
_PAGE = re.compile(rb"\s*(<\?xml[^>]*>\s*)?<(!doctype html|html|head|body)\b", re.I)


def cure(content: bytes) -> str:
    """What to do about a file that is not of the expected kind, in the words after a semicolon."""
    if not content:
        return "it is empty; fetch it again"
    if _PAGE.match(content[:1000]):
        return "it is a web page, not the file; fetch it in a browser, or from another address"
    for start, words in _OTHERS:
        if content.startswith(start):
            return f"it is {words}"
    return "fetch it again"


def either(file: str) -> list[str]:
    """The names under which a file may lie: as it is, or compressed."""
    return [file, *(file + ending for ending in _OPEN)]


def archived(stem: str) -> list[str]:
    """The names under which a folder may lie: as it is, or as an archive."""
    return [stem, *(stem + ending for ending in ARCHIVES)]


def content(path: Path) -> bytes:
    """The bytes of a file, uncompressed where its name ends in ``.xz``, ``.gz`` or ``.bz2``.

    Raises:
        ValueError: the file is cut short or damaged, or a bomb: see ``LARGEST`` and ``allowed``.
        OSError: it cannot be read.
    """
    with _whole(path), _uncompressed(path) as stream:
        return _bounded(stream.read, min(LARGEST, allowed(path.stat().st_size)))


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
                yield from _lines(stream, path)
            return
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if PurePosixPath(name).name == member]
            if not names:
                raise ValueError(f"{path}: no {member} in it; fetch it again")
            with archive.open(names[0]) as stream:
                yield from _lines(stream, path)


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
            f"{where}: byte {error.start} is not UTF-8 ({raw[error.start]:#04x}); save it as "
            "UTF-8, or fetch it again"
        ) from error


def members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """The files of a folder or an archive, one after another, in its order (a folder's: sorted).

    Args:
        path: a folder, or an archive (tar, also compressed, or zip).
        wanted: which, from the path inside, with slashes, the folder or archive not included.

    Raises:
        ValueError: a file that is not named as an archive; or the archive is cut short or damaged
            or a bomb, or a member would lie outside of it.
        OSError: it cannot be read.
    """
    if path.is_dir():
        for file in tree.files_below(path):
            inside = file.relative_to(path).as_posix()
            if not _of_a_mac(inside) and wanted(inside):
                yield inside, file.read_bytes()
        return
    name = path.name.lower()
    if path.is_file() and not name.endswith((*ARCHIVES, ".gz", ".npz")):
        raise ValueError(f"{path}: a file; it should be a folder, or an archive named so")
    opened = _zipped if name.endswith((".zip", ".npz")) else _tarred
    left = allowed(path.stat().st_size)
    with _whole(path):
        for name, read in opened(path):
            parts = PurePosixPath(name).parts
            if ".." in parts or name.startswith("/"):
                raise ValueError(f"{path}: a member named {name!r} would lie outside; not to trust")
            inside = str(PurePosixPath(name))
            if not _of_a_mac(inside) and wanted(inside):
                if not inside.isprintable():
                    raise ValueError(f"{path}: a member named {inside!r}; not to trust")
                content = _bounded(read, min(LARGEST, left))
                left -= len(content)
                yield inside, content


def _of_a_mac(inside: str) -> bool:
    """Whether a Mac put it beside a file of that name, for what only it needs."""
    return "__MACOSX/" in inside or PurePosixPath(inside).name.startswith("._")


class _Bomb(ValueError):
    """More than a file may hold."""


def _bounded(read: Callable[[int], bytes], limit: int) -> bytes:
    """Everything; what is stated about its size is not believed, only what comes is counted."""
    pieces, size = [], 0
    while piece := read(1 << 20):
        size += len(piece)
        if size > limit:
            raise _Bomb(f"more than the {limit} bytes that a file of its size may hold")
        pieces.append(piece)
    return b"".join(pieces)


def _lines(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    left = allowed(path.stat().st_size)
    while line := stream.readline(_LONGEST_LINE + 1):
        left -= len(line)
        if len(line) > _LONGEST_LINE or left < 0:
            raise _Bomb(f"a line of more than {_LONGEST_LINE} bytes, or too many of them")
        yield line


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

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # Long names and other facts, which tarfile reads at once, whatever their size.
        if self.type in _FACTS and self.size > _LONGEST_FACTS:
            raise tarfile.ReadError(f"{self.size} bytes of facts on a member")
        return super()._proc_member(archive)


def _tarred(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    # Uncompressed by Python's own readers, which compare checksums; tarfile's do not.
    with _uncompressed(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
            for member in archive:
                # A sparse member's holes are filled on reading, to any size that it states.
                if member.isfile() and not member.issparse():
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
    except _Bomb as error:
        raise ValueError(f"{path}: holds {error}; not to trust") from error
    except (*_BROKEN, OSError) as error:
        # The system's errors have a number; bzip2's damage is an OSError that has none, and a
        # damaged zip file asks for places before its start.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"{path}: cut short or damaged ({reason}; {path.stat().st_size} bytes); "
            f"{_cure_of(path)}"
        ) from error


def _cure_of(path: Path) -> str:
    """``cure`` of a file whose name promises a compressed form or an archive."""
    with path.open("rb") as stream:
        start = stream.read(1000)
    ending = PurePosixPath(path.name.lower().replace(".tgz", ".tar.gz")).suffix
    if ending not in _MAGIC or start.startswith(_MAGIC[ending]):
        return "fetch it again" if ending in _MAGIC else cure(start)
    if start and (words := cure(start)) != "fetch it again":
        return words
    unpacked = f"it is no {ending} file: if it was unpacked on the way, take the ending off"
    return unpacked if start else cure(start)
