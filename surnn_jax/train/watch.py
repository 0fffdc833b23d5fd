"""What goes on in a run: a trace of some of its steps, and a word when it stalls."""

import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

PROFILE = "profile"
"""Folder of the trace; `tensorboard --logdir` and Perfetto read it."""
_FIRST, _STEPS = 5, 10
_PATIENCE = 60.0
_SLOWER = 20.0


class Profile:
    """Traces ten steps of this process, once what they compile is compiled.

    Args:
        workdir: the run's folder; the trace goes below it.
        wanted: whether to do anything at all.
    """

    def __init__(self, workdir: Path, wanted: bool):
        self._folder, self._wanted = workdir / PROFILE, wanted
        self._steps, self._open = 0, False

    def step(self, state: Any) -> None:
        """To be called after every step, with the arrays that it computes."""
        self._steps += 1
        if not self._wanted or self._steps not in (_FIRST, _FIRST + _STEPS):
            return
        jax.block_until_ready(state)  # So that whole steps are traced.
        if self._steps == _FIRST:
            jax.profiler.start_trace(self._folder)
            self._open = True
        else:
            self.close()

    def close(self) -> None:
        """Ends a trace that is being written."""
        if self._open:
            jax.profiler.stop_trace()
            self._open = False


class StallWatchdog:
    """While entered, says when a step takes far longer than those before, and where it is.

    Args:
        say: prints a line.
        patience: least seconds without a step, after the first, that are called a stall; and no
            fewer than 20 times the longest step so far.
    """

    def __init__(self, say: Callable[[str], None], patience: float = _PATIENCE):
        self._say, self._patience = say, patience
        self._thread = threading.Thread(target=self._look, daemon=True, name="watch")
        self._over = threading.Event()
        self._main = threading.get_ident()
        self._last: float | None = None
        self._longest = 0.0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def step(self) -> None:
        """To be called after every step."""
        now = time.monotonic()
        if self._last is not None:
            self._longest = max(self._longest, now - self._last)
        self._last = now

    def _look(self) -> None:
        said = None
        while not self._over.wait(self._patience / 10):
            last = self._last
            if last is None or said == last:
                continue
            waited = time.monotonic() - last
            if waited > max(self._patience, _SLOWER * self._longest):
                said = last
                self._say(
                    f"stalled: no step for {waited:.0f} s, the longest before took "
                    f"{self._longest:.1f} s; it is in {self._place()}"
                )

    def _place(self) -> str:
        """File and line of the innermost function that is being run."""
        frame = sys._current_frames().get(self._main)
        if frame is None:
            return "no function"
        where = traceback.extract_stack(frame)[-1]
        return f"{where.filename}:{where.lineno} ({where.name})"
