"""The files of a run: a lock on its folder, atomic writes, and append-only JSON logs."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from surnn_jax.train.distributed import is_first


@contextlib.contextmanager
def lock_directory(workdir: Path) -> Iterator[None]:
    """Locks an existing folder; the system releases the lock however the process ends.

    If several processes share a run, the first one holds the lock.

    Raises:
        BlockingIOError: another process holds it.
    """
    if not is_first():
        yield
        return
    descriptor = os.open(workdir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{workdir}: another process trains there") from None
        yield
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a file atomically: at every moment either the old or the new one is there, whole."""
    path = Path(path)
    partial = path.with_name(path.name + ".tmp")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_json(path: str | os.PathLike, record: Any) -> None:
    """Writes one JSON file atomically; ValueError if a number is not finite."""
    write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def read_lines(path: str | os.PathLike) -> list[Any]:
    """The records of a JSON-lines file; a last line cut short by a kill is left out.

    Raises:
        ValueError: an earlier line that is not JSON, by file and line number.
    """
    return _parse(Path(path).read_text(encoding="utf-8"), path)


class JsonLog:
    """A JSON-lines file that only grows; a checkpoint refers to it by its length and hash.

    So neither a checkpoint nor a new line costs more the longer the run is. On resumption the file
    is cut back to the length in the checkpoint: work that was lost is redone and logged again.

    Args:
        path: the file; created with the first record, or by :meth:`cut`.
        writes: whether this process writes it; others only keep its records.

    Attributes:
        records: all records, oldest first.
    """

    def __init__(self, path: Path, writes: bool = True):
        self.path, self.records = path, []
        self._writes, self._unsynced, self._damaged = writes, False, False
        self._restored: str | None = None
        self._size, self._hash = 0, hashlib.sha256()

    def append(self, record: Any) -> None:
        """Adds one record; ValueError if a number is not finite."""
        line = _line(record).encode()
        if self._writes:
            with open(self.path, "ab") as file:
                file.write(line)
            self._unsynced = True
        self.records.append(record)
        self._size += len(line)
        self._hash.update(line)

    def mark(self) -> dict[str, Any]:
        """Length and hash of the file so far, for a checkpoint; its content is on the disk."""
        if self._unsynced:
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())
            self._unsynced = False
        return {"bytes": self._size, "sha256": self._hash.hexdigest()}

    def read(self, mark: dict[str, Any]) -> None:
        """Takes in the file up to a mark; changes nothing on the disk.

        Raises:
            ValueError: the file is missing, shorter, or has other content up to the mark. Then the
                log is empty, and :meth:`cut` puts the file aside.
        """
        content = b""
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            content = file.read(mark["bytes"])
        digest = hashlib.sha256(content)
        if digest.hexdigest() != mark["sha256"]:
            self._damaged = True
            raise ValueError(f"{self.path} is damaged: its lines are not those that were saved")
        self._size, self._hash = len(content), digest
        self.records = _parse(content.decode(), self.path)

    def restore(self, records: Iterable[Any]) -> None:
        """Takes in records from elsewhere; :meth:`cut` writes them, in place of the file's own."""
        self.records = list(records)
        self._restored = "".join(map(_line, self.records))
        self._size = len(self._restored.encode())
        self._hash = hashlib.sha256(self._restored.encode())

    def cut(self, create: bool = True) -> None:
        """Removes everything from the file but the records so far.

        Args:
            create: whether to make an empty file if there is none.
        """
        if not self._writes or not (create or self._size or self.path.exists()):
            return
        if self._damaged and self.path.exists():
            self.path.replace(self.path.with_name(self.path.name + ".damaged"))
        if self._restored is not None:
            write_text(self.path, self._restored)
            self._restored = None
        with open(self.path, "ab") as file:
            file.truncate(self._size)


def _parse(text: str, path: str | os.PathLike) -> list[Any]:
    *lines, rest = text.split("\n")
    del rest  # Empty, or the part of the last line that a kill left.
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error.msg})") from None
    return records


def _line(record: Any) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
