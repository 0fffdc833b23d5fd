"""What a user gets wrong first: one line that says what is right."""

import dataclasses
import subprocess
import sys

import pytest
from data_case import run
from tiers import full

import data
from data import columns, paths
from experiments import synthetic
from experiments.report import listing
from experiments.runner import launch
from experiments.runner.records import Record
from experiments.tasks import datasets, registry
from experiments.tasks.music.config import Config as Music
from experiments.tasks.sequence.config import DATASETS as SEQUENCES

SYNTHETIC = tuple(SEQUENCES["synthetic"])


KINDS = ("jsb", "fsdd", "aan", "digits", "adding", "wikitext2", "nosuch")
"""A data set of every kind."""


@pytest.mark.parametrize("name", datasets.TAKEN)
def test_wrong_data_set(name):
    known, experiment = datasets.TAKEN[name], registry.load(name)
    for dataset in (kind for kind in KINDS if kind not in known):
        with pytest.raises(ValueError, match=f"^{name}: no data '{dataset}'; one of: ") as caught:
            experiment.check(experiment.config(dataset=dataset))
        message = str(caught.value)
        assert ", ".join(known) in message
        takers = [other for other, sets in datasets.TAKEN.items() if dataset in sets]
        assert (f"; {dataset} is for experiments.{takers[0]}" in message) if takers else True
        assert "\n" not in message


@pytest.mark.parametrize(("dataset", "least"), [("copy", 33), ("selective_copy", 32)])
def test_sequences_too_short_for_what_is_copied(dataset, least):
    experiment = registry.load("synthetic")
    config = experiment.config(dataset=dataset, steps=least)
    experiment.check(config)
    match = (
        f"^{dataset}: max_length must be at least {least} for copy_tokens of 16, got {least - 1}"
    )
    with pytest.raises(ValueError, match=match):
        experiment.check(dataclasses.replace(config, steps=least - 1))


def test_preset_of_frames_with_data_of_tokens():
    (adding, *_) = synthetic.PRESETS["adding-cpu"].values()
    with pytest.raises(ValueError, match=r"encoder 'raw' takes frames .*; for tokens take embed"):
        registry.load("synthetic").check(dataclasses.replace(adding, dataset="copy"))


def test_every_data_set_has_an_experiment():
    taken = {one for sets in datasets.TAKEN.values() for one in sets}
    assert taken == {*data.NAMES, *SYNTHETIC}
    assert datasets.refusal("music", "notingham").endswith("; did you mean nottingham?")


# Tables


def test_columns_are_as_wide_as_what_is_in_them():
    found = columns.lines([["", "a", "b"], ["a long name", "1", "22"], ["x", "333"]])
    assert found == ["               a   b", "a long name    1  22", "x            333"]
    assert columns.lines([]) == []


def wide(**changed) -> Record:
    fields = {
        "experiment": "synthetic",
        "dataset": "mackey_glass",
        "cell": "sugru",
        "switch": "fourier",
        "seed": 0,
        "parameters": 12_345_678_901,
        "recurrent_parameters": 12_345_678_901,
        "update_rate": 1.0,
        "metrics": {
            f"{s}_{m}": v for s in ("test", "valid") for m, v in (("mse", 1e14), ("power", 3))
        },
        "best_epoch": 1,
        "steps": 1,
        "seconds": 1234567.8,
        "config": {},
        "versions": {},
        "command": "",
    }
    return Record(**{**fields, **changed})


def test_summary_of_large_numbers_and_long_names():
    table = launch.summary({"n" * 60: wide(), "": wide(seconds=1.0)}).splitlines()
    head, first, second = (line.split() for line in table[1:])
    assert head == ["run", "test", "valid", "rate", "parameters", "s"]
    assert first == ["n" * 60, *["5.7735e+06"] * 2, "1.000", "12,345,678,901", "1234567.8"]
    assert second == ["sugru", *["5.7735e+06"] * 2, "1.000", "12,345,678,901", "1.0"]


@pytest.mark.full
@pytest.mark.parametrize(
    ("given", "said"), [("--plan --publish", "are two things"), ("--hours=nan", "got nan")]
)
def test_a_reproduction_is_asked_for_one_thing_and_a_number_of_hours(given, said):
    assert said in refused("experiments.reproduce", "--suite=surnn", *given.split())


def test_list_of_presets_with_long_names():
    name = "a-preset-with-a-name-that-is-longer-than-the-column-was"
    table = listing.show("music", {name: {"": Music()}}, "preset")
    (row,) = (row for row in table.splitlines() if name in row)
    assert row.split()[:3] == [name, "–", "–"]


# Paths


def refused(*command, **variables) -> str:
    done = run("-m", *command, **variables)
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.full
def test_a_file_for_the_folder_of_a_run(tmp_path):
    (tmp_path / "a file").touch()
    says = refused("experiments.music", "--preset=smoke", f"--workdir={tmp_path}/a file")
    assert says == f"error: --workdir={tmp_path}/a file: a file; name a folder\n"


@pytest.mark.parametrize("cache", ["a file", full("a file/below"), full("/proc/nothing/is/made")])
def test_a_cache_that_cannot_be_written(tmp_path, cache):
    (tmp_path / "a file").touch()
    says = refused("data.prepare", "digits", SURNN_CACHE=tmp_path / cache)
    assert "digits: cannot write prepared data: " in says
    assert "name another folder by SURNN_CACHE=FOLDER" in says


@pytest.mark.parametrize("variable", ["SURNN_DATA", "SURNN_CACHE"])
def test_variables_that_name_something_remote(monkeypatch, variable):
    monkeypatch.setenv(variable, "gs://bucket/folder")
    with pytest.raises(ValueError, match=f"^{variable}=gs://bucket/folder: a local file or folder"):
        paths.folders()


def test_remote_folder_of_data():
    with pytest.raises(
        ValueError, match=r"^--data_dir=gs://bucket: a local file or folder is needed"
    ):
        data.load("digits", "train", "gs://bucket")


def test_error_of_the_system_begins_with_the_file(tmp_path):
    (tmp_path / "a file").touch()
    says = refused("data.export", "digits", f"--output={tmp_path}/a file/below")
    assert says.startswith(f"error: {tmp_path}/a file/below")
    assert "Errno" not in says


@pytest.mark.parametrize("module", ["experiments.pixels --list", "data.describe digits"])
def test_a_pipe_that_was_closed_is_no_error(module):
    """As with `| head -1`, which goes when it has its line."""
    command = [sys.executable, "-m", *module.split()]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=paths.ROOT, **pipe) as started:
        started.stdout.close()
        assert started.stderr.read() == ""
    assert started.returncode == 141


def test_folders_with_blanks_and_the_home_folder(tmp_path):
    """All that a command writes goes where a path with blanks, or from the home folder, says."""
    done = run(
        "-m",
        "data.export",
        "digits",
        "--output=~/my data",
        HOME=tmp_path,
        SURNN_CACHE=tmp_path / "the cache",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my data" / "prepared" / "digits" / "facts.json").is_file()
    assert (tmp_path / "the cache" / "digits").is_dir()
