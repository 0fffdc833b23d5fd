"""``python -m data.prepare`` and ``data.describe``: what they print, and how they refuse."""

import resource

import pytest
from data_case import rolls, run, write_mat

from data import locate


def processor_seconds():
    """What the processes run so far took; unlike the time, it does not grow with others' work."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture
def places(tmp_path):
    """Variables for a run that finds no original unless told where, and has a cache of its own."""
    (tmp_path / "none").mkdir()
    return {"SURNN_CACHE": tmp_path / "cache", "SURNN_DATA": tmp_path / "none"}


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
        (["jsb"], ["jsb needs JSB_Chorales.mat: it is neither", "--data_dir=FOLDER"]),
    ],
)
def test_refusals(places, arguments, words):
    assert_refused(run("-m", "data.prepare", *arguments, **places), *words)


def test_describe_refuses_alike(places):
    assert_refused(run("-m", "data.describe", "nonesuch", **places), "unknown data set 'nonesuch'")


def test_bad_files(places, tmp_path):
    folder = tmp_path / "originals"
    folder.mkdir()
    path = write_mat(folder / "JSB_Chorales.mat", rolls())
    flag = f"--data_dir={folder}"
    assert_refused(
        run("-m", "data.prepare", "jsb", flag, **places),
        f"{path}: not the published data: train should have 229 sequences",
        "but has 5 sequences",
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
    slow = {"jax", "music21", "scipy", "tensorflow_datasets"}
    for module in ("data.prepare", "data.describe", "data.batches"):
        done = run("-c", f"import sys, {module}; print(*({slow} & set(sys.modules)))")
        assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_prepare_and_describe_jsb(places):
    try:
        folder = locate.original("jsb", "JSB_Chorales.mat", ("poly_music",)).parent
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
    assert ["train", "229", "25", "60.3", "129", "13807", "3.898"] in lines
    assert ["test", "77", "32", "61.4", "160", "4725", "3.887"] in lines
    assert any(line[:1] == ["licence:"] for line in lines)
    # The first chorale's first chord, as the published MIDI lists have it: 60 72 79 88.
    assert ["0", "C4", "C5", "G5", "E6"] in lines

    prepared = next((places["SURNN_CACHE"] / "jsb").rglob("*test.array_record*"))
    prepared.write_bytes(prepared.read_bytes()[:-1])
    assert_refused(
        run("-m", "data.describe", "jsb", flag, **places),
        f"{prepared}: changed since it was prepared; prepare it anew: ",
        f"python -m data.prepare jsb {flag}",
    )
    done = run("-m", "data.prepare", "jsb", flag, **places)
    assert done.stdout.startswith("jsb: prepared: ")
