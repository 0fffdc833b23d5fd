"""Tasks made up on the fly: as published, and batches a function of seed and step."""

import numpy as np
import pytest

from data.source import SPLITS
from data.synthetic import Adding, Copy, MackeyGlass, OnTheFly, SelectiveCopy, mackey_glass

TASKS = [
    SelectiveCopy(steps=40, data=4, tokens=6),
    Copy(delay=7, data=3, symbols=4),
    Adding(steps=9),
    MackeyGlass(steps=20, ahead=3),
]
tasks = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)


def drawn(task, count, seed=0):
    return task.draw(np.random.default_rng(seed), count)


def test_selective_copy():
    """As Mamba has it: T = 4,096, 16 data tokens among 16 kinds with the noise."""
    x, y = drawn(SelectiveCopy(), 300)
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((300, 4096), np.uint8, (300, 16), np.uint8)
    assert (x[:, -16:] == 15).all()
    context = x[:, :-16]
    for tokens, answer in zip(context, y, strict=True):
        assert tokens[tokens > 0].tolist() == answer.tolist()
    # 4.5 standard errors: data tokens are uniform on 1 to 14, and lie anywhere.
    counts = np.bincount(y.ravel(), minlength=16)
    assert (counts[[0, 15]] == 0).all()
    share = 1 / 14
    assert (abs(counts[1:15] / y.size - share) < 4.5 * (share * (1 - share) / y.size) ** 0.5).all()
    places = np.nonzero(context)[1]
    halves = np.histogram(places, 8, (0, 4080))[0] / len(places)
    assert (abs(halves - 1 / 8) < 4.5 * (1 / 8 * 7 / 8 / len(places)) ** 0.5).all()
    assert len({tuple(row.nonzero()[0]) for row in context}) == 300


def test_selective_copy_can_be_full():
    x, y = drawn(SelectiveCopy(steps=6, data=3, tokens=3), 5)
    assert x.tolist() == [[1, 1, 1, 2, 2, 2]] * 5
    assert y.tolist() == [[1, 1, 1]] * 5


def test_copy():
    delay = 12
    x, y = drawn(Copy(delay), 400)
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((400, 32), np.uint8, (400, 32), np.uint8)
    np.testing.assert_array_equal(x[:, :10], y[:, 22:])
    assert set(np.unique(x[:, :10])) == set(range(1, 9))
    rest = np.zeros((400, 22), np.uint8)
    rest[:, delay - 1] = 9
    np.testing.assert_array_equal(x[:, 10:], rest)
    assert not y[:, :22].any()
    counts = np.bincount(x[:, :10].ravel(), minlength=9)[1:] / 4000
    assert (abs(counts - 1 / 8) < 4.5 * (1 / 8 * 7 / 8 / 4000) ** 0.5).all()


@pytest.mark.parametrize("steps", [2, 7, 100])
def test_adding(steps):
    x, y = drawn(Adding(steps), 2000)
    assert (x.shape, x.dtype) == ((2000, steps, 2), np.float32)
    assert (y.shape, y.dtype) == ((2000, 1, 1), np.float32)
    numbers, marks = x[..., 0], x[..., 1]
    assert np.isin(marks, (0, 1)).all()
    half = steps // 2
    assert (marks[:, :half].sum(1) == 1).all()
    assert (marks[:, half:].sum(1) == 1).all()
    np.testing.assert_allclose(y[:, 0, 0], (numbers * marks).sum(1), rtol=1e-6)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    # The variance of a sum of two uniform numbers; its own relative error is about 1 / sqrt(N).
    assert abs(((y - 1) ** 2).mean() - 1 / 6) < 4.5 / 6 / 2000**0.5
    # Marks lie anywhere in their half.
    seen = marks.sum(0) / 2000
    for part in (seen[:half], seen[half:]):
        share = 1 / len(part)
        assert (abs(part - share) <= 4.5 * (share * (1 - share) / 2000) ** 0.5).all()


def rate(x, delayed):
    return 0.2 * delayed / (1 + delayed**10) - 0.1 * x


