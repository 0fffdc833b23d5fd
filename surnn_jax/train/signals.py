"""SIGTERM and SIGINT as a flag that loops look at, so that they can save before they leave."""

import signal
import threading


class Interrupted(SystemExit):
    """The run was told to stop, has saved, and leaves with 128 + the signal's number."""

    def __init__(self, signum: int):
        super().__init__(128 + signum)


class Signals:
    """While entered, the first SIGTERM or SIGINT only sets `caught`; a second one acts as ever.

    Outside the main thread, where Python allows no handlers, it does nothing.

    Attributes:
        caught: number of the signal, None while there was none.
    """

    def __init__(self):
        self.caught: int | None = None
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._before[signum] = signal.signal(signum, self._catch)
        return self

    def __exit__(self, *_):
        while self._before:
            signum, handler = self._before.popitem()
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def _catch(self, signum, _frame):
        self.caught = signum
        self.__exit__()
