"""The speech experiment: windows, frames, scores, sounds; and end to end by its command."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_case import run, same_files
from original_case import riff, write
from scipy.io import wavfile

import data
from data.sets import speech as originals
from experiments import speech
from experiments.runner import records
from experiments.runner.experiment import record_of
from experiments.tasks import recurrent, registry
from experiments.tasks.speech import config as speech_config
from experiments.tasks.speech import data as speech_data
from experiments.tasks.speech import experiment
from experiments.tasks.speech.config import Config
from experiments.tasks.speech.data import Normalization
from experiments.tasks.speech.task import frames, model_of, predict, sample, task_of
from surnn_jax import cells

SCALE = Normalization(-300.0, 2000.0)
SMALL = ["--preset=smoke", "--features=4", "--train_windows=24", "--batch_size=8"]
SMALL += ["--eval_windows=6"]


def sound(length: int, seed: int = 0) -> np.ndarray:
    """A tone in noise, int16."""
    noise = np.random.default_rng(seed).normal(0, 300, length)
    return (3000 * np.sin(0.2 * np.arange(length)) + noise).astype(np.int16)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A small set in FSDD's form, prepared: its folder and the cache."""
    folder, cache = (tmp_path_factory.mktemp(name) for name in ("digits", "cache"))
    lengths = {take: 1100 + 100 * take for take in range(12)} | {6: 400}
    names = {f"{digit}_ann_{take}": n for digit in (3, 8) for take, n in lengths.items()}
    contents = {
        f"{name}.wav": riff(sound(length, seed))
        for seed, (name, length) in enumerate(names.items())
    }
    write(folder / "recordings", contents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SURNN_CACHE", str(cache))
        patch.setitem(originals.COUNTS, "fsdd", None)
        data.ensure("fsdd", str(folder))
    return folder, cache


@pytest.fixture
def read(digits, monkeypatch):
    """Reads the small set as a configuration says."""
    folder, cache = digits
    monkeypatch.setenv("SURNN_CACHE", str(cache))
    return lambda **settings: speech_data.read(Config(**settings), str(folder))


# Windows


def test_windows_follow_one_another_in_each_recording(read):
    found = read(windows=0, evaluated=0)
    test, cut = found.test, found.splits["test"]
    wanted = [x[i : i + 500] for x in test["x"] for i in range(0, len(x) - 499, 500)]
    np.testing.assert_array_equal(cut.x, wanted)
    assert cut.x.dtype == np.int16
    assert (cut.available, cut.short, cut.recordings) == (len(wanted), 0, 10)
    # Take 6, of either digit, is shorter than a window.
    assert (found.splits["valid"].short, found.splits["valid"].recordings) == (2, 10)
    assert found.rate == 8000
    assert "valid 26 of 26 windows (2 of 10 recordings are shorter)" in found.about()


def test_a_draw_is_the_same_for_all_units_and_seeds(read):
    everything = {window.tobytes() for window in read(windows=0).splits["train"].x}
    first = read(windows=5).splits["train"].x
    assert len({window.tobytes() for window in first} & everything) == 5
    other = read(windows=5, cell="tanh", seed=3, batch_size=2).splits["train"].x
    np.testing.assert_array_equal(first, other)
    assert len(read(windows=7000).splits["train"].x) == len(everything)


def test_level_is_that_of_all_training_samples(read, monkeypatch):
    monkeypatch.setattr(speech_data, "_BLOCK", 999)
    found = read(window=1500, windows=1)
    folder_samples = [sound(1100 + 100 * take, seed) for take, seed in TRAIN]
    samples = np.concatenate(folder_samples).astype(float)
    assert found.normalization.mean == pytest.approx(samples.mean(), rel=1e-12)
    assert found.normalization.deviation == pytest.approx(samples.std(), rel=1e-12)


TRAIN = [(10, 10), (11, 11), (10, 22), (11, 23)]
"""Take and seed of the recordings in `digits` that are trained on."""


def test_without_a_long_enough_recording_it_names_the_longest(read):
    words = "fsdd: no train .* window of 3000 samples; the longest, [38]_ann_11, has 2200"
    with pytest.raises(ValueError, match=words):
        read(window=3000)


@pytest.mark.parametrize(
    ("wave", "words"),
    [
        (riff(sound(600), rate=16000), "16000 samples a second; there should be 8000"),
        (riff(np.zeros(600)), "silent: every sample is 0"),
        (riff(sound(600))[:-40], "cut short"),
    ],
)
def test_a_bad_sound_file_is_named(tmp_path, wave, words, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "recordings", {"1_ann_10.wav": riff(sound(600)), "1_ann_11.wav": wave})
    with pytest.raises(ValueError, match=f"1_ann_11.wav: {words}"):
        speech_data.read(Config(), str(tmp_path))


def test_a_configuration_is_decoded_once(digits, monkeypatch, tmp_path):
    """Every split is read once and one model is built; drawing needs neither again."""
    folder, cache = digits
    monkeypatch.setenv("SURNN_CACHE", str(cache))
    load, build = data.load, experiment.model_of
    loaded, built = [], []
    monkeypatch.setattr(data, "load", lambda *given: loaded.append(given[1]) or load(*given))
    monkeypatch.setattr(experiment, "model_of", lambda c: built.append(c) or build(c))
    config = Config(features=4, windows=16, evaluated=6, window=60, cell="tanh")
    prepared = registry.load("speech").prepare(config, str(folder))
    params = jax.jit(prepared.task.init)(jax.random.key(0), prepared.feeds["train"].batch(0))
    record = record_of(
        "speech", config, prepared, params, best_epoch=1, steps=1, seconds=0.0, command=""
    )
    prepared.draw(record, params, tmp_path)
    assert (tmp_path / "wave.png").exists()
    assert loaded == ["train", "valid", "test"]
    assert built == [config]


# Frames and scores


def test_every_sample_after_the_first_twenty_is_predicted_once():
    samples = np.arange(500, dtype=np.int16)
    x, target = (np.asarray(part) for part in frames(samples, Normalization(7.0, 2.0)))
    assert x.shape == (48, 20)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(target.ravel(), (samples[20:] - 7) / 2)
    for seen, coming in zip(x, target, strict=True):
        np.testing.assert_array_equal(seen, coming[0] + np.arange(-20, 0) / 2)


@pytest.fixture(scope="module")
def small():
    """A small model with an event switch, its task and parameters, and a batch."""
    config = Config(features=4, window=100, switch="event", batch_size=3)
    batch = {
        "x": np.stack([sound(100, seed) for seed in range(3)]),
        "index": np.arange(3, dtype=np.int32),
    }
    model = model_of(config)
    task = task_of(config, model, SCALE)
    # Compiled whole: operation by operation takes ten times as long.
    params = jax.jit(task.init)(jax.random.key(0), batch)
    return config, model, task, params, batch


@pytest.mark.full
def test_no_look_ahead(small):
    _, model, _, params, batch = small
    window = batch["x"][0]
    expected = predict(model, SCALE, params, window)
    assert expected.mean.shape == expected.deviation.shape == (8, 10)
    for changed in (0, 19, 20, 29, 30, 89, 90, 99):
        other = window.copy()
        other[changed] += 5000
        found = predict(model, SCALE, params, other)
        # Step k sees sample 10 k + 19 last.
        before = max(0, -(-(changed - 19) // 10))
        for name in ("mean", "deviation", "table"):
            ours, theirs = getattr(found, name), getattr(expected, name)
            np.testing.assert_array_equal(ours[:before], theirs[:before])
        # No sample up to the changed one is expected otherwise, and the next step is.
        assert 20 + 10 * before > changed
        assert (found.mean[before:] != expected.mean[before:]).any() == (before < 8)
        assert np.array_equal(found.nats, expected.nats) is False


def test_rows_that_fill_up_a_batch_do_not_count(small):
    _, model, task, params, batch = small
    wanted = jax.jit(task.evaluate)(params, batch)
    assert wanted["nll"][1] == 3 * 8
    nats = [predict(model, SCALE, params, window).nats.sum() for window in batch["x"]]
    assert wanted["nll"][0] == pytest.approx(sum(nats), rel=1e-5)
    filled = {
        "x": np.concatenate([np.zeros((1, 100), np.int16), batch["x"]]),
        "index": np.array([-1, 0, 1, 2], np.int32),
    }
    loss, found = jax.jit(task.loss)(params, filled, jax.random.key(0))
    for name in ("nll", "update_rate"):
        assert found[name][1] == wanted[name][1]
        assert found[name][0] == pytest.approx(float(wanted[name][0]), rel=1e-5)
    assert loss == pytest.approx(float(wanted["nll"][0]) / 24, rel=1e-5)


def test_noise_is_on_the_matrices_of_the_cell_alone(small):
    config, model, _, params, batch = small
    found = recurrent.noisy(params, jax.random.key(1), 0.075)
    for name in ("readout", "switch"):
        where = params if name == "readout" else params["recurrent"]
        other = found if name == "readout" else found["recurrent"]
        assert jax.tree.all(jax.tree.map(np.array_equal, where[name], other[name]))
    before, after = (jax.tree.leaves(tree["recurrent"]["cell"]) for tree in (params, found))
    assert {leaf.ndim for leaf in before} == {1, 2}
    for one, two in zip(before, after, strict=True):
        assert np.array_equal(one, two) == (one.ndim == 1)
    apart = [np.ravel(b - a) for a, b in zip(before, after, strict=True) if a.ndim == 2]
    assert np.concatenate(apart).std() == pytest.approx(0.075, rel=0.2)  # of 288
    noisy = dataclasses.replace(config, weight_noise=0.075)
    loss = jax.jit(task_of(noisy, model, SCALE).loss)
    assert loss(params, batch, jax.random.key(1))[0] != loss(params, batch, jax.random.key(2))[0]


# Sounds


def test_a_continuation_is_what_the_model_draws_and_fits_into_16_bits(small):
    _, model, _, params, batch = small
    prime = batch["x"][0][:60]

    def go_on(params, seed):
        return sample(model, SCALE, params, prime, 30, seed)

    # With the least deviations the draws are the means of the likeliest component: what the
    # model, run over them, expects.
    k, n = 20, 10
    quiet = np.zeros(k * (1 + 2 * n), np.float32)
    quiet[0], quiet[k + k * n :] = 99, -99
    linear = params["readout"]["linear"]
    kernel = np.array(linear["kernel"])
    kernel[:, :k], kernel[:, k + k * n :] = 0, 0
    certain = {**params, "readout": {"linear": {"kernel": jnp.asarray(kernel), "bias": quiet}}}
    found = go_on(certain, 0)
    assert found.shape == (360,)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found[:60], prime)
    assert not np.array_equal(found, go_on(certain, 1))
    expected = predict(model, SCALE, certain, found)
    # Five deviations of 0.01, and half for rounding.
    apart = np.abs(found[60:] - expected.mean.ravel()[40:])
    assert apart.max() < 5 * 0.01 * SCALE.deviation + 0.5
    assert found[60:].std() > 50
    # Ten times beyond what 16 bits hold.
    loud = quiet.copy()
    loud[k : k + n] = 160.0
    loud[k : k + n // 2] = -160.0
    deafening = {**params, "readout": {"linear": {"kernel": linear["kernel"] * 0, "bias": loud}}}
    found = go_on(deafening, 0)[60:].reshape(-1, 10)
    assert (found == np.repeat([-32768, 32767], 5)[None]).all()


# By its command


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory):
    folder, cache = digits
    workdir = tmp_path_factory.mktemp("speech") / "run"
    flags = [*SMALL, f"--workdir={workdir}", f"--data_dir={folder}"]
    done = run("-m", "experiments.speech", *flags, SURNN_CACHE=cache)
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_leaves_record_pictures_and_sound(finished, digits):
    workdir, done = finished
    record = records.read(workdir / "result.json")
    assert (record.experiment, record.dataset, record.switch) == ("speech", "fsdd", "fourier")
    assert record.config["floor"] == 0.01
    assert record.metrics.keys() == {"train_nll", "valid_nll", "test_nll"}
    assert record.steps == 2 * 2  # 16 windows, 8 a step
    assert 0.3 < record.update_rate < 0.8
    # 3 (20·4 + 4·4 + 4) + 4 of the cell; 4·4·2 + 4 + 4 of the switch; 4·420 + 420 of the read-out.
    assert record.recurrent_parameters == 3 * (80 + 16 + 4) + 4 + 40
    assert record.parameters == record.recurrent_parameters + 2100
    for name in ("curves", "wave", "spectrogram", "switches"):
        assert (workdir / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    # Of the test recordings, 1,100 to 1,500 samples in twos, the sixth.
    truth, more = (wavfile.read(workdir / f"{n}.wav") for n in ("original", "continuation"))
    wanted = (1300, 2)
    assert truth[0] == more[0] == 8000
    assert truth[1].dtype == more[1].dtype == np.int16
    assert len(truth[1]) == wanted[0]
    assert truth[1].tolist() in [sound(1300, seed).tolist() for seed in (2, 14)]
    assert len(more[1]) == 650 + 8000
    np.testing.assert_array_equal(more[1][:650], truth[1][:650])
    assert "train 16 of 16 windows" in done.stdout
    assert "nats a step, lower is better (fsdd)" in done.stdout
    assert f"{record.metrics['test_nll']:.3f}" in done.stdout


def test_learns(finished):
    history = [
        json.loads(line) for line in (finished[0] / "metrics.jsonl").read_text().splitlines()
    ]
    assert history[1]["valid/nll"] < history[0]["valid/nll"]


@pytest.mark.full
def test_evaluate_finds_the_same_figures_and_draws_the_same_pictures(finished, digits, tmp_path):
    folder, cache = digits
    shown = tmp_path / "shown"
    flags = [f"--checkpoint={finished[0]}", f"--data_dir={folder}", f"--show={shown}"]
    done = run("-m", "experiments.evaluate", *flags, SURNN_CACHE=cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("identical") == 3
    names = {"wave.png", "switches.png", "spectrogram.png", "original.wav", "continuation.wav"}
    assert same_files(shown, finished[0]) == names


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dataset": "jsb"}, "speech: no data 'jsb'; one of: fsdd, asterisk_speech"),
        ({"window": 505}, "window must be a multiple of 10, at least 30, got 505"),
        ({"window": 20}, "window must be a multiple of 10, at least 30, got 20"),
        ({"windows": -1}, "train_windows must be at least 0, got -1"),
        ({"evaluated": -1}, "eval_windows must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"weight_noise": -0.1}, "weight_noise must be at least 0, got -0.1"),
        ({"floor": 0.0}, "min_std must be positive, got 0.0"),
        ({"cell": "gur"}, "unknown cell 'gur'"),
        ({"cell": "min_gru"}, "min_gru has no usual size here: give features"),
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"switch": "furier"}, "unknown switch 'furier'; one of: none, fourier"),
        ({"learning_rate": -1.0}, "learning_rate must be positive, got -1.0"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_read(settings, words):
    with pytest.raises(ValueError, match=words):
        registry.load("speech").check(Config(**settings))


def test_presets_can_be_built():
    for runs in speech.PRESETS.values():
        for config in runs.values():
            registry.load("speech").check(config)
    assert speech.PRESETS["fsdd"]["sugru"] == speech.PRESETS["fsdd-sugru"][""]


def test_sizes_are_those_of_the_paper():
    counts = {name: cells.get(name).count(20, n) for name, n in speech_config.FEATURES.items()}
    assert counts["tanh"] == 168_400
    assert counts["gru_before"] == 168_888
    assert counts["lstm_peephole"] == 169_065


def test_a_headline_may_be_negative():
    record = records.Record(
        **dict.fromkeys(("dataset", "cell", "switch", "command"), ""),
        **dict.fromkeys(("seed", "parameters", "recurrent_parameters"), 0),
        **dict.fromkeys(("best_epoch", "steps"), 0),
        **{"update_rate": 1.0, "seconds": 0.0, "config": {}, "versions": {}},
        experiment="speech",
        metrics={"test_nll": -5.25},
    )
    assert records.headline(record) == ("nats a step", -5.25)
