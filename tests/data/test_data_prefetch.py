"""Batches made ahead: none lost, doubled or out of order, and no thread left running."""

import threading
import time

import jax
import numpy as np
import pytest
from data_case import run

from data.prefetch import prefetch
from data.streams import Streams


def stream(count):
    return np.arange(1, count + 1, dtype=np.int32)


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_prefetch_keeps_the_order(depth, count):
    random = np.random.default_rng(0)

    def make(step):
        time.sleep(random.random() / 1000)
        return step * step

    assert list(prefetch(make, range(count), depth)) == [step * step for step in range(count)]
    assert workers() == []


def test_prefetch_works_ahead_in_one_other_thread_and_no_further():
    made, threads = [], set()
    go_on = threading.Semaphore(0)

    def make(step):
        go_on.acquire()
        made.append(step)
        threads.add(threading.get_ident())
        return step

    found = prefetch(make, iter(range(100)), 3)
    assert made == []
    go_on.release(100)
    assert next(found) == 0
    deadline = time.monotonic() + 60
    while len(made) < 4:  # with nobody asking
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]
    assert next(found) == 1
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    found.close()


def test_prefetch_raises_the_error_in_its_place():
    def make(step):
        if step == 3:
            raise ValueError(f"batch {step} is bad")
        return step

    found = prefetch(make, range(10), 4)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="batch 3 is bad"):
        next(found)
    assert list(found) == []
    assert workers() == []


@pytest.mark.parametrize("how", ["close", "break", "raise"])
def test_prefetch_ends_its_thread(how):
    made = []

    def make(step):
        made.append(step)
        return step

    found = prefetch(make, iter(int, 1), 2)  # endless
    next(found)
    assert len(workers()) == 1
    if how == "close":
        found.close()
    elif how == "break":
        for _ in found:
            break
        del found
    else:
        with pytest.raises(RuntimeError, match="of the consumer"):
            found.throw(RuntimeError("of the consumer"))
    assert workers() == []
    count = len(made)
    time.sleep(0.02)
    assert len(made) == count


def test_prefetch_makes_no_more_once_it_is_closed():
    made = []

    def make(step):
        time.sleep(0.01)
        made.append(step)

    found = prefetch(make, range(100), 100)
    next(found)
    found.close()
    assert len(made) < 50


def test_prefetch_of_steps_that_fail():
    def steps():
        yield 0
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(prefetch(lambda step: step, steps(), 3))
    assert workers() == []


def test_program_that_forgets_to_close_ends_all_the_same():
    code = "from data.prefetch import prefetch\n"
    code += "found = prefetch(lambda step: step, iter(int, 1))\nprint(next(found))"
    done = run("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_bad_depth():
    with pytest.raises(ValueError, match="depth must be at least 1, not 0"):
        prefetch(int, range(3), 0)


def test_prefetch_to_a_device():
    source = Streams(stream(100), 2, 5)
    batches = prefetch(lambda step: jax.device_put(source.batch(step)), range(6))
    for step, batch in enumerate(batches):
        assert isinstance(batch["x"], jax.Array)
        np.testing.assert_equal(jax.device_get(batch), source.batch(step))
