"""A run that is watched: a trace when asked for, a word when it stalls."""

import gzip
import json
import shutil
import struct
import sys
import time

import numpy as np
import pytest
from tensorboardX.proto import event_pb2
from train_case import batch, fit

from surnn_jax.train.monitoring import StallWatchdog


@pytest.mark.full
def test_a_trace_has_ten_steps_and_changes_nothing(tmp_path):
    plain = fit(tmp_path / "plain", save_seconds=1e9)
    done = fit(tmp_path / "traced", save_seconds=1e9, profile=True)
    assert done.history == plain.history
    assert not (tmp_path / "plain" / "profile").exists()
    [trace] = (tmp_path / "traced" / "profile").rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    numbers = [e["args"]["step_num"] for e in events if e.get("name") == "train" and "args" in e]
    assert sorted(map(int, numbers)) == list(range(5, 15))


@pytest.mark.full
def test_a_trace_ends_with_the_run(tmp_path):
    def stops(step):
        if step == 8:
            raise RuntimeError("pulled the plug")
        return batch(step)

    with pytest.raises(RuntimeError, match="plug"):
        fit(tmp_path, batches=stops, save_seconds=1e9, profile=True)
    traces = tmp_path / "profile"
    assert len(list(traces.rglob("*.trace.json.gz"))) == 1
    # Their folders are named by the second, and the next may come within the same.
    shutil.rmtree(traces)
    fit(tmp_path, save_seconds=1e9, profile=True)
    assert len(list(traces.rglob("*.trace.json.gz"))) == 1


def test_a_stall_is_told_once_and_where():
    said = []
    with StallWatchdog(said.append, patience=0.2) as watched:
        time.sleep(0.4)  # Before the first step it compiles, for as long as that takes.
        assert said == []
        for _ in range(3):
            time.sleep(0.01)
            watched.step()
        time.sleep(1.0)
        [line] = said
        watched.step()
        assert line.startswith("stalled: no step for 0 s, the longest before took 0.0 s; it is in ")
        assert "test_monitoring.py" in line
        assert "test_a_stall_is_told_once_and_where" in line
    assert len(said) == 1


def test_a_slow_run_is_not_stalled():
    said = []
    with StallWatchdog(said.append, patience=0.2) as watched:
        for _ in range(5):
            watched.step()
            time.sleep(0.05)
        watched.step()
        time.sleep(0.5)
    assert said == []


def events(folder):
    """What the only new file of events holds: {name: [(step, value), ...]}, and where it begins."""
    [path] = folder.iterdir()
    data, found, begins = path.read_bytes(), {}, []
    while data:
        # A record: its length, a sum of that, its bytes, a sum of them.
        (length,) = struct.unpack("<Q", data[:8])
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        if event.session_log.status == event_pb2.SessionLog.START:
            begins.append(event.step)
        data = data[16 + length :]
    return found, begins


def test_events_say_what_the_metrics_say(tmp_path):
    done = fit(tmp_path, save_seconds=1e9, tensorboard=True)
    told, begins = events(tmp_path / "tensorboard")
    assert begins == [0]
    curve = [(line["step"], np.float32(line["valid/mse"])) for line in done.history]
    assert told["valid/mse"] == curve
    assert [step for step, _ in told["step/loss"]] == list(range(1, done.steps + 1))
    assert len(told["speed/seconds"]) == len(curve)
    assert "speed/step" not in told


@pytest.mark.full
def test_events_that_a_kill_made_void_are_not_shown(tmp_path):
    def stops(step):
        if step == 15:
            raise RuntimeError("pulled the plug")
        return batch(step)

    with pytest.raises(RuntimeError, match="plug"):
        fit(tmp_path, batches=stops, save_seconds=0.0, tensorboard=True)
    shutil.move(tmp_path / "tensorboard", tmp_path / "before")
    fit(tmp_path, save_seconds=0.0, tensorboard=True)
    before, _ = events(tmp_path / "before")
    after, [begins] = events(tmp_path / "tensorboard")
    # Every step was saved, so the first process wrote no event that is void, and none is hidden.
    assert after["step/loss"][0][0] == begins == before["step/loss"][-1][0] + 1 == 16


def test_events_without_their_package_are_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'surnn_jax\[tensorboard\]'"):
        fit(tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
