"""Generates large data sets: in blocks, on all processors, resuming after an interruption.

A block is a pure function of its number. It is kept in a file of its own until the whole data set
is prepared; a preparation that was killed finds the finished ones again.
"""

import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.paths import ROOT

Block = dict[str, np.ndarray]

_DIGEST = hashlib.sha256().digest_size
"""Length of the hash at the end of a block's file; a zip file alone can lose members unnoticed."""


def generate(
    function: str, arguments: dict[str, Any], blocks: int, folder: Path, desc: str, unit: str
) -> Iterator[Block]:
    """The blocks 0, 1, … of a generator, in order.

    One program per processor does the work. A process pool would import the caller's main module
    in each worker, and its workers outlive a killed parent; these end after their current block.

    Args:
        function: ``"module:name"``; called as ``name(number, **arguments)``, gives a ``Block``.
        arguments: the same for all blocks; must go through JSON.
        blocks: how many.
        folder: where finished blocks are kept. Belongs to this function and these arguments.
        desc: label of the progress bar.
        unit: unit of the progress bar.

    Raises:
        OSError: a worker ended before its work did.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [number for number in range(blocks) if not _whole(_path(folder, number))]
    count = max(1, min(_processors(), len(waiting)))
    shares = [waiting[first::count] for first in range(count) if waiting[first::count]]
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=blocks, desc=desc, unit=unit, disable=None))
        workers = [stack.enter_context(_Worker(function, arguments, s, folder)) for s in shares]
        for number in range(blocks):
            path = _path(folder, number)
            while not path.exists():
                for worker in workers:
                    worker.check(desc)
                time.sleep(0.01)
            bar.update()
            with np.load(io.BytesIO(_content(path))) as arrays:
                yield dict(arrays)


class _Worker:
    def __init__(self, function: str, arguments: dict[str, Any], share: list[int], folder: Path):
        self._remarks = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._share = [_path(folder, number) for number in share]
        # The job goes through a pipe: it may be too long for a command line.
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._remarks,
            text=True,
        )
        job = {"function": function, "arguments": arguments, "share": share, "to": str(folder)}
        job["parent"] = os.getpid()
        # `check` reports a worker that has ended already.
        with suppress(BrokenPipeError):
            self._child.stdin.write(json.dumps(job) + "\n")
            self._child.stdin.flush()

    def check(self, desc: str) -> None:
        """Raises OSError if the worker ended before its work was done."""
        if self._child.poll() is not None and not all(path.exists() for path in self._share):
            self._remarks.seek(0)
            last = self._remarks.read().strip().rpartition("\n")[2]
            raise OSError(f"{desc}: a worker ended with exit code {self._child.returncode}: {last}")

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()
        self._remarks.close()


def _processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"


def _whole(path: Path) -> bool:
    if not path.exists():
        return False
    if _content(path) is None:
        path.unlink()
        return False
    return True


def _content(path: Path) -> bytes | None:
    """The ``.npz`` in a file of a block, or None if it is damaged."""
    raw = path.read_bytes()
    content, digest = raw[:-_DIGEST], raw[-_DIGEST:]
    return content if hashlib.sha256(content).digest() == digest else None


def _work(job: dict[str, Any]) -> None:
    module, name = job["function"].split(":")
    function = getattr(importlib.import_module(module), name)
    for number in job["share"]:
        block = function(number, **job["arguments"])
        path = _path(Path(job["to"]), number)
        part = path.with_suffix(".part")
        stream = io.BytesIO()
        np.savez(stream, **block)
        part.write_bytes(stream.getvalue() + hashlib.sha256(stream.getvalue()).digest())
        part.rename(path)
        if os.getppid() != job["parent"]:  # The parent is gone.
            return


if __name__ == "__main__":
    _work(json.loads(sys.stdin.readline()))
