"""A run that is watched: a trace when asked for, a word when it stalls."""

import gzip
import json
import shutil
import time

import pytest
from train_case import batch, fit

from surnn_jax.train import watch


def test_a_trace_has_ten_steps_and_changes_nothing(tmp_path):
    plain = fit(tmp_path / "plain", save_seconds=1e9)
    done = fit(tmp_path / "traced", save_seconds=1e9, profile=True)
    assert done.history == plain.history
    assert not (tmp_path / "plain" / "profile").exists()
    [trace] = (tmp_path / "traced" / "profile").rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    numbers = [e["args"]["step_num"] for e in events if e.get("name") == "train" and "args" in e]
    assert sorted(map(int, numbers)) == list(range(5, 15))


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
    with watch.Watch(said.append, patience=0.2) as watched:
        time.sleep(0.4)  # Before the first step it compiles, for as long as that takes.
        assert said == []
        for _ in range(3):
            time.sleep(0.01)
            watched.step()
        time.sleep(1.0)
        [line] = said
        watched.step()
        assert line.startswith("stalled: no step for 0 s, the longest before took 0.0 s; it is in ")
        assert "test_watch.py" in line
        assert "test_a_stall_is_told_once_and_where" in line
    assert len(said) == 1


def test_a_slow_run_is_not_stalled():
    said = []
    with watch.Watch(said.append, patience=0.2) as watched:
        for _ in range(5):
            watched.step()
            time.sleep(0.05)
        watched.step()
        time.sleep(0.5)
    assert said == []
