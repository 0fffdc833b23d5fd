"""Readers in a child: a crash, a hang and a full memory end the child and name the file."""

import ctypes
import gc
import os
import time

import numpy as np
import pytest

from data import guarded


def misbehave(how):
    """Runs in the child."""
    if how == "crash":
        ctypes.string_at(0)
    if how == "hang":
        time.sleep(1000)
    if how == "fill":
        kept = []
        while True:
            kept.append(bytearray(1 << 26))
    if how == "leave":
        os._exit(3)
    if how == "refuse":
        raise ValueError("a.bin: no good")
    if how == "miss":
        raise FileNotFoundError("a.bin: not there")
    print("a remark of a library")
    return {"pid": os.getpid()}, [{"x": np.arange(6).reshape(2, 3), "y": np.float32(how)}, {}]


def reader(**limits):
    return guarded.Reader(f"{__name__}:misbehave", **limits)


def test_answers_come_from_one_child():
    with reader() as read:
        pids = set()
        for number in range(3):
            facts, (record, empty) = read("a.bin", number)
            pids.add(facts["pid"])
            np.testing.assert_equal(record, {"x": [[0, 1, 2], [3, 4, 5]], "y": np.float32(number)})
            assert empty == {}
        with pytest.raises(ValueError, match=r"^a\.bin: no good$"):
            read("a.bin", "refuse")
        with pytest.raises(FileNotFoundError, match=r"^a\.bin: not there$"):
            read("a.bin", "miss")
        pids.add(read("a.bin", 7)[0]["pid"])  # An error does not end it.
    assert len(pids) == 1
    assert os.getpid() not in pids


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("crash", "its reader ended by SIGSEGV; damaged; fetch it again"),
        ("fill", r"its reader ended with exit code 1 \(MemoryError\); damaged; fetch it again"),
        ("leave", r"its reader ended with exit code 3 \(\); damaged; fetch it again"),
        ("hang", r"not read after 5 s; damaged, or not to trust"),
    ],
)
def test_what_ends_the_child_names_the_file(how, says):
    with (
        reader(memory=1 << 28, seconds=5 if how == "hang" else 120) as read,
        pytest.raises(ValueError, match=rf"^a\.bin: {says}$"),
    ):
        read("a.bin", how)


def test_child_ends_with_its_reader():
    read = reader()
    pid = read("a.bin", 1)[0]["pid"]
    del read
    gc.collect()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")
