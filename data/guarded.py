"""Readers that lean on native code of others run in a child process with limits.

A damaged or hostile file may crash such code, make it hang, or fill the memory. Here that ends the
child, and is one line that names the file. There is one child for a whole set of files, not one a
file. What is read in plain Python or by the standard library stays in the process.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

Answer = tuple[Any, list[dict[str, np.ndarray]]]
"""What a reader gives: facts that go through JSON, and records of arrays by name."""

_KINDS = {kind.__name__: kind for kind in (ValueError, FileNotFoundError)}


class Reader:
    """A child process that calls one function, again and again.

    Args:
        function: ``"module:name"``; gives an `Answer`.
        memory: bytes that the child may take beyond what it has when it starts.
        seconds: how long one call may take.
    """

    def __init__(self, function: str, memory: int = 2 << 30, seconds: float = 120):
        self._seconds = seconds
        self._remarks = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, function, str(memory)],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._remarks,
        )
        # A generator that holds this object may never be gone through.
        self._close = weakref.finalize(self, _ended, self._child, self._remarks)

    def __call__(self, where: str, *arguments: Any) -> Answer:
        """Calls the function.

        Args:
            where: the file that it reads, for errors.
            arguments: of the function; must go through JSON.

        Raises:
            ValueError: raised by the function; or the child crashed, or ran into a limit.
            FileNotFoundError: raised by the function.
        """
        end = time.monotonic() + self._seconds
        try:
            self._child.stdin.write(json.dumps(arguments).encode() + b"\n")
            self._child.stdin.flush()
            size = int.from_bytes(self._receive(8, end), "little")
            head = json.loads(self._receive(size, end))
            if "error" in head:
                raise _KINDS[head["kind"]](head["error"])
            records = [
                {name: self._array(*form, end) for name, form in record.items()}
                for record in head["records"]
            ]
        except TimeoutError:
            self.close()
            raise ValueError(
                f"{where}: not read after {self._seconds} s; damaged, or not to trust"
            ) from None
        except (EOFError, BrokenPipeError):
            raise ValueError(f"{where}: {self._end()}; damaged; fetch it again") from None
        return head["facts"], records

    def _array(self, dtype: str, shape: list[int], end: float) -> np.ndarray:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return np.frombuffer(self._receive(size, end), dtype).reshape(shape)

    def _receive(self, size: int, end: float) -> bytes:
        stream, received = self._child.stdout.fileno(), bytearray()
        while len(received) < size:
            if not select.select([stream], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError
            if not (part := os.read(stream, min(size - len(received), 1 << 20))):
                raise EOFError
            received += part
        return bytes(received)

    def _end(self) -> str:
        """How the child ended, in words."""
        code = self._child.wait()
        if code < 0:
            return f"its reader ended by {signal.Signals(-code).name}"
        self._remarks.seek(0)
        last = self._remarks.read().strip().rpartition("\n")[2]
        return f"its reader ended with exit code {code} ({last})"

    @property
    def alive(self) -> bool:
        """Whether it can be called again."""
        return self._child.poll() is None

    def close(self) -> None:
        """Ends the child; so does the end of the last reference to this object."""
        self._close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ended(child: subprocess.Popen, remarks: IO[str]) -> None:
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout, remarks):
        with contextlib.suppress(BrokenPipeError):
            stream.close()


def _limit(memory: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sizes = Path("/proc/self/statm")
    if sizes.exists():  # Only Linux keeps the limit, and says what is taken already.
        taken = int(sizes.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))


def _serve(function: Callable[..., Answer], out: int) -> None:
    with os.fdopen(out, "wb") as answers:
        for line in sys.stdin.buffer:
            arrays: list[np.ndarray] = []
            try:
                facts, records = function(*json.loads(line))
                forms = [
                    {name: (array.dtype.str, array.shape) for name, array in record.items()}
                    for record in records
                ]
                arrays = [array for record in records for array in record.values()]
                head = json.dumps({"facts": facts, "records": forms})
            except tuple(_KINDS.values()) as error:
                head = json.dumps({"error": str(error), "kind": type(error).__name__})
            answers.write(len(head.encode()).to_bytes(8, "little") + head.encode())
            for array in arrays:
                answers.write(np.ascontiguousarray(array).tobytes())
            answers.flush()


def _main() -> None:
    module, name = sys.argv[1].split(":")
    function = getattr(importlib.import_module(module), name)
    # What libraries print must not get among the answers.
    out = os.dup(1)
    os.dup2(2, 1)
    _limit(int(sys.argv[2]))
    _serve(function, out)


if __name__ == "__main__":
    _main()
