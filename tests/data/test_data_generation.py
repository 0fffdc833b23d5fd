"""Blocks of generated data: in order, made once, and whole whoever was killed when."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from data_case import rolls, tiny_source
from tiers import full

import data
from data import generation, paths
from data.source import SPLITS, Reading

# Notes down every call before and after its work, by number and process.
GENERATOR = """
import os, sys, time
import numpy as np

def note(folder, word, number):
    with open(f"{folder}/{word}", "a") as log:
        log.write(f"{number} {os.getpid()}\\n")

def make(number, folder, seconds=0.0, slow=()):
    note(folder, "began", number)
    time.sleep(seconds if number in slow or not slow else 0)
    note(folder, "made", number)
    return {"x": np.full((number % 3 + 1, 2), number), "y": np.arange(number, dtype=np.uint8)}

def fail(number, folder, how, after):
    if number == 3:
        while not os.path.exists(after):
            time.sleep(0.01)
        if how == "raise":
            raise ValueError("no luck\\nwith number 3")
        if how == "leave":
            os._exit(3)
        os.kill(os.getpid(), 9)
    return make(number, folder)

def talk(number, folder):
    sys.stdout.write("x" * 300_000)
    sys.stderr.write("x" * 300_000)
    return make(number, folder)
"""

PARENT = """
import sys
from pathlib import Path
from data.generation import generate
found = generate("generator:make", {arguments}, {count}, Path(sys.argv[1]), "tiny", "block")
for block in found:
    print(block["x"][0, 0], flush=True)
