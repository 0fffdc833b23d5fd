"""``python -m data.prepare`` and ``data.describe``: what they print, and how they refuse."""

import re
import resource

import numpy as np
import pytest
from data_case import rolls, run, write_mat

import data
from data import paths


def processor_seconds():
    """What the processes run so far took; unlike the time, it does not grow with others' work."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture
def places(tmp_path):
    """Variables for a run that has a cache of its own."""
    return {"SURNN_CACHE": tmp_path / "cache"}


def assert_refused(done, *words):
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonesuch"], ["unknown data set 'nonesuch'; one of: bach_chorales, jsb, "]),
        ([], ["expected NAME, got none"]),
        (["jsb", "nottingham"], ["expected NAME, got jsb nottingham"]),
        (["jsb", "--dat_dir=x"], ["Unknown command line flag 'dat_dir'"]),
        (["jsb", "--data_dir=/nonesuch"], ["--data_dir=/nonesuch: no such folder"]),
    ],
)
def test_refusals(places, arguments, words):
    assert_refused(run("-m", "data.prepare", *arguments, **places), *words)


@pytest.mark.parametrize("command", ["data.prepare", "data.describe"])
def test_folder_without_the_original(places, tmp_path, command):
    """What was named is the only folder that is searched."""
    (tmp_path / "none").mkdir()
    assert_refused(
        run("-m", command, "jsb", f"--data_dir={tmp_path / 'none'}", **places),
        "jsb needs JSB_Chorales.mat or poly_music/JSB_Chorales.mat or JSB Chorales.pickle or ",
        f"which is not in {tmp_path / 'none'}; give the folder that holds it by --data_dir=FOLDER",
    )


def test_describe_refuses_alike(places):
    assert_refused(run("-m", "data.describe", "nonesuch", **places), "unknown data set 'nonesuch'")


def test_bad_files(places, tmp_path):
    folder = tmp_path / "originals"
    folder.mkdir()
    path = write_mat(folder / "JSB_Chorales.mat", rolls())
    flag = f"--data_dir={folder}"
    assert_refused(
        run("-m", "data.prepare", "jsb", flag, **places),
        f"{path}: not the published data: train should have 229 examples",
        "but has 5 examples",
    )
    path.write_bytes(path.read_bytes()[:300])
    assert_refused(
        run("-m", "data.describe", "jsb", flag, **places), f"{path}: not a whole MATLAB 5 file"
    )


def test_verbosity_brings_the_traceback(places):
    done = run("-m", "data.prepare", "nonesuch", "--verbosity=1", **places)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("command", ["data.prepare", "data.describe"])
def test_help(command):
    run("-m", command, "--help")  # Compiles and reads the modules for the first time.
    start = processor_seconds()
    done = run("-m", command, "--help")
    assert processor_seconds() - start < 2
    assert done.returncode == 0
    assert "--data_dir" in done.stdout
    assert f"python -m {command} NAME" in done.stdout


def test_slow_packages_wait_until_they_are_needed():
    slow = {"jax", "matplotlib", "music21", "PIL", "scipy", "sklearn", "tensorflow_datasets"}
    modules = ["prepare", "batches", "streams", "prefetch"]
    modules += [f"sets.{module}" for module in data._MODULES]
    # Commands define the same flags, so that each is in a process of its own.
    for names in (modules, ["describe"], ["export"]):
        imports = ", ".join(f"data.{name}" for name in names)
        done = run("-c", f"import sys, {imports}; print(*({slow} & set(sys.modules)))")
        assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("name", data.NAMES)
def test_every_data_set_says_what_it_is(name):
    source = data.source_of(name)
    assert source.name == name
    assert next(iter(source.columns)) == "x"
    assert all("\n" not in text for text in (source.title, source.licence, source.origin))
    assert all((source.title, source.licence, source.origin))
    for column in source.columns.values():
        assert np.dtype(column.dtype).name == column.dtype
        assert None not in column.shape[1:]
        assert column.text
    for wanted in source.downloads:
        assert wanted.url.startswith(("https://", "http://"))
        assert not wanted.file.startswith("/")
        assert wanted.sha256 is None or re.fullmatch("[0-9a-f]{64}", wanted.sha256)


# `all` over four data sets: one that is there, one that is not, a wrong one and a large one.
ALL = """
import runpy, sys, types
sys.path[:0] = ["tests/support", "tests/data"]
from data_case import rolls, tiny_source
import data
sys.modules["data.sets.tiny"] = module = types.ModuleType("data.sets.tiny")
module.SOURCES = [tiny_source(rolls())]
data._MODULES = {"music": ("jsb", "nottingham"), "tiny": ("tiny",)}
data.NAMES = ("jsb", "nottingham", "tiny", "pathfinder128")
runpy.run_module("data.prepare", run_name="__main__")
"""


def test_all_prepares_what_it_can_and_names_the_rest(places, tmp_path):
    folder = tmp_path / "originals"
    folder.mkdir()
    write_mat(folder / "tiny.mat", rolls())
    wrong = write_mat(folder / "Nottingham.mat", rolls())
    done = run("-c", ALL, "all", f"--data_dir={folder}", **places)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("jsb: left out: jsb needs JSB_Chorales.mat or ")
    assert lines[1].startswith(f"nottingham: failed: {wrong}: not the published data: train ")
    assert lines[2].startswith(f"tiny: prepared: {places['SURNN_CACHE']}/tiny/")
    assert lines[3].startswith("pathfinder128: left out: it takes hours; python -m data.prepare")
    assert done.returncode == 2
    assert done.stderr == "error: could not be prepared: nottingham; see the messages above\n"

    wrong.unlink()
    done = run("-c", ALL, "all", f"--data_dir={folder}", **places)
    assert (done.returncode, done.stderr) == (0, "")
    words = [line.split(": ")[1] for line in done.stdout.splitlines()]
    assert words == ["left out", "left out", "already prepared and whole", "left out"]


def test_prepare_and_describe_jsb(places):
    try:
        folder = paths.original("jsb", ["JSB_Chorales.mat", "poly_music/JSB_Chorales.mat"]).parent
    except FileNotFoundError as error:
        pytest.skip(f"needs the published data: {error}")
    flag = f"--data_dir={folder}"
    done = run("-m", "data.prepare", "jsb", flag, **places)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"jsb: prepared: {places['SURNN_CACHE']}/jsb/")
    start = processor_seconds()
    done = run("-m", "data.prepare", "jsb", flag, **places)
    assert processor_seconds() - start < 2
    assert done.stdout.startswith("jsb: already prepared and whole: ")
    done = run("-m", "data.describe", "jsb", flag, **places)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    # The last one: 3.898 and 3.887 notes a step, of 88.
    assert ["train", "229", "25", "60.3", "129", "13807", "0.0443"] in lines
    assert ["test", "77", "32", "61.4", "160", "4725", "0.0442"] in lines
    assert ["x:", "uint8", "[T,", "88],", "1", "where"] in [line[:6] for line in lines]
    assert any(line[:1] == ["licence:"] for line in lines)
    assert next(line for line in lines if line[:1] == ["read:"])[-1] == "(original)"
    # The first chorale's first chord, as the published MIDI lists have it: 60 72 79 88.
    assert ["0", "C4", "C5", "G5", "E6"] in lines

    prepared = next((places["SURNN_CACHE"] / "jsb").rglob("test/x.npy"))
    prepared.write_bytes(prepared.read_bytes()[:-1])
    assert_refused(
        run("-m", "data.describe", "jsb", flag, **places),
        f"{prepared}: changed since it was prepared; prepare it again: ",
        f"python -m data.prepare jsb {flag}",
    )
    done = run("-m", "data.prepare", "jsb", flag, **places)
    assert done.stdout.startswith("jsb: prepared: ")
