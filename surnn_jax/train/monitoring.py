"""Progress on stderr, TensorBoard events, a profiler trace, and a warning when a run stalls."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

PROFILE = "profile"
"""Folder of the profiler trace; ``tensorboard --logdir`` and Perfetto read it."""
TENSORBOARD = "tensorboard"
"""Folder of the events; ``tensorboard --logdir`` takes it, or any folder above it."""

_BAR_SECONDS = 0.2
_LINE_SECONDS = 10.0
_FIRST, _STEPS = 5, 10
_PATIENCE = 60.0
_SLOWER = 20.0


class Reporter:
    """A progress bar on a terminal; elsewhere one plain line every ten seconds.

    Args:
        total: steps of the whole run.
        done: steps already done.
        shown: whether to show anything; of several processes only one should.
    """

    def __init__(self, total: int, done: int, shown: bool = True):
        self._silent = not shown
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            file=sys.stderr,
            disable=not (shown and sys.stderr.isatty()),
        )
        self._total = total
        self._shown = (time.monotonic(), done)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def due(self) -> bool:
        """Whether it is time for `show`, whose arguments cost more to compute than this."""
        pause = _LINE_SECONDS if self._bar.disable else _BAR_SECONDS
        return time.monotonic() - self._shown[0] >= pause

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Shows steps done, steps per second since the last call, and values."""
        text = " ".join(f"{name}={value:.4g}" for name, value in values.items())
        now, (then, before) = time.monotonic(), self._shown
        self._shown = (now, step)
        if self._bar.disable:
            speed = (step - before) / max(now - then, 1e-9)
            self.say(f"step {step}/{self._total} {speed:.1f} steps/s {text}")
        else:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)

    def say(self, line: str) -> None:
        """Prints one line, above the bar if there is one."""
        if not self._silent:
            tqdm.write(line, file=sys.stderr)


def check_installed() -> None:
    """Checks that the package that writes TensorBoard events is installed.

    Raises:
        ModuleNotFoundError: naming it.
    """
    try:
        import tensorboardX  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "tensorboard: events are written by tensorboardX, which is missing; "
            "pip install 'surnn_jax[tensorboard]'"
        ) from None


class TensorBoardWriter:
    """Writes scalars as TensorBoard events, in addition to the run's own files.

    Args:
        workdir: the run's folder; the events go below it.
        wanted: whether to do anything at all.
        step: the step from which the run starts or resumes. TensorBoard hides the events that an
            earlier process wrote for later steps.
    """

    def __init__(self, workdir: Path, wanted: bool, step: int):
        self._writer = None
        if wanted:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(
                str(workdir / TENSORBOARD), purge_step=step + 1 if step else 0, flush_secs=10
            )

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Writes scalars by name, such as ``valid/nll``, for a number of steps done."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()


class Profile:
    """Traces ten steps of this process, after the first four, in which programs are compiled.

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
    """While entered, reports a step that takes far longer than all before, and where it hangs.

    Args:
        say: prints a line.
        patience: a stall is at least so many seconds without a step, and at least 20 times the
            longest step so far. The first step is never one: it compiles.
    """

    def __init__(self, say: Callable[[str], None], patience: float = _PATIENCE):
        self._say, self._patience = say, patience
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watch")
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

    def _watch(self) -> None:
        reported = None
        while not self._over.wait(self._patience / 10):
            last = self._last
            if last is None or reported == last:
                continue
            waited = time.monotonic() - last
            if waited > max(self._patience, _SLOWER * self._longest):
                reported = last
                self._say(
                    f"stalled: no step for {waited:.0f} s, the longest before took "
                    f"{self._longest:.1f} s; it is in {self._location()}"
                )

    def _location(self) -> str:
        """File and line of the innermost function that the main thread runs."""
        frame = sys._current_frames().get(self._main)
        if frame is None:
            return "no function"
        innermost = traceback.extract_stack(frame)[-1]
        return f"{innermost.filename}:{innermost.lineno} ({innermost.name})"