"""


@pytest.fixture
def log(tmp_path, monkeypatch):
    """The folder of the notes, which is one of modules, too."""
    (tmp_path / "generator.py").write_text(GENERATOR)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{paths.ROOT}")
    return tmp_path


def made(log, count, function="make", **arguments):
    folder = log / "blocks"
    arguments = {"folder": str(log), **arguments}
    return generation.generate(f"generator:{function}", arguments, count, folder, "tiny", "block")


def noted(log, word):
    path = log / word
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def processes(log):
    return {int(line.split()[1]) for line in (log / "began").read_text().splitlines()}


def running(process):
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_blocks(found, count):
    found = list(found)
    assert len(found) == count
    for number, block in enumerate(found):
        assert block.keys() == {"x", "y"}
        np.testing.assert_array_equal(block["x"], np.full((number % 3 + 1, 2), number))
        np.testing.assert_array_equal(block["y"], np.arange(number))
        assert block["y"].dtype == np.uint8


def test_order_is_that_of_the_numbers(log):
    """Also where the first takes longest."""
    assert_blocks(made(log, 9, seconds=0.3, slow=[0, 4]), 9)
    assert sorted(noted(log, "made")) == list(range(9))
    assert len(processes(log)) == min(9, len(os.sched_getaffinity(0)))
    assert os.getpid() not in processes(log)


def test_no_block(log):
    assert_blocks(made(log, 0), 0)


def test_killed_and_run_again(log):
    """The finished blocks are taken as they are; the workers do not outlive the killed parent."""
    code = PARENT.format(arguments={"folder": str(log), "seconds": 0.2}, count=12)
    with subprocess.Popen(
        [sys.executable, "-c", code, log / "blocks"], cwd=paths.ROOT, stdout=subprocess.PIPE
    ) as child:
        wait_for(lambda: len(noted(log, "made")) >= 4)
        child.send_signal(signal.SIGKILL)
    workers = processes(log)
    wait_for(lambda: not any(map(running, workers)))
    finished = sorted(int(path.stem) for path in (log / "blocks").glob("*.npz"))
    # Each worker ends what it is at, and begins no other.
    assert 4 <= len(finished) <= 4 + 2 * len(workers) < 12
    began = len(noted(log, "began"))
    assert_blocks(made(log, 12), 12)
    assert sorted(noted(log, "began")[began:]) == sorted(set(range(12)) - set(finished))


def test_killed_worker_leaves_no_half_block(log):
    """A file appears under its name when it is whole."""
    found = made(log, 2, seconds=60, slow=[1])
    next(found)
    assert [path.name for path in (log / "blocks").iterdir() if path.suffix == ".npz"] == [
        "000000.npz"
    ]
    workers = processes(log)
    start = time.monotonic()
    found.close()
    assert time.monotonic() - start < 30  # It is not waited for.
    assert not any(map(running, workers))
    assert_blocks(made(log, 2), 2)


def _flip(raw, place):
    raw = bytearray(raw)
    raw[place] ^= 0x10
    return bytes(raw)


def test_damaged_blocks_are_made_again_and_no_others(log):
    assert_blocks(made(log, 6), 6)
    files = sorted((log / "blocks").iterdir())
    raws = [path.read_bytes() for path in files]
    damaged = [raws[1][: len(raws[1]) // 2], b"", b"no block", _flip(raws[4], 160)]
    for path, raw in zip(files[1:5], damaged, strict=True):
        path.write_bytes(raw)
    assert_blocks(made(log, 6), 6)
    assert sorted(noted(log, "made")) == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert [path.read_bytes() for path in files] == raws


def test_no_flip_or_cut_of_a_block_goes_unseen(log):
    assert_blocks(made(log, 1), 1)
    path = log / "blocks" / "000000.npz"
    raw = path.read_bytes()
    for damaged in [*(_flip(raw, i) for i in range(len(raw))), *(raw[:i] for i in range(len(raw)))]:
        path.write_bytes(damaged)
        assert not generation._whole(path)
        assert not path.exists()
    path.write_bytes(raw)
    assert generation._whole(path)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        full("raise", "tiny: a worker ended with exit code 1: with number 3"),
        full("leave", "tiny: a worker ended with exit code 3: "),
        ("kill", "tiny: a worker ended with exit code -9: "),
    ],
)
def test_crash_of_a_worker_is_one_clear_error(log, how, says):
    first = log / "blocks" / "000000.npz"
    found = made(log, 6, "fail", how=how, after=str(first))
    with pytest.raises(OSError, match="a worker ended") as caught:
        list(found)
    assert str(caught.value) == says
    assert not any(map(running, processes(log)))
    # What was finished stays.
    assert first.exists()


def test_missing_function_is_named(log):
    with pytest.raises(OSError, match=r"tiny: a worker ended with exit code 1: .*nonesuch"):
        list(generation.generate("generator:nonesuch", {}, 1, log / "blocks", "tiny", "block"))


def test_talking_worker_is_not_held_up(log):
    assert_blocks(made(log, 1, "talk"), 1)


def test_unfinished_blocks_go_when_the_data_set_is_whole(log, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(log / "cache"))
    folders = []

    def read(data_dir, unfinished, how="make"):
        folders.append(unfinished)
        arguments = {"folder": str(log)}
        if how == "fail":
            arguments |= {"how": "raise", "after": str(unfinished / "000000.npz")}

        def examples():
            for block in generation.generate(
                f"generator:{how}", arguments, 5, unfinished, "t", "block"
            ):
                yield str(len(block["y"])), {"x": np.ones((1, 88), np.uint8)}

        return Reading("t", dict.fromkeys(SPLITS, ()) | {"train": examples()}, {}, None)

    source = dataclasses.replace(
        tiny_source(rolls()), digest=lambda data_dir: "recipe 1", generated=True
    )
    failing = dataclasses.replace(source, read=lambda *where: read(*where, "fail"))
    with pytest.raises(OSError, match=r"^t: a worker ended with exit code 1: with number 3$"):
        data.prepare_from(failing, None)
    (unfinished,) = set(folders)
    assert (unfinished / "000000.npz").exists()
    folder, written = data.prepare_from(dataclasses.replace(source, read=read), None)
    assert written
    assert set(folders) == {unfinished}
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([folder.name, "lock"])
    loaded = data.load_from(dataclasses.replace(source, read=read), "train", None)
    assert loaded.ids == list("01234")
    assert noted(log, "made").count(0) == 1
