"""Reproduces the tables of a suite: runs what is missing, in order of worth.

    python -m experiments.reproduce --suite=surnn --plan
    python -m experiments.reproduce --suite=surnn --jobs=2 --hours=8 --data_dir=FOLDER
    python -m experiments.reproduce --suite=surnn --publish

Suite ``surnn``: every model of a task gets four draws of learning rate and weight decay on a part
of the budget, and the best draw is trained with three seeds (:mod:`experiments.tuning.effort`).
Suite ``chung``: the searches of :mod:`experiments.search`. Each job is a process on a core of its
own. It can be killed at any time, and two of these commands can share one folder: the same command
goes on with what is left. A job that fails stops no other; it is named at the end (exit code 1).

``--publish`` copies finished results to ``experiments/results``, from which the tables are printed.
"""

import math
import os
import signal
import sys
import time
from pathlib import Path

from absl import flags

from data import cli, columns, paths
from experiments.tuning import jobs, matrix, protocols
from experiments.tuning.workers import Pool, report

RESULTS = Path(__file__).parent / "results"

_SUITE = flags.DEFINE_enum("suite", "surnn", ["surnn", "chung"], "What to reproduce.")
_PLAN = flags.DEFINE_boolean("plan", False, "Print what is recorded and what is missing; end.")
_PUBLISH = flags.DEFINE_boolean("publish", False, "Copy finished results to the committed; end.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Jobs at once, one core each.", lower_bound=1)
_HOURS = flags.DEFINE_float(
    "hours", None, "Stop after so many hours; running jobs save.", lower_bound=0
)
_DEVICE = flags.DEFINE_enum(
    "device", "cpu", ["cpu", "gpu"], "cpu: short presets; gpu: the full ones."
)
_TASKS = flags.DEFINE_list("tasks", [], "Only these tasks (data sets in suite chung).")
_MODELS = flags.DEFINE_list("models", [], "Only these models (units in suite chung).")
_WORKDIR = cli.define_path("workdir", None, "Folder of the runs; by default runs/reproduce.")
_DATA_DIR = cli.define_path("data_dir", None, "Folder that is searched for originals first.")

SEARCHES = (
    ("music", "chung", ("jsb", "nottingham", "musedata", "piano_midi"), ("--num_trials=10",)),
    ("music", "controlled", ("jsb", "nottingham", "musedata", "piano_midi"), ("--num_trials=10",)),
    ("speech", "controlled", ("fsdd", "asterisk_speech"), ("--num_trials=4", "--search_seed=7")),
)
"""Suite ``chung``: experiment, protocol, data sets, further flags."""


def main() -> None:
    """Plans, publishes, or runs what the flags ask for."""
    if _PLAN.value and _PUBLISH.value:
        raise ValueError("--plan and --publish are two things: give one of them")
    if _HOURS.value is not None and math.isnan(_HOURS.value):
        raise ValueError("--hours must be a number, got nan")
    if _DATA_DIR.value is not None:
        # Not as the flag of a job: a named folder must hold the data of every task.
        os.environ[paths.DATA_VARIABLE] = _DATA_DIR.value
        paths.folders()  # A mistyped folder is refused now.
    home = Path(_WORKDIR.value or "runs/reproduce") / f"{_SUITE.value}-{_DEVICE.value}"
    lines = work(home)
    if _PLAN.value:
        print(plan(lines))
    elif _PUBLISH.value:
        for folder in publish(lines):
            print(folder)
    else:
        run(lines, home)


def work(home: Path) -> list[jobs.Work]:
    """The lines of the suite that the flags select, in order of worth."""
    if _SUITE.value == "surnn":
        results = RESULTS / "surnn" / ("short" if _DEVICE.value == "cpu" else "full")
        return [
            jobs.Ladder(entry, home, results, _DEVICE.value)
            for entry in matrix.select(matrix.surnn(), _TASKS.value, _MODELS.value)
        ]
    known = list(dict.fromkeys(name for _, _, names, _ in SEARCHES for name in names))
    for name in _TASKS.value:
        protocols.check_known("task", name, dict.fromkeys(known))
    for name in _MODELS.value:
        protocols.check_known("model", name, protocols.UNITS)
    return [
        jobs.SearchGroup(experiment, protocol, name, unit, more, home, RESULTS / "chung")
        for experiment, protocol, names, more in SEARCHES
        for name in names
        for unit in protocols.UNITS
        if name in (_TASKS.value or names) and unit in (_MODELS.value or protocols.UNITS)
    ]


def plan(lines: list[jobs.Work]) -> str:
    """A table: what is recorded, what is missing, and how long that takes."""
    rows = [["", "recorded", "budget, min", "left, min"]]
    total, unknown = 0.0, 0.0
    for line in lines:
        whole, left = line.seconds(), sum(line.left())
        total += left * (whole or 0)
        unknown += 0 if whole else left
        known = ("?", "?") if whole is None else (f"{whole / 60:.1f}", f"{left * whole / 60:.0f}")
        rows.append([line.name, str(line.recorded()), known[0], known[1] if left else "-"])
    end = f"left: {total / 3600:.1f} hours of one core, and {unknown:.0f} budgets never timed"
    return "\n".join([*columns.lines(rows), end])


def publish(lines: list[jobs.Work]) -> list[Path]:
    """Copies finished results to the committed ones.

    Raises:
        ValueError: the suite is not ``surnn``.
    """
    if _SUITE.value != "surnn":
        raise ValueError("--publish is for --suite=surnn")
    return [folder for line in lines for folder in line.publish()]


def run(lines: list[jobs.Work], home: Path) -> None:
    """Runs the missing jobs; exits with 1 if one failed, with 130 or 143 if it was stopped."""
    until = time.monotonic() + 3600 * _HOURS.value if _HOURS.value is not None else float("inf")
    pool = Pool(lines, _JOBS.value, until, home / "cores", lambda outcome: report(outcome, lines))
    caught: list[int] = []

    def stop(number, frame):
        del frame
        caught.append(number)
        pool.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    home.mkdir(parents=True, exist_ok=True)
    failures = pool.run()
    for failure in failures:
        print(f"failed: {failure.label}: {failure.error}", file=sys.stderr)
    if caught:
        sys.exit(128 + caught[0])
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
