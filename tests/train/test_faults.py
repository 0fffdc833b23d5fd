"""Faults, injected into real processes: `make test-faults` prints what was tried and lost.

Every test ends a run that was harmed and compares it, bit for bit, with one that was not.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from surnn_jax.train import CorruptCheckpointError, checkpoint

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, str(ROOT / "tests" / "support" / "train_case.py")]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
pytestmark = pytest.mark.full


def train(workdir, *fault, before=(), seconds=180):
    return subprocess.run(
        [*before, *PROGRAM, str(workdir), *fault],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def ended(workdir, step=None):
    """What a process prints that goes on in a folder, from that step, and comes to the end."""
    done = train(workdir)
    assert done.returncode == 0, done.stderr
    assert step is None or f"resuming from step {step} in" in done.stderr
    return done.stdout, (workdir / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run comes to, its folder, and how long it takes."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    found = ended(workdir)
    started = time.monotonic()
    ended(workdir.with_name("again"))  # Nothing is compiled any more.
    return found, workdir, time.monotonic() - started


@pytest.fixture
def tally(record_property):
    """Says how often a fault was tried, and in how many of the runs something was lost."""

    def say(fault, tried, lost=0):
        record_property("fault", (fault, tried, lost))

    return say


def test_promise_5_killed_at_random_moments(whole, tally, tmp_path):
    draw, killed, lost = random.Random(11), 0, 0
    for number in range(100):
        workdir, cut = tmp_path / str(number), True
        while cut and killed < 20:
            process = subprocess.Popen(
                [*PROGRAM, str(workdir)],
                env=ENV,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(draw.uniform(0.2, 1.0) * whole[2])
            process.kill()
            cut = process.wait() == -signal.SIGKILL  # Else it was faster, and is at its end.
            killed += cut
        lost += ended(workdir) != whole[0]
        if killed == 20:
            break
    tally("SIGKILL at a random moment", killed, lost)
    assert killed == 20
    assert lost == 0


STEPS = [("compile", 1), ("step", 10), ("eval", 6), ("saving", 9)]


@pytest.mark.parametrize(("where", "step"), STEPS)
def test_promise_6_terminated(where, step, whole, tally, tmp_path):
    told = train(tmp_path / "run", "term", where)
    assert told.returncode == 128 + signal.SIGTERM, told.stderr
    assert f"step {step} is saved in" in told.stderr
    assert "Traceback" not in told.stderr
    lost = ended(tmp_path / "run", step) != whole[0]
    tally(f"SIGTERM in {where}", 1, lost)
    assert not lost


def small_disk(folder, *commands):
    """Runs commands where `folder` is a disk of its own, which nobody else sees."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("takes the right to mount a file system (unshare -m)")
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", "\n".join(commands)],
        env={**ENV, "DISK": str(folder), "RUN": " ".join([*PROGRAM, str(folder / "run")])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_promise_5_a_full_disk(whole, tally, tmp_path):
    """One that holds the first checkpoint and not all of the next; then it is made larger."""
    found = small_disk(
        tmp_path,
        'mount -t tmpfs -o size=300k tmpfs "$DISK"',
        "$RUN && echo unharmed",
        'mount -o remount,size=50m "$DISK"',
        '$RUN && cat "$DISK/run/metrics.jsonl"',
    )
    assert "unharmed" not in found.stdout
    assert "No space left on device" in found.stderr
    lost = found.stdout != whole[0][0] + whole[0][1].decode()
    tally("full disk", 1, lost)
    assert not lost, found.stderr


def test_a_read_only_folder_is_refused(tally, tmp_path):
    found = small_disk(
        tmp_path,
        'mount -t tmpfs tmpfs "$DISK"; mkdir "$DISK/run"',
        'mount -o remount,ro "$DISK"',
        "$RUN; exit $?",
    )
    assert found.returncode == 1
    assert "Read-only file system" in found.stderr.splitlines()[-1]
    tally("read-only folder", 1)


def harmed(path, how, draw):
    """A file with one of its bits turned, its end cut off, or gone."""
    content = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
        return
    if how == "truncated":
        del content[draw.randrange(len(content)) :]
    else:
        bit = draw.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("how", "times"), [("bit flipped", 60), ("truncated", 20), ("deleted", 20)]
)
def test_promise_7_damaged_files(how, times, whole, tally):
    draw, missed = random.Random(times), 0
    folder = checkpoint.find(whole[1])
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    # Each once where it is deleted; the seal was missed by a draw that seldom met it.
    chosen = files if how == "deleted" else [draw.choice(files) for _ in range(times)]
    assert len(chosen) >= times
    for path in chosen:
        kept = path.read_bytes()
        harmed(path, how, draw)
        try:
            found = checkpoint.find(whole[1])
            # Without its seal it is a save that was cut off: the one before is read.
            unsealed = how == "deleted" and path.name == checkpoint.MANIFEST
            missed += not unsealed or int(found.name) >= int(folder.name)
        except CorruptCheckpointError as error:
            missed += str(path) not in str(error)
        path.write_bytes(kept)
    tally(f"checkpoint file {how}", len(chosen), missed)
    assert missed == 0


def test_a_second_run_in_one_folder(whole, tally, tmp_path):
    first = subprocess.Popen(
        [*PROGRAM, str(tmp_path), "slow", "0"],
        env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "metrics.jsonl").exists():
        assert first.poll() is None
        time.sleep(0.05)
    second = train(tmp_path)
    out, _ = first.communicate()
    assert second.returncode == 1
    assert "another process trains there" in second.stderr.splitlines()[-1]
    lost = (out, (tmp_path / "metrics.jsonl").read_bytes()) != whole[0]
    tally("second run in one folder", 1, lost)
    assert not lost


def test_a_clock_that_goes_backwards(whole, tally, tmp_path):
    done = train(tmp_path / "run", "clock")
    assert done.returncode == 0, done.stderr
    lost = (done.stdout, (tmp_path / "run" / "metrics.jsonl").read_bytes()) != whole[0]
    tally("clock going backwards", 1, lost)
    assert not lost
