"""Prepared data: written once, whole or not at all, keyed by the original, checked when read."""

import dataclasses
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from data_case import rolls, run, tiny_source, write_mat

import data
from data import paths
from data.cache import DamagedData
from data.cache import folder as folder_of
from data.source import SPLITS

# A real preparation of the rolls of data_case, which takes as long as its arguments say: it writes
# some sequences, waits, and writes the rest.
SLOW = """
import sys, time
sys.path[:0] = ["tests/support", "tests/data"]
from dataclasses import replace
from data_case import rolls, tiny_source
import data
def slowly(examples):
    for number, example in enumerate(examples):
        if number == 2:
            time.sleep(float(sys.argv[2]))
        yield example
def read(data_dir, unfinished):
    reading = source.read(data_dir, unfinished)
    return reading._replace(splits=reading.splits | {"train": slowly(reading.splits["train"])})
source = tiny_source(rolls())
print(data.prepare_from(replace(source, read=read), sys.argv[1])[1])
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def originals(tmp_path):
    folder = tmp_path / "originals"
    folder.mkdir()
    write_mat(folder / "tiny.mat", rolls())
    return folder


def assert_loads(originals, expected):
    for split in SPLITS:
        loaded = data.load_from(tiny_source(expected), split, originals)
        assert loaded.split == split
        assert loaded.ids == [f"{split}/{number:04d}" for number in range(len(expected[split]))]
        np.testing.assert_equal(list(loaded["x"]), expected[split])
        assert all(roll.dtype == np.uint8 for roll in loaded["x"])


def test_round_trip_keeps_order(originals, tmp_path):
    many = rolls(seed=1, sizes=(50, 1, 2))
    write_mat(originals / "tiny.mat", many)
    assert_loads(originals, many)


def test_second_call_writes_nothing(originals, cache):
    source = tiny_source(rolls())
    folder, written = data.prepare_from(source, originals)
    assert written
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert data.prepare_from(source, originals) == (folder, False)
    assert_loads(originals, rolls())
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([folder.name, "lock"])


def test_original_is_only_read(originals):
    path = originals / "tiny.mat"
    before = path.read_bytes()
    path.chmod(0o400)
    originals.chmod(0o500)
    assert_loads(originals, rolls())
    originals.chmod(0o700)
    assert path.read_bytes() == before
    assert list(originals.iterdir()) == [path]


def test_changed_original_is_prepared_anew(originals):
    assert_loads(originals, rolls())
    changed = rolls(seed=1)
    write_mat(originals / "tiny.mat", changed)
    assert_loads(originals, changed)
    write_mat(originals / "tiny.mat", rolls())
    assert_loads(originals, rolls())


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_flip, _truncate, _empty, type(paths.ROOT).unlink])
def test_damaged_file_is_named_and_mended(originals, damage):
    source = tiny_source(rolls())
    folder, _ = data.prepare_from(source, originals)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert {"facts.json", "manifest.json", "ids.txt", "x.npy", "x.offsets.npy"} == {
        path.name for path in files
    }
    for path in files:
        damage(path)
        command = f"python -m data.prepare tiny --data_dir={originals}"
        with pytest.raises(DamagedData) as caught:
            data.load_from(source, "train", originals)
        assert str(caught.value).startswith(str(path))
        assert str(caught.value).endswith(command)
        assert data.prepare_from(source, originals) == (folder, True)
        assert_loads(originals, rolls())


def test_killed_preparation_is_not_taken_for_a_whole_one(originals, cache):
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, originals, "60"], cwd=paths.ROOT, stderr=subprocess.DEVNULL
    ) as child:
        incomplete = cache / "tiny" / "incomplete"
        deadline = time.monotonic() + 60
        while not list(incomplete.glob("train/x.npy")):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    assert incomplete.exists()
    source = tiny_source(rolls())
    folder = folder_of("tiny", source.digest(originals))
    assert not folder.exists()
    assert_loads(originals, rolls())
    assert folder.exists()
    assert not incomplete.exists()


def test_two_at_once_prepare_once(originals):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", SLOW, originals, "0.5"], cwd=paths.ROOT, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    written = sorted(child.communicate(timeout=60)[0].strip() for child in children)
    assert written == [b"False", b"True"]
    assert_loads(originals, rolls())


def test_failed_preparation_leaves_nothing(originals, cache):
    write_mat(originals / "tiny.mat", rolls(seed=1))
    with pytest.raises(ValueError, match="not the published data"):
        data.load_from(tiny_source(rolls()), "train", originals)
    assert [path.name for path in (cache / "tiny").iterdir()] == ["lock"]


def test_file_that_cannot_grow_fails_the_preparation(originals, cache):
    """A limit on the size of files stands for the full disk: a write fails in the middle."""
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    done = run("-c", limited + SLOW, originals, "0")
    assert "OSError: tiny: cannot write prepared data: " in done.stderr
    assert "File too large" in done.stderr
    assert [path.name for path in (cache / "tiny").iterdir()] == ["lock"]
    assert_loads(originals, rolls())


def test_tensorflow_is_never_imported(originals, tmp_path):
    """Not even tried: a package of that name is there, and ends the process when imported."""
    trap = tmp_path / "trap" / "tensorflow"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("import os\nos._exit(77)\n")
    check = SLOW + "data.load_from(source, 'train', sys.argv[1])\n"
    search_path = f"{trap.parent}:{paths.ROOT}"
    assert run("-c", "import tensorflow", PYTHONPATH=search_path).returncode == 77
    done = run("-c", check, originals, "0", PYTHONPATH=search_path)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.parametrize("split", ["dev", "Train", ""])
def test_unknown_split(split):
    with pytest.raises(ValueError, match=rf"unknown split '{split}'; one of: train, valid, test"):
        data.load("jsb", split)


@pytest.mark.parametrize("name", ["JSB", "jsb_chorales", ""])
def test_unknown_name(name):
    with pytest.raises(
        ValueError, match=rf"unknown data set '{name}'; one of: bach_chorales, jsb, "
    ):
        data.load(name, "train")


def test_missing_folder_is_an_error_even_where_no_file_is_needed(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        data.load("bach_chorales", "train", tmp_path / "mistyped")


def test_original_that_cannot_be_read_is_not_called_a_full_disk(originals, cache):
    """An error of reading keeps its kind and names the original."""
    source = tiny_source(rolls())
    gone = originals / "gone.bin"

    def read(data_dir, unfinished):
        return gone.read_bytes()

    with pytest.raises(FileNotFoundError, match=r"gone\.bin") as caught:
        data.prepare_from(dataclasses.replace(source, read=read), originals)
    assert "cannot write" not in str(caught.value)
    assert [path.name for path in (cache / "tiny").iterdir()] == ["lock"]
