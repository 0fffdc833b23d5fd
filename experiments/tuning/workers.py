"""Runs the jobs of a reproduction, each in a process and on a core of its own."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.tuning.jobs import Job, Ladder

_POLL_SECONDS = 2.0
LOG = "log.txt"


class Outcome(NamedTuple):
    """What came of a job.

    Attributes:
        job: the job.
        seconds: wall time.
        error: the last line that it wrote, if it failed.
    """

    job: Job
    seconds: float
    error: str | None


class Pool:
    """Works through ladders until nothing is left, the time is over, or it is told to stop.

    Args:
        ladders: in order of worth.
        workers: how many jobs run at once, each pinned to one core.
        until: `time.monotonic` after which no job is begun and running ones are told to save.
        cores: a folder for the locks by which processes share the cores.
        report: called with every :class:`Outcome`, by the thread of its worker.
    """

    def __init__(
        self,
        ladders: Sequence[Ladder],
        workers: int,
        until: float,
        cores: Path,
        report: Callable[[Outcome], None],
    ):
        self._ladders, self._workers, self._report = ladders, workers, report
        self._until, self._cores = until, cores
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._failed: set[tuple[str, str]] = set()
        self._busy: set[tuple[str, str]] = set()

    def stop(self) -> None:
        """Tells running jobs to save and leave, and begins no other."""
        self._stop.set()

    def run(self) -> list[Outcome]:
        """Runs the jobs; returns those that failed."""
        failures: list[Outcome] = []
        threads = [
            threading.Thread(target=self._work, args=(failures,), daemon=True)
            for _ in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if time.monotonic() > self._until:
                self.stop()
            for thread in threads:
                thread.join(0.1)
        return failures

    def _work(self, failures: list[Outcome]) -> None:
        with _own_core(self._cores):
            self._loop(failures)

    def _loop(self, failures: list[Outcome]) -> None:
        while not self._stop.is_set():
            waiting = False
            for ladder in self._ladders:
                state = self._one(ladder, failures)
                if state == "ran":
                    break
                waiting |= state == "busy"
            else:
                if not waiting:
                    return
                self._stop.wait(_POLL_SECONDS)

    def _one(self, ladder: Ladder, failures: list[Outcome]) -> str:
        """Runs one job of a ladder: ``ran``, ``busy`` if others have all there is, or ``over``."""
        name = ladder.entry.name
        with self._lock:
            if (name, "") in self._failed:
                return "over"
            try:
                jobs = ladder.ready()
            except ValueError as error:
                self._failed.add((name, ""))
                outcome = Outcome(Job(ladder.entry, "choice", ()), 0.0, str(error))
                failures.append(outcome)
                self._report(outcome)
                return "over"
            able = [job for job in jobs if (name, job.name) not in self._failed]
            free = [job for job in able if (name, job.name) not in self._busy]
            if not free:
                return "busy" if able else "over"
            job = free[0]
            self._busy.add((name, job.name))
        try:
            return self._claimed(ladder, job, failures)
        finally:
            with self._lock:
                self._busy.discard((name, job.name))

    def _claimed(self, ladder: Ladder, job: Job, failures: list[Outcome]) -> str:
        with ladder.claim(job) as claim:
            if claim is None:
                return "busy"
            if ladder.done(job):  # Another process has finished it since.
                return "ran"
            begun = time.monotonic()
            code = self._process(ladder.folder(job), job, claim)
            seconds = time.monotonic() - begun
            if ladder.done(job):
                self._report(Outcome(job, seconds, None))
            elif not self._stop.is_set():
                outcome = Outcome(job, seconds, _last_line(ladder.folder(job) / LOG, code))
                with self._lock:
                    self._failed.add((ladder.entry.name, job.name))
                    failures.append(outcome)
                self._report(outcome)
        return "ran"

    def _process(self, folder: Path, job: Job, claim: int) -> int:
        command = [sys.executable, "-m", f"experiments.{job.entry.program}", *job.flags]
        with open(folder / LOG, "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Of its own: Ctrl-C reaches this process alone, which then tells it to save.
                start_new_session=True,
                # It holds the claim too: if this process is killed, no other begins the job.
                pass_fds=(claim,),
            )
            try:
                while process.poll() is None:
                    if self._stop.is_set():
                        process.send_signal(signal.SIGTERM)
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            process.wait(60)
                        break
                    time.sleep(0.1)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
        return process.returncode


@contextlib.contextmanager
def _own_core(folder: Path) -> Iterator[None]:
    """Pins the calling thread, and what it starts, to a core that no other worker has taken.

    If all are taken it stays free to move.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        for core in sorted(before):
            descriptor = os.open(folder / f"core-{core}", os.O_CREAT | os.O_RDWR)
            stack.callback(os.close, descriptor)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.sched_setaffinity(0, {core})  # Of this thread alone; a child inherits it.
                stack.callback(os.sched_setaffinity, 0, before)
                break
        yield


def _last_line(log: Path, code: int) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"exit code {code}: {lines[-1].strip()[:200] if lines else 'it wrote nothing'}"
