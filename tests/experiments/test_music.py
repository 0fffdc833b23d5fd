"""The music experiment end to end, by its commands, as a person runs it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from data_case import run, same_files
from tiers import full

from data import paths
from experiments import music
from experiments.runner import records
from experiments.runner.config import flag_of
from experiments.tasks import registry
from experiments.tasks.music import config as music_config

REQUIRED = {
    "experiment",
    "dataset",
    "cell",
    "switch",
    "parameters",
    "update_rate",
    "metrics",
    "steps",
    "seconds",
    "config",
    "versions",
}
SMALL = ["--preset=smoke", "--features=5", "--max_epochs=3"]


def experiment(workdir: Path, *flags: str):
    return run("-m", "experiments.music", *flags, f"--workdir={workdir}")


def arrays(workdir: Path) -> bytes:
    """All parameters of the last checkpoint, best and last, bit for bit."""
    import jax

    from data.batches import Batches
    from experiments.tasks.music.task import TrainingStats, model_of, task_of
    from surnn_jax import train
    from surnn_jax.train import checkpoint, step

    config = music.Config(**records.read(workdir / "result.json").config)
    task = task_of(config, model_of(config), TrainingStats(0.0, 1.0))
    folder = checkpoint.find(workdir)
    batch = Batches({"x": [np.zeros((9, 88), np.uint8)]}, config.batch_size).batch(0)
    optimizer = train.make_optimizer(train.OptimizerConfig(clip=1.0))
    like = jax.eval_shape(
        lambda key: step.init_state(task, optimizer, key, batch), jax.random.key(0)
    )
    leaves = jax.tree.leaves(
        (checkpoint.read(folder, "best", like.params), checkpoint.read(folder, "state", like))
    )
    return b"".join(np.asarray(leaf).tobytes() for leaf in leaves)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    pytest.importorskip("music21", reason="needs the package music21")
    workdir = tmp_path_factory.mktemp("music") / "undisturbed"
    done = experiment(workdir, *SMALL)
    assert done.returncode == 0, done.stderr
    return workdir, done


@pytest.mark.full
def test_leaves_record_pictures_and_sound(undisturbed):
    workdir, done = undisturbed
    record = json.loads((workdir / "result.json").read_text())
    assert record.keys() >= REQUIRED
    assert record["experiment"] == "music"
    assert record["dataset"] == "bach_chorales"
    assert record["steps"] == 3 * 34  # 267 pieces, 8 a step
    assert 0.3 < record["update_rate"] < 0.8
    # 3 (88·5 + 5·5 + 5) + 5 of the cell; 4·5·2 + 4 + 5 of the switch; 5·88 + 88 of the read-out.
    assert record["recurrent_parameters"] == 3 * (440 + 25 + 5) + 5 + 49
    assert record["parameters"] == record["recurrent_parameters"] + 528
    for name in ("curves.png", "roll.png", "switches.png"):
        assert (workdir / name).read_bytes().startswith(b"\x89PNG")
    assert (workdir / "continuation.mid").read_bytes().startswith(b"MThd")
    assert f"{record['metrics']['test_nll']:.3f}" in done.stdout
    assert "orbax" not in done.stderr
    # What takes a while is said, in this order.
    words = ("compiling: ", "step 102/102 ", "scoring epoch ", "drawing")
    places = [done.stderr.index(word) for word in words]
    assert places == sorted(places)


@pytest.mark.full
def test_learns(undisturbed):
    workdir, _ = undisturbed
    history = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    # The read-out begins where all keys are alike and 3.87 of 88 sound: 16 nats; from zeros, 61.
    assert history[0]["train/nll"] < 16
    assert history[2]["valid/nll"] < history[0]["valid/nll"]
    assert history[2]["valid/nll"] < 12


@pytest.mark.full
def test_evaluate_finds_the_same_figures_and_draws_the_same_pictures(undisturbed, tmp_path):
    workdir, _ = undisturbed
    shown = tmp_path / "shown"
    flags = f"--checkpoint={workdir}", f"--show={shown}"
    done = run("-m", "experiments.evaluate", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("identical") == 4
    names = {"roll.png", "switches.png", "continuation.mid", "original.mid"}
    assert same_files(shown, workdir) == names


@pytest.mark.full
def test_evaluate_refuses_to_draw_into_a_file_before_it_scores(undisturbed, tmp_path):
    workdir, _ = undisturbed
    (tmp_path / "shown").touch()
    done = run("-m", "experiments.evaluate", f"--checkpoint={workdir}", f"--show={tmp_path}/shown")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "shown" in done.stderr
    assert not done.stdout


@pytest.mark.full
@pytest.mark.parametrize("name", ["test_nll", "update_rate"])
def test_evaluate_finds_a_changed_record(undisturbed, tmp_path, name):
    workdir, _ = undisturbed
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", workdir, other], check=True)
    record = json.loads((other / "result.json").read_text())
    (record if name == "update_rate" else record["metrics"])[name] -= 0.01
    (other / "result.json").write_text(json.dumps(record))
    done = run("-m", "experiments.evaluate", f"--checkpoint={other}")
    assert done.returncode == 1
    assert "DIFFERS" in done.stdout


@pytest.mark.full
def test_killed_and_run_again_ends_with_the_same_bits(undisturbed, tmp_path):
    workdir, _ = undisturbed
    again = tmp_path / "again"
    command = [sys.executable, "-m", "experiments.music", *SMALL, f"--workdir={again}"]
    process = subprocess.Popen(
        command, cwd=paths.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    metrics = again / "metrics.jsonl"
    deadline = time.monotonic() + 500
    while not (metrics.exists() and metrics.read_text().count("\n") >= 1):  # in the second epoch
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (again / "result.json").exists()
    done = experiment(again, *SMALL)
    assert done.returncode == 0, done.stderr
    assert arrays(again) == arrays(workdir)


@pytest.mark.full
def test_other_flags_for_the_same_workdir_are_refused(undisturbed):
    workdir, _ = undisturbed
    before = (workdir / "result.json").read_bytes()
    done = experiment(workdir, *SMALL, "--learning_rate=0.5")
    assert done.returncode == 2
    assert "learning_rate=0.003, not 0.5" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (workdir / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--preset=jbs", "jsb"),
        ("--features=many", "--features"),
        full("--optimizer=adamw", "'adamw'"),
        full("--data_dir=/no/such", "/no/such: no such folder"),
        ("--wrokdir=x", "wrokdir"),
    ],
)
def test_bad_flags_end_in_one_line(flag, words, tmp_path):
    workdir = tmp_path / "never"
    done = experiment(workdir, "--switch=event", flag)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": "jbs"}, "music: no data 'jbs'; one of: bach.*; did you mean jsb"),
        ({"cell": "gur"}, "unknown cell 'gur'; did you mean 'gru'"),
        ({"switch": "furier"}, "unknown switch 'furier'; one of: none, fourier, event"),
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"rate": 1.5}, "rate must lie strictly between 0 and 1, got 1.5"),
        ({"learning_rate": -1.0}, "learning_rate must be positive, got -1.0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_epochs": 0}, "max_epochs must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"weight_noise": -0.1}, "weight_noise must be at least 0, got -0.1"),
    ],
)
def test_a_bad_configuration_is_refused_before_anything_is_read(changes, words):
    config = dataclasses.replace(music.Config(switch="event"), **changes)
    with pytest.raises(ValueError, match=words):
        registry.load("music").check(config)


def test_every_field_is_a_flag_and_help_is_quick():
    start = time.perf_counter()
    done = run("-m", "experiments.music", "--help")
    seconds = time.perf_counter() - start
    assert done.returncode == 0
    for field in dataclasses.fields(music.Config):
        assert f"--{flag_of(field)}" in done.stdout.replace("[no]", "")
    # Two seconds on an idle machine; it takes half a second, and workers share two cores.
    assert seconds < 10


@pytest.mark.parametrize("preset", sorted(music.PRESETS))
def test_presets_can_be_built(preset):
    for config in music.PRESETS[preset].values():
        registry.load("music").check(config)


def test_table_sizes_are_those_of_the_paper():
    from surnn_jax import cells

    counts = {name: cells.get(name).count(88, size) for name, size in music_config.FEATURES.items()}
    assert counts["tanh"] == 88 * 100 + 100 * 100 + 100
    assert counts["gru_before"] == 3 * (88 * 46 + 46 * 46 + 46)
    assert counts["lstm_peephole"] == 4 * (88 * 36 + 36 * 36 + 36) + 3 * 36


def _batch(length: int) -> dict:
    x = np.random.default_rng(length).integers(0, 2, (1, length, 88)).astype(np.float32)
    return {"x": x, "lengths": np.array([length], np.int32), "index": np.zeros(1, np.int32)}


def test_every_frame_counts_the_same_in_any_batch():
    import jax

    from experiments.tasks.music.task import model_of, task_of, training_stats

    config = music.Config(features=4, batch_size=1)
    rolls = [np.zeros((length, 88), np.uint8) | (np.arange(88) < 22) for length in (3, 9)]
    pieces = training_stats(rolls, 1)
    assert pieces.frames == (2 + 8) / 2
    assert pieces.logit == pytest.approx(np.log(0.25 / 0.75))
    task = task_of(config, model_of(config), pieces)
    params = jax.jit(task.init)(jax.random.key(0), _batch(9))
    for length in (3, 9):
        loss, measured = task.loss(params, _batch(length), jax.random.key(1))
        nats, frames = measured["nll"]
        assert frames == length - 1
        assert loss == pytest.approx(float(nats) / 5, rel=1e-6)
    # What fills up a batch does not count.
    filled = np.pad(_batch(3)["x"], ((0, 0), (0, 6), (0, 0)), constant_values=1)
    wanted, found = (task.evaluate(params, {**_batch(3), "x": x}) for x in (_batch(3)["x"], filled))
    assert found["nll"][1] == wanted["nll"][1] == 2
    assert float(found["nll"][0]) == pytest.approx(float(wanted["nll"][0]), rel=1e-6)
