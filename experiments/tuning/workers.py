"""Runs the jobs of a reproduction, each in a process and on a core of its own."""

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.tuning.jobs import Job, Work

_POLL_SECONDS = 2.0
LOG = "log.txt"


class Outcome(NamedTuple):
    """What came of a job.

    Attributes:
        name: the line of the table.
        job: the job; None if the line cannot go on.
        seconds: wall time.
        error: the last line that it wrote, if it failed.
    """

    name: str
    job: Job | None
    seconds: float
    error: str | None

    @property
    def label(self) -> str:
        """The line, and the folder of the job if there is one."""
        return f"{self.name}/{self.job.folder.name}" if self.job else self.name


class Pool:
    """Works through the jobs of all lines until none is left, or it is time to stop.

    Args:
        work: the lines, in order of worth.
        workers: how many jobs run at once, each pinned to one core.
        until: `time.monotonic` after which no job is begun and running ones are told to save.
        cores: a folder for the locks by which processes share the cores.
        report: called with every :class:`Outcome`, by the thread of its worker.
    """

    def __init__(
        self,
        work: Sequence[Work],
        workers: int,
        until: float,
        cores: Path,
        report: Callable[[Outcome], None],
    ):
        self._lines, self._workers, self._report = work, workers, report
        self._until, self._cores = until, cores
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._failed: set[Path | str] = set()
        self._broken: list[Exception] = []
        self._busy: set[Path] = set()

    def stop(self) -> None:
        """Tells running jobs to save and leave, and begins no other."""
        self._stop.set()

    def run(self) -> list[Outcome]:
        """Runs the jobs; returns those that failed.

        Raises:
            Exception: what no worker expects, such as a disk that is full; running jobs have saved.
        """
        failures: list[Outcome] = []
        if time.monotonic() >= self._until:
            self.stop()
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
        if self._broken:
            raise self._broken[0]
        return failures

    def _work(self, failures: list[Outcome]) -> None:
        try:
            with _own_core(self._cores):
                self._loop(failures)
        except Exception as error:  # Else it would end this thread alone, with a good exit code.
            self._broken.append(error)
            self.stop()

    def _loop(self, failures: list[Outcome]) -> None:
        while not self._stop.is_set():
            waiting = False
            for line in self._lines:
                state = self._one(line, failures)
                if state == "ran":
                    break
                waiting |= state == "busy"
            else:
                if not waiting:
                    return
                self._stop.wait(_POLL_SECONDS)

    def _one(self, line: Work, failures: list[Outcome]) -> str:
        """Runs one job of a line: ``ran``, ``busy`` if others have all there is, or ``over``."""
        with self._lock:
            if line.name in self._failed:
                return "over"
            try:
                jobs = line.ready()
            except ValueError as error:
                self._failed.add(line.name)
                self._tell(failures, Outcome(line.name, None, 0.0, str(error)))
                return "over"
            able = [job for job in jobs if job.folder not in self._failed]
            free = [job for job in able if job.folder not in self._busy]
            if not free:
                return "busy" if able else "over"
            job = free[0]
            self._busy.add(job.folder)
        try:
            return self._claimed(line, job, failures)
        finally:
            with self._lock:
                self._busy.discard(job.folder)

    def _claimed(self, line: Work, job: Job, failures: list[Outcome]) -> str:
        with job.claim() as claim:
            if claim is None:
                return "busy"
            if line.done(job):  # Another process has finished it since.
                return "ran"
            begun = time.monotonic()
            code = self._process(job, claim)
            seconds = time.monotonic() - begun
            with self._lock:
                if line.done(job):
                    self._report(Outcome(line.name, job, seconds, None))
                elif not self._stop.is_set():
                    self._failed.add(job.folder)
                    error = _last_line(job.folder / LOG, code)
                    self._tell(failures, Outcome(line.name, job, seconds, error))
        return "ran"

    def _tell(self, failures: list[Outcome], outcome: Outcome) -> None:
        failures.append(outcome)
        self._report(outcome)

    def _process(self, job: Job, claim: int) -> int:
        with open(job.folder / LOG, "ab") as log:
            process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Of its own: Ctrl-C reaches this process alone, which then tells it to save.
                start_new_session=True,
                # It holds the claim too: if this process is killed, no other begins the job.
                pass_fds=(claim,),
            )
            _pass_on_niceness(process.pid)
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


def _pass_on_niceness(process: int) -> None:
    """Makes a job in a session of its own yield as this process does.

    Linux weighs sessions against each other first, and niceness counts only within one, so that a
    nice job in a new session would take as much as everything else together.
    """
    with contextlib.suppress(OSError):  # Not Linux, not built with it, or not allowed.
        Path(f"/proc/{process}/autogroup").write_text(str(os.nice(0)))


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


def report(outcome: Outcome, lines: Sequence[Work]) -> None:
    """Prints a line about a job that has ended: how long it took, and what is left of all."""
    known, ready = 0.0, 0
    for line in lines:
        with contextlib.suppress(ValueError):  # A damaged result fails its own line, by name.
            known += sum(line.left()) * (line.seconds() or 0) / 3600
            ready += line.recorded()
    state = "failed" if outcome.error else "done"
    print(
        f"{time.strftime('%H:%M')} {outcome.label} {state}, {outcome.seconds / 60:.1f} min; "
        f"{ready} results; {known:.1f} core-hours left of what is timed",
        flush=True,
    )
