"""Logs of a run: their cost does not grow, their damage is named, and old checkpoints have them."""

import itertools
import logging
import re
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest
from tiers import full
from train_case import STEPS, batch, digest, fit

from surnn_jax import train
from surnn_jax.train import checkpoint, trainer
from surnn_jax.train.files import read_lines

NEVER = 1e9
TINY = {
    "task": train.Task(
        init=lambda key, example: {"w": jnp.zeros(())},
        loss=lambda params, example, key: ((params["w"] - 1.0) ** 2, {}),
        evaluate=lambda params, example: {"far": (jnp.abs(params["w"] - 3.0), jnp.ones(()))},
    ),
    "optimizer": optax.sgd(0.01),
    "steps_per_epoch": 1,
    "monitor": "far",
    "max_epochs": 65,
    "save_seconds": 0.0,
}


def bytes_written():
    """What this process and its threads have handed to the system to write."""
    return int(re.search(r"wchar: (\d+)", Path("/proc/self/io").read_text())[1])


def plug(step_to_pull_it):
    def batches(step):
        if step == step_to_pull_it:
            raise RuntimeError("pulled the plug")
        return batch(step)

    return batches


def same(done, other):
    return digest((done.params, done.last_params)) == digest((other.params, other.last_params))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return fit(workdir, save_seconds=NEVER), (workdir / "metrics.jsonl").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts by Linux's /proc")
@pytest.mark.full
def test_an_epoch_and_a_resumption_write_no_more_late_in_a_run_than_early(tmp_path):
    """Every epoch saves; lines get a digit longer with a number, and nothing else grows."""
    counts = []

    def counted():
        counts.append(bytes_written())
        return [batch(0)]

    with pytest.raises(RuntimeError, match="plug"):
        fit(tmp_path, evaluation=counted, batches=plug(60), **TINY)
    cost = [after - before for before, after in itertools.pairwise(counts)]
    early, late = sum(cost[10:25]) / 15, sum(cost[-15:]) / 15
    assert early > 1000  # The checkpoints are counted.
    assert late < 1.02 * early
    before = bytes_written()
    fit(tmp_path, evaluation=lambda: [batch(0)], batches=batch, **TINY | {"save_seconds": NEVER})
    # The rest: five epochs' lines, and one checkpoint with them.
    assert bytes_written() - before < 3 * early
    assert [line["epoch"] for line in read_lines(tmp_path / "metrics.jsonl")] == [*range(1, 66)]


@pytest.mark.parametrize("name", ["metrics.jsonl", full("speed.jsonl")])
def test_promise_7_a_damaged_log_is_refused_and_latest_good_begins_a_new_one(
    name, whole, tmp_path, caplog
):
    with pytest.raises(RuntimeError, match="plug"):
        fit(tmp_path, batches=plug(15), save_seconds=0.0)
    path = tmp_path / name
    text = path.read_text()
    path.write_text(text.replace("1", "7", 1))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(train.CorruptCheckpointError, match="restore=latest_good") as caught:
        fit(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    with caplog.at_level(logging.WARNING):
        done = fit(tmp_path, restore="latest_good", save_seconds=NEVER)
    assert str(path) in caplog.text
    assert same(done, whole[0])
    assert [line["epoch"] for line in read_lines(path)] == [3, 4]
    assert (tmp_path / f"{name}.damaged").read_text() == text.replace("1", "7", 1)
    assert fit(tmp_path, save_seconds=NEVER).history == done.history


def test_promise_5_a_checkpoint_of_format_1_is_continued_with_the_same_bits(
    whole, tmp_path, monkeypatch
):
    """Format 1 held the records of all epochs, and no marks."""

    def record_1(self):
        self._settle()
        progress = self.progress._asdict()
        for key in ("epochs", "epoch_seconds", "num_skipped"):
            del progress[key]
        names = ("metrics.jsonl", "speed.jsonl", "nonfinite.jsonl")
        records = (self.logs[name].records for name in names)
        return {
            "progress": progress | dict(zip(("history", "speed", "skipped"), records, strict=True))
        }

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "record", record_1)
        patch.setattr(checkpoint, "_FORMAT", 1)
        with pytest.raises(RuntimeError, match="plug"):
            fit(tmp_path, batches=plug(2 * STEPS + 3), save_seconds=0.0)
    record = checkpoint.read_record(checkpoint.find(tmp_path))
    assert record["format"] == 1
    assert [line["epoch"] for line in record["progress"]["history"]] == [1, 2]
    # Its own records count, whatever the file says.
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"ep')
    with pytest.raises(RuntimeError, match="plug"):
        fit(tmp_path, batches=plug(2 * STEPS + 5), save_seconds=0.0)
    assert checkpoint.read_record(checkpoint.find(tmp_path))["format"] == 2
    done = fit(tmp_path, save_seconds=NEVER)
    assert same(done, whole[0])
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole[1]
    assert [line["epoch"] for line in read_lines(tmp_path / "speed.jsonl")] == [1, 2, 3, 4]
