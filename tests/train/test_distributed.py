"""Two processes that train one model, on loopback."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from train_case import fit

from surnn_jax import train
from surnn_jax.train.files import read_lines

ROOT = Path(__file__).parents[2]


def together(workdir, *faults, seconds=120):
    """Both processes' exit codes and outputs; `faults` go to the second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = [sys.executable, str(ROOT / "tests" / "support" / "peer_case.py"), str(workdir), port]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
    both = [
        subprocess.Popen(
            [*program, str(number), *(faults if number else ())],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        said = [process.communicate(timeout=seconds) for process in both]
    finally:
        for process in both:
            process.kill()
    # Above our line, the library that sums over processes says who is connected.
    return [
        (process.returncode, out.splitlines()[-1] if out else "", err)
        for process, (out, err) in zip(both, said, strict=True)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What two processes print, undisturbed, and their folder."""
    workdir = tmp_path_factory.mktemp("two")
    (first, out, said), (second, other, more) = together(workdir)
    assert (first, second) == (0, 0), (said, more)
    assert out == other  # The same bits in both.
    return out, workdir


@pytest.mark.full
def test_promise_11_two_processes_end_alike_and_as_one_does(whole, tmp_path):
    out, workdir = whole
    alone = fit(tmp_path, save_seconds=1e9)
    digest, epoch, value = out.split()
    assert len(digest) == 64
    assert int(epoch) == alone.best_epoch
    np.testing.assert_allclose(float(value), alone.best_value, rtol=1e-5)
    curve = [line["valid/mse"] for line in read_lines(workdir / "metrics.jsonl")]
    np.testing.assert_allclose(curve, [line["valid/mse"] for line in alone.history], rtol=1e-5)


@pytest.mark.full
def test_promise_6_a_signal_to_one_of_two_processes_saves_and_ends_both(
    whole, tmp_path, record_property
):
    (first, _, said), (second, _, more) = together(tmp_path, "term", "9")
    assert (first, second) == (128 + signal.SIGTERM,) * 2, (said, more)
    # The one tells the other while the next step is under way.
    assert "step 11 is saved" in said
    assert more.count("saved") == 0
    (first, out, said), (second, other, more) = together(tmp_path)
    assert (first, second) == (0, 0), (said, more)
    assert "resuming from step 11" in said
    record_property("fault", ("SIGTERM to one of two processes", 1, out != whole[0]))
    assert out == other == whole[0]


@pytest.mark.full
def test_promise_5_a_killed_peer_ends_the_other_and_nothing_is_lost(
    whole, tmp_path, record_property
):
    (first, _, said), (second, _, _) = together(tmp_path, "kill", "14")
    assert second == -signal.SIGKILL
    assert first not in (0, 128 + signal.SIGTERM), said
    assert (tmp_path / "checkpoints").is_dir()
    (first, out, said), (second, other, more) = together(tmp_path)
    assert (first, second) == (0, 0), (said, more)
    assert "resuming from step" in said
    record_property("fault", ("one of two processes killed", 1, out != whole[0]))
    assert out == other == whole[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1", "neither auto nor ADDRESS:PORT,NUMBER,COUNT"),
        ("10.0.0.1:80,0", "neither auto nor ADDRESS:PORT,NUMBER,COUNT"),
        ("10.0.0.1:80,one,2", "neither auto nor ADDRESS:PORT,NUMBER,COUNT"),
        ("10.0.0.1:80,2,2", "process 2 of 2; they are counted from 0"),
    ],
)
def test_bad_peers_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        train.initialize_distributed(text)