def runge_kutta(history, steps):
    """One series, a step of the method at a time; the delayed value between by interpolation."""
    h, size = 0.1, len(history) - 1
    values, slopes = list(history), [None] * len(history)

    def between(index):
        if index + 1 <= size:
            return (values[index] + values[index + 1]) / 2
        at = [(values[i], slopes[i]) for i in (index, index + 1)]
        if index == size:
            at[0] = values[size], rate(values[size], values[0])
        return (at[0][0] + at[1][0]) / 2 + h * (at[0][1] - at[1][1]) / 8

    for _ in range(steps * 10):
        now = len(values) - 1
        x, past, middle, later = values[-1], now - size, between(now - size), now - size + 1
        k1 = rate(x, values[past])
        k2 = rate(x + h / 2 * k1, middle)
        k3 = rate(x + h / 2 * k2, middle)
        k4 = rate(x + h * k3, values[later])
        values.append(x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
        slopes.append(rate(values[-1], values[later]))
    return np.array(values[size + 10 :: 10])


def test_mackey_glass_is_integrated_by_runge_kutta():
    """All steps of a delay at once, against one after another; in float64, before chaos sets in."""
    random = np.random.default_rng(0)
    history = 1.1 + 0.2 * random.random((2, 171))
    found = mackey_glass(history, 200)
    expected = [runge_kutta(row, 200) for row in history]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_mackey_glass_solves_the_equation():
    """Against Euler's method in steps a hundred times smaller, from a constant history."""
    fine = 1000
    values = np.full(1 + 17 * fine, 1.2)
    for _ in range(3):
        f = 0.2 * values / (1 + values**10)
        new = [values[-1]]
        for pushed in f[:-1]:
            new.append(new[-1] + (pushed - 0.1 * new[-1]) / fine)
        values = np.array(new)
    # x at 3 * 17; Euler's error is of the order of its step.
    found = mackey_glass(np.full((1, 171), 1.2), 51)[0, -1]
    assert abs(found - values[-1]) < 2e-4


def test_mackey_glass_task():
    """As the LMU has it: T = 5,000, 15 steps ahead, squashed and about zero in the mean."""
    x, y = drawn(MackeyGlass(), 8)
    assert x.shape == y.shape == (8, 5000, 1)
    assert x.dtype == y.dtype == np.float32
    np.testing.assert_array_equal(x[:, 15:], y[:, :-15])
    assert abs(x.mean()) < 0.003
    # The attractor: what is left of tanh(x - 1) is bounded and never rests.
    assert x.min() > -0.6
    assert x.max() < 0.5
    assert x.std(1).min() > 0.1
    # White noise starts the series alike; chaos parts them.
    assert np.std(x[:, 0]) < np.std(x[:, -1])
    again, _ = drawn(MackeyGlass(steps=300), 8)
    np.testing.assert_allclose(again, x[:, :300], rtol=1e-6)
    _, following = drawn(MackeyGlass(steps=300, ahead=1), 8)
    np.testing.assert_allclose(following, x[:, 1:301], rtol=1e-6)


@tasks
def test_batch_is_a_function_of_seed_and_step(task):
    one, same = (OnTheFly(task, batch_size=4, seed=3, examples=10) for _ in range(2))
    in_order = [one.batch(step) for step in range(6)]
    for step in (5, 0, 3):
        np.testing.assert_equal(same.batch(step), in_order[step])
    other = OnTheFly(task, batch_size=4, seed=4, examples=10)
    different = [*in_order, *(other.batch(step) for step in range(6))]
    assert len({batch["x"].tobytes() for batch in different}) == 12
    for step, batch in enumerate(in_order):
        steps = batch["x"].shape[1]
        assert batch["lengths"].tolist() == [steps] * 4
        assert batch["index"].tolist() == [step % 3 * 4 + row for row in range(4)]
        assert batch["lengths"].dtype == batch["index"].dtype == np.int32
    assert one.steps_per_epoch == 3


def evaluated(task, **settings):
    return list(OnTheFly(task, **settings).evaluation())


def rows(batches, column):
    """The filled rows of all batches together."""
    return np.concatenate([batch[column][batch["index"] >= 0] for batch in batches])


@tasks
def test_evaluation_is_fixed(task):
    found = evaluated(task, batch_size=8, examples=50)
    assert len(found) == 7
    assert rows(found, "index").tolist() == list(range(50))
    assert (rows(found, "lengths") == found[0]["x"].shape[1]).all()
    last = found[-1]
    assert last["index"].tolist() == [48, 49, *[-1] * 6]
    assert last["lengths"][2:].tolist() == [0] * 6
    assert not last["x"][2:].any()
    assert not last["y"][2:].any()
    # Whatever the seed, the size of batches and the number of examples.
    others = [
        evaluated(task, batch_size=8, examples=50, seed=9),
        evaluated(task, batch_size=50, examples=50),
        evaluated(task, batch_size=1, examples=50),
        evaluated(task, batch_size=70, examples=60),
    ]
    for other in others:
        for column in ("x", "y"):
            np.testing.assert_array_equal(rows(other, column)[:50], rows(found, column))


@tasks
def test_splits_and_training_are_disjoint(task):
    streams = [rows(evaluated(task, batch_size=64, examples=64, split=s), "x") for s in SPLITS]
    for seed in (0, 1):
        training = OnTheFly(task, batch_size=64, seed=seed, split="test")
        streams += [training.batch(step)["x"] for step in (0, 1)]
    examples = [row.tobytes() for stream in streams for row in stream]
    # Short copies are few enough to meet by chance, in any order; whole streams never do.
    assert len({stream.tobytes() for stream in streams}) == 7
    if not isinstance(task, Copy):
        assert len(set(examples)) == len(examples)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: OnTheFly(TASKS[0], 0), "batch_size must be at least 1, not 0"),
        (lambda: OnTheFly(TASKS[0], 1, -1), "seed must be at least 0, not -1"),
        (lambda: OnTheFly(TASKS[0], 1, split="dev"), "unknown split 'dev'; one of: train"),
        (lambda: OnTheFly(TASKS[0], 1, examples=0), "examples must be at least 1, not 0"),
        (lambda: OnTheFly(TASKS[0], 1).batch(-1), "step must be at least 0, not -1"),
        (lambda: SelectiveCopy(31, 16), "31 steps, 16 data tokens"),
        (lambda: SelectiveCopy(tokens=2), "tokens must be 3 to 256, not 2"),
        (lambda: Copy(0), "delay and data must be at least 1: 0, 10"),
        (lambda: Copy(1, symbols=255), "symbols must be 1 to 254, not 255"),
        (lambda: Adding(1), "steps must be at least 2, not 1"),
        (lambda: MackeyGlass(ahead=0), "at least 1: 5000, 0, 17"),
    ],
)
def test_what_makes_no_sense_is_refused(make, error):
    with pytest.raises(ValueError, match=error):
        make()
