"""SIGTERM and SIGINT as a flag, so that a training loop can save before it exits."""

import signal
import threading


class Interrupted(SystemExit):
    """The run received a signal and has saved; the exit code is 128 + the signal's number.

    Examples:
        >>> import signal
        >>> from surnn_jax import train
        >>> train.Interrupted(signal.SIGTERM).code
        143
    """

    def __init__(self, signum: int):
        super().__init__(128 + signum)


class Signals:
    """While entered, the first SIGTERM or SIGINT only sets `caught`; a second one acts as usual.

    Outside the main thread, where Python allows no handlers, it does nothing.

    Attributes:
        caught: the signal's number, None before the first.
    """

    def __init__(self):
        self.caught: int | None = None
        self._handlers = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._handlers[signum] = signal.signal(signum, self._catch)
        return self

    def __exit__(self, *_):
        while self._handlers:
            signum, handler = self._handlers.popitem()
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def _catch(self, signum, _frame):
        self.caught = signum
        self.__exit__()
