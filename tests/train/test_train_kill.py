"""A run that is killed, again and again, ends as if nothing had happened (promises 5 and 6)."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiers import full
from train_case import digest, fit

ROOT = Path(__file__).parents[2]


def train(workdir, *fault):
    return subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "train_case.py"), str(workdir), *fault],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# In a step; and as the first checkpoint is written and before it is sealed, and at the start, too.
FEW = [("step", "12", f"{random.Random(5).uniform(0, 0.04):.3f}")]
MANY = [("saving", "1", "0.02"), ("unsealed", "1"), ("start", "0", "0.2"), FEW[0]]


@pytest.mark.parametrize("faults", [FEW, full(MANY)], ids=["few", "many"])
def test_promise_5_killed_at_any_moment_and_run_again_gives_the_same_bits(faults, tmp_path, capfd):
    """Those that are ended are processes of their own; the whole run and the last part are not."""
    whole = fit(tmp_path / "whole", save_seconds=1e9)
    curve = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert curve.count(b"\n") == 4

    for fault in faults:
        killed = train(tmp_path / "cut", *fault)
        assert killed.returncode == -signal.SIGKILL, (fault, killed.stdout, killed.stderr)
    terminated = train(tmp_path / "cut", "term", "20")
    assert terminated.returncode == 128 + signal.SIGTERM, terminated.stderr
    assert "step 21 is saved" in terminated.stderr
    assert "Traceback" not in terminated.stderr

    capfd.readouterr()
    ended = fit(tmp_path / "cut")
    assert "resuming from step 21" in capfd.readouterr().err
    assert digest((ended.params, ended.last_params)) == digest((whole.params, whole.last_params))
    assert ended.history == whole.history
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == curve
