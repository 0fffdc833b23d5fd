"""``--data=PATH``: own files through the experiments, and the commands of the how-to pages."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags as absl_flags
from data_case import run
from own_case import arrays, midi_folder, npz_file, text_file, wav_folder

import data
from data import paths
from data.sets import listops
from experiments import music, wikitext
from experiments.runner import flags, own, records
from experiments.runner.config import from_record, identity
from experiments.runner.experiment import identity_of
from experiments.tasks import registry
from experiments.tasks.music.config import Config as Music
from experiments.tasks.sequence import data as sequence_data
from experiments.tasks.sequence.config import Config as Sequence
from experiments.tasks.sequence.task import TaskSpec, measure
from experiments.tasks.speech.config import Config as Speech
from surnn_jax.layers.sequence_models import Result

SMALL = {"layers": "tanh", "features": 4, "bare": True, "batch_size": 4}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def given(kind: str, folder: Path):
    """Experiment and configuration for small files of a kind, which are written."""
    if kind == "midi":
        return "music", Music(own=str(midi_folder(folder / "midi")), cell="tanh", features=4)
    if kind == "wav":
        path = wav_folder(folder / "wav")
        return "speech", Speech(own=str(path), cell="tanh", features=4, window=60)
    if kind == "text":
        path = text_file(folder / "book.txt")
        return "wikitext", Sequence(own=str(path), steps=8, tokenizer="characters", **SMALL)
    path = npz_file(folder / "a.npz", **arrays(kind))
    return "lra", Sequence(own=str(path), **SMALL)


KINDS = ["midi", "wav", "text", "classify", "tag", "estimate", "track"]


# What a run needs


@pytest.mark.parametrize("kind", KINDS)
def test_own_files_are_prepared_as_any_data_set(tmp_path, kind):
    name, config = given(kind, tmp_path)
    experiment = registry.load(name)
    experiment.check(config)
    made = experiment.prepare(config, None)
    assert made.data["kind"] == "own"
    assert made.data["path"] == config.own
    assert made.data["name"] == Path(config.own).name
    assert len(made.data["sha256"]) == 64
    line = own.text(made.data)
    assert line.startswith(f"own data: {config.own}, SHA-256 {made.data['sha256'][:12]}…; train ")
    assert made.data["counts"] in line
    assert made.data["split"] in line
    batch = made.feeds["train"].batch(0)
    assert np.isfinite(np.asarray(batch["x"], float)).all()
    assert config.dataset.startswith("own_")


@pytest.mark.parametrize("kind", ["wav", "text", "tag"])
def test_a_folder_is_resumed_with_the_same_files_wherever_they_lie(tmp_path, kind):
    name, config = given(kind, tmp_path)
    prepare = registry.load(name).prepare
    first = identity_of(name, config, prepare(config, None))
    assert config.own not in json.dumps(first)
    path = Path(config.own)
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / f"elsewhere/other{path.suffix}")
    config = dataclasses.replace(config, own=str(moved))
    assert identity_of(name, config, prepare(config, None)) == first
    file = moved if moved.is_file() else moved / "tone1.wav"
    if kind == "tag":
        npz_file(moved, **{**arrays("tag"), "y": arrays("tag")["y"][:, ::-1]})
    else:
        raw = file.read_bytes()
        file.write_bytes(raw[:-2] + raw[:1] * 2)
    changed = identity_of(name, config, prepare(config, None))
    assert {key for key in first if first[key] != changed[key]} == {"data_sha256"}


def test_runs_without_own_files_are_recognised_as_before():
    for config in (Music(), Speech(), Sequence("adding", steps=9)):
        known = identity(config).keys()
        assert not known & {"own", "split_seed", "tokenizer", "frames_per_quarter"}
        assert "dataset" in known


def record_of(config, data) -> records.Record:
    """A record with this configuration and data, and figures that nobody looks at."""
    fields = dict.fromkeys(("dataset", "cell", "switch", "command"), "")
    fields |= dict.fromkeys(("seed", "parameters", "recurrent_parameters", "best_epoch"), 1)
    more = {"update_rate": 1.0, "seconds": 0.0, "versions": {}, "metrics": {}, "steps": 1}
    return records.Record(
        experiment="x", config=dataclasses.asdict(config), data=data, **fields, **more
    )


@pytest.mark.parametrize("kind", ["midi", "wav", "text", "tag"])
def test_other_files_than_those_of_the_run_are_never_used(tmp_path, kind):
    name, config = given(kind, tmp_path)
    made = registry.load(name).prepare(config, None)
    record, where = record_of(config, made.data), tmp_path / "result.json"
    own.check_unchanged(config, record, where)
    path = Path(config.own)
    file = path if path.is_file() else min(path.iterdir())
    file.write_bytes(b"of quite another kind")
    words = f"^{re.escape(str(path))}: not the files that {where} was trained on: their SHA-256"
    with pytest.raises(ValueError, match=words):
        own.check_unchanged(config, record, where)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no such .*; if they lie elsewhere now, .*--data"):
        own.check_unchanged(config, record, where)


def test_a_record_of_a_synthetic_task_keeps_its_field_data():
    """The flag `--data` was the old name of a field that records still have."""
    old = {"dataset": "copy", "data": 12, "steps": 40}
    config = from_record(Sequence, old)
    assert (config.data, config.own) == (12, "")


# Flags


def parsed(config, presets, *arguments, **options):
    values = absl_flags.FlagValues()
    flags.define(config, presets, values)
    values(["program", *arguments])
    return flags.parse_flags(config, presets, values, **options)


def test_own_files_come_with_the_defaults_for_them_or_with_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (config,) = parsed(Sequence, {"p": {}}, "--data=a.txt", own=wikitext.OWN).values()
    assert config.own == str(tmp_path / "a.txt")
    assert config.dataset == "own_a"
    assert config.steps == 64
    runs = parsed(Music, music.PRESETS, "--data=b/", "--preset=chorales")
    assert {config.dataset for config in runs.values()} == {"own_b"}
    assert len(runs) == 4
    (config,) = parsed(Sequence, {"p": {}}, "--copy_tokens=5").values()
    assert (config.data, config.own, config.steps) == (5, "", 0)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--dataset=jsb", "and --dataset: own files are all that is read; leave out one of both"),
        ("--data_dir=/tmp", "and --data_dir: own files are all that is read"),
    ],
)
def test_own_files_together_with_others_are_refused(more, words):
    with pytest.raises(ValueError, match=words):
        parsed(Music, music.PRESETS, "--data=a", more)


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        (
            "wikitext",
            Sequence(own="/a/b.npz", steps=4),
            "wikitext: --data=/a/b.npz should name a t",
        ),
        (
            "lra",
            Sequence(own="/a/b.txt"),
            "lra: --data=/a/b.txt should name arrays, whose name end",
        ),
        ("lra", Sequence(own="/no/b.npz"), "/no/b.npz: no such file; name an .npz file of arrays"),
        ("music", Music(own="/no/b"), "/no/b: no such folder; name the folder of your .mid or"),
        ("speech", Speech(own=__file__), "test_own_data.py: a file; name the folder of your .wav"),
        ("wikitext", Sequence(own=__file__, steps=4, tokenizer="word"), "unknown tokenizer 'word'"),
        ("music", Music(own="/tmp", frames_per_quarter=0), "frames_per_quarter must be at least 1"),
        ("music", Music(own="/tmp", split_seed=-1), "split_seed must be at least 0, got -1"),
    ],
)
def test_bad_paths_and_settings_are_refused_before_anything_is_read(name, config, words):
    with pytest.raises((ValueError, OSError), match=words):
        registry.load(name).check(config)


def test_a_text_too_short_for_a_batch_says_what_to_change(tmp_path):
    path = text_file(tmp_path / "a.txt", lines=20)
    config = Sequence(own=str(path), steps=64, tokenizer="characters", **SMALL)
    with pytest.raises(ValueError, match=rf"{path}: valid: \d+ tokens are too few .*--max_length"):
        registry.load("wikitext").prepare(config, None)


# Figures of the tasks that only own arrays pose


@pytest.mark.parametrize("kind", ["tag", "track", "estimate"])
def test_only_steps_of_sequences_and_only_sequences_count(kind):
    random = np.random.default_rng(0)
    lengths, index = np.array([3, 5, 0]), np.array([4, 7, -1])
    outputs = random.normal(size=(3, 2) if kind == "estimate" else (3, 5, 2)).astype(np.float32)
    y = random.normal(size=outputs.shape).astype(np.float32)
    if kind == "tag":
        y = random.integers(0, 2, (3, 5)).astype(np.int32)
    batch = {"y": jnp.asarray(y), "index": jnp.asarray(index), "lengths": jnp.asarray(lengths)}
    found = measure(TaskSpec(kind, 2, 5), batch, Result(jnp.asarray(outputs), None, ()))
    pairs = [(row, step) for row in range(2) for step in range(lengths[row])]
    if kind == "estimate":
        pairs = [(0,), (1,)]
    if kind == "tag":
        wrong = [outputs[at].argmax() != y[at] for at in pairs]
        assert found["error"][0] / found["error"][1] == pytest.approx(np.mean(wrong))
        logits = np.array([outputs[at] for at in pairs], float)
        nats = np.log(np.exp(logits).sum(1)) - [outputs[at][y[at]] for at in pairs]
        assert found["nll"][0] / found["nll"][1] == pytest.approx(nats.mean(), rel=1e-6)
    else:
        squares = [(outputs[at] - y[at]) ** 2 for at in pairs]
        assert found["mse"][0] / found["mse"][1] == pytest.approx(np.mean(squares), rel=1e-6)


# By their commands


def test_a_corrupt_file_ends_a_command_in_one_line(tmp_path, cache):
    path = midi_folder(tmp_path / "midi")
    (path / "zz.mid").write_bytes((path / "piece3.mid").read_bytes()[:60])
    workdir = tmp_path / "run"
    flags = [f"--data={path}", f"--workdir={workdir}", "--features=4"]
    done = run("-m", "experiments.music", *flags, SURNN_CACHE=cache)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path / 'zz.mid'}: not a whole MIDI file (cut short")
    assert done.stderr.count("\n") == 1
    assert not workdir.exists()
    assert [p.name for p in cache.glob("*/*") if p.name != "lock"] == []


PAGES = {
    "music": (lambda folder: midi_folder(folder / "midi"), "--features=4 --batch_size=4"),
    "speech": (
        lambda folder: wav_folder(folder / "recordings"),
        "--features=4 --window=500 --batch_size=4",
    ),
    "text": (
        lambda folder: text_file(folder / "book.txt"),
        "--features=8 --hidden=8 --max_length=16 --batch_size=4",
    ),
    "arrays": (None, "--features=4 --no_residual"),
}
"""Page -> what writes its files, and what makes its runs small."""
LEAVES = {
    "music": {"roll.png", "curves.png", "continuation.mid", "original.mid"},
    "speech": {"wave.png", "spectrogram.png", "continuation.wav", "original.wav"},
    "text": {"curves.png", "switches.png", "inside.json"},
    "arrays": {"curves.png", "switches.png", "rates.png", "inside.json"},
}


def fences(page: str, language: str) -> list[str]:
    text = (paths.ROOT / f"docs/howto/own-{page}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def without_numbers(line: str) -> str:
    return re.sub(r"[0-9a-f]{12}…|/[\w/.-]*/|\d+", "#", line)


@pytest.mark.full
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_as_they_stand(tmp_path, cache, page):
    """Its files are there, its runs are small; a changed file then stops what follows."""
    make, small = PAGES[page]
    if make is None:
        (block,) = fences(page, "python")
        command = [sys.executable, "-c", block]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=100)
    else:
        make(tmp_path)
    (commands,) = fences(page, "sh")
    variables = {"PYTHONPATH": str(paths.ROOT), "SURNN_CACHE": str(cache)}

    def called(command: str, code: int = 0) -> str:
        program, *arguments = command.split()
        assert program == "python"
        done = run_in(tmp_path, [*arguments], variables)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    describe, train, evaluate, export = commands.splitlines()
    assert "SHA-256" in called(describe)
    out = called(f"{train} {small} --max_epochs=1")
    # The page shows what is printed, but for numbers and folders.
    shown = fences(page, "text")[0].splitlines()
    assert [without_numbers(line) for line in out.splitlines()[: len(shown)]] == [
        without_numbers(line) for line in shown
    ]
    workdir = next((tmp_path / "runs").iterdir())
    record = records.read(workdir / "result.json")
    assert record.data["kind"] == "own"
    assert LEAVES[page] <= {path.name for path in workdir.iterdir()}
    again = called(evaluate)
    assert again.count("identical") == len(record.metrics)
    assert "sequence.jax" in called(export)
    # Moved, the files are still those of the run.
    path = Path(record.data["path"])
    moved = path.rename(path.with_name(f"moved{path.suffix}"))
    assert "--data=PATH" in called(evaluate, code=2)
    assert called(f"{evaluate} --data={moved}") == again
    file = moved if moved.is_file() else min(moved.iterdir())
    file.write_bytes(file.read_bytes() + b"\0")
    assert "not the files that" in called(f"{evaluate} --data={moved}", code=2)


@pytest.mark.full
def test_a_search_on_own_files_knows_them_again(tmp_path, cache):
    path = midi_folder(tmp_path / "midi")
    flags = ["--experiment=music", f"--data={path}", "--units=tanh", "--seeds=1", "--num_trials=2"]
    flags += ["--features=4", "--max_epochs=2", f"--workdir={tmp_path / 'search'}"]
    done = run("-m", "experiments.search", *flags, SURNN_CACHE=cache)
    assert done.returncode == 0, done.stderr
    assert "**own_midi** (`own_midi`; nats a frame)" in done.stdout
    winner = tmp_path / "search/own_midi-tanh-0"
    record = records.read(winner / "result.json")
    assert record.data["path"] == str(path)
    again = run("-m", "experiments.evaluate", f"--checkpoint={winner}", SURNN_CACHE=cache)
    assert again.stdout.count("identical") == 3, again.stderr
    (path / "piece3.mid").unlink()
    done = run("-m", "experiments.search", *flags, SURNN_CACHE=cache)
    assert done.returncode == 2
    assert "datasets" in done.stderr
    assert done.stderr.count("\n") == 1


def run_in(folder: Path, arguments: list[str], variables: dict[str, str]):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_a_data_set_with_a_vocabulary_is_no_text_for_that(monkeypatch):
    trees = data.Ragged(np.tile(np.array([11, 3, 14, 15], np.uint8), 6), 4 * np.arange(7))
    facts = {"tokens": 17, "classes": 10, "vocabulary": list(listops.VOCABULARY)}
    columns = {"x": trees, "y": np.arange(6, dtype=np.uint8)}
    splits = {
        name: data.Split("listops_short", name, list("abcdef"), columns, facts)
        for name in data.SPLITS
    }
    monkeypatch.setattr(own, "load_splits", lambda config, data_dir: splits)
    spec, *_ = sequence_data.load(Sequence(dataset="listops_short", batch_size=2), None)
    assert (spec.kind, spec.outputs, spec.tokens) == ("classify", 10, 17)
