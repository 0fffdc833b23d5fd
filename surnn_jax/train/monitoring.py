"""What a run shows on stderr while it goes on."""

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

_BAR_SECONDS = 0.2
_LINE_SECONDS = 10.0


class Reporter:
    """A progress bar on a terminal; elsewhere one plain line every ten seconds.

    Args:
        total: steps of the whole run.
        done: steps already behind it.
        shown: whether to show anything: of several processes only one should.
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
        """Whether it is time for `show`: what it needs costs more than this question."""
        pause = _LINE_SECONDS if self._bar.disable else _BAR_SECONDS
        return time.monotonic() - self._shown[0] >= pause

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Shows where the run is: steps done, steps a second since the last time, values."""
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
        """One line, above the bar where there is one."""
        if not self._silent:
            tqdm.write(line, file=sys.stderr)
