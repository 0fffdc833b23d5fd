"""Generating large data sets: in blocks, on all processors, going on where it was cut off.

A block is a pure function of its number. It is kept in a file of its own until the whole data set
is prepared; a preparation that was killed finds the finished ones again.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.locate import ROOT

Block = dict[str, np.ndarray]


def made(
    function: str, arguments: dict[str, Any], blocks: int, folder: Path, desc: str, unit: str
) -> Iterator[Block]:
    """The blocks 0, 1, … of a generator, in order.

    The work is done by programs of their own, one a processor: a process pool would import the
    caller's main module again in each worker, and its workers outlive a killed parent. These end
    after their block when it is gone.

    Args:
        function: ``"module:name"``; called as ``name(number, **arguments)``, gives a ``Block``.
        arguments: the same for all blocks; must go through JSON.
        blocks: how many.
        folder: where finished blocks are kept. Belongs to this function and these arguments.
        desc: what the progress bar says.
        unit: what a block is a number of.

    Raises:
        OSError: a worker ended before its work did.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [number for number in range(blocks) if not _whole(_path(folder, number))]
    count = max(1, min(len(os.sched_getaffinity(0)), len(waiting)))
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
            with np.load(path) as arrays:
                yield dict(arrays)


class _Worker:
    def __init__(self, function: str, arguments: dict[str, Any], share: list[int], folder: Path):
        self._remarks = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._share = [_path(folder, number) for number in share]
        # What it has to do goes in by a pipe: a command line could be too short for it.
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._remarks,
            text=True,
        )
        job = {"function": function, "arguments": arguments, "share": share, "to": str(folder)}
        self._child.stdin.write(json.dumps(job) + "\n")
        self._child.stdin.flush()

    def check(self, desc: str) -> None:
        """Complains where the worker has ended before its work did."""
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


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"


def _whole(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with np.load(path) as arrays:
            dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        path.unlink()
        return False
    return True


def _work(job: dict[str, Any]) -> None:
    module, name = job["function"].split(":")
    function = getattr(importlib.import_module(module), name)
    for number in job["share"]:
        block = function(number, **job["arguments"])
        path = _path(Path(job["to"]), number)
        part = path.with_suffix(".part")
        with part.open("wb") as stream:
            np.savez(stream, **block)
        part.rename(path)
        if os.getppid() != job["parent"]:  # Nobody is waiting any more.
            return


if __name__ == "__main__":
    parent = os.getppid()
    _work({**json.loads(sys.stdin.readline()), "parent": parent})
