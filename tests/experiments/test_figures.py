"""Figures: what is drawn is what was given, on the axes and in the pixels of the file."""

import math
import struct
from functools import partial

import numpy as np
import pytest
from matplotlib import colors, image
from tiers import full

from experiments.analysis import curves, plots, style
from experiments.tasks.music import figures
from experiments.tasks.speech import figures as speech_figures


def history(valid, train=None, rate=None):
    lines = [
        {"epoch": epoch, "train/nll": fitted, "valid/nll": value}
        for epoch, (value, fitted) in enumerate(
            zip(valid, valid if train is None else train, strict=True), 1
        )
    ]
    if rate is not None:
        lines = [{**line, "train/update_rate": r} for line, r in zip(lines, rate, strict=True)]
    return lines


def size(path):
    """Width and height out of a PNG's header."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def points(line):
    return line.get_xdata().tolist(), line.get_ydata().tolist()


def reader(path):
    """A function of an axis and a point in its units: the colour there in the file, 0..1."""
    picture = image.imread(path)[::-1]

    def colour(axis, x, y):
        column, row = axis.transData.transform((x, y)).astype(int)
        return picture[row, column, :3]

    return colour


def near(colour, wanted):
    return np.abs(colour - np.array(colors.to_rgb(wanted))).max() < 0.02


def test_learning_curves_mark_the_first_best_epoch(tmp_path):
    valid, train, rate = [9.0, 8.5, 8.25, 8.25, 8.75], [12.0, 9.0, 8.0, 7.5, 7.0], [0.5] * 5
    path = tmp_path / "a.png"
    drawn = curves.learning_curves(history(valid, train, rate), path, title="GRU on jsb")
    assert size(path) == (800, 600)
    assert drawn.get_suptitle() == "GRU on jsb"
    upper, lower = drawn.axes
    epochs = [1, 2, 3, 4, 5]
    fitted, checked, best = upper.lines
    assert points(fitted) == (epochs, train)
    assert points(checked) == (epochs, valid)
    assert points(best) == ([3], [8.25])
    assert best.get_marker() == "o"
    assert checked.get_label() == "best 8.250 at epoch 3"
    assert points(lower.lines[0]) == (epochs, [50.0] * 5)
    assert lower.get_ylim() == (0, 100)
    assert "nats a step" in upper.get_ylabel()
    assert lower.get_xlabel() == "epoch"
    # In the file: the dot has the colour of the curve.
    assert near(reader(path)(upper, 3, 8.25), style.BLUE)


def test_without_an_update_rate_there_is_one_panel(tmp_path):
    drawn = curves.learning_curves(history([3.0, 2.0]), tmp_path / "a.png")
    (only,) = drawn.axes
    assert only.get_xlabel() == "epoch"
    assert size(tmp_path / "a.png") == (800, 450)


def test_the_start_may_leave_the_picture_but_nothing_else(tmp_path):
    valid = [50.0, 12.0, *np.linspace(10, 8, 18)]
    train = [90.0, 30.0, *np.linspace(11, 7, 18)]
    upper = curves.learning_curves(history(valid, train), tmp_path / "a.png").axes[0]
    low, high = upper.get_ylim()
    assert low < 7
    assert 11 < high < 12
    assert "the start is off the top" in upper.get_title(loc="left")
    # A late leap is not hidden.
    valid[15] = 20.0
    upper = curves.learning_curves(history(valid, train), tmp_path / "a.png").axes[0]
    assert upper.get_ylim()[1] > 20
    calm = curves.learning_curves(history([9.0, 8.0], [9.5, 8.0]), tmp_path / "a.png").axes[0]
    assert "off the top" not in calm.get_title(loc="left")
    assert calm.get_ylim()[1] > 9.5


def test_compare_curves_keeps_runs_apart(tmp_path):
    runs = {f"run {i}": history([9.0 - i, 8.5 - i, 8.75 - i]) for i in range(8)}
    runs["run 1"] = history([8.0, 7.5, 7.75], rate=[0.5, 0.4, 0.3])
    drawn = curves.compare_curves(runs, tmp_path / "a.png", title="eight")
    upper, lower = drawn.axes
    dots = upper.lines[2::3]
    assert [points(dot) for dot in dots] == [([2], [8.5 - i]) for i in range(8)]
    strong, faint = upper.lines[1::3], upper.lines[0::3]
    assert len({(line.get_color(), line.get_linestyle()) for line in strong}) == 8
    for i, (validation, training) in enumerate(zip(strong, faint, strict=True)):
        assert validation.get_color() == training.get_color() == dots[i].get_color()
        assert validation.get_alpha() is None
        assert training.get_alpha() < 0.5
    legend = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert legend == [f"run {i}: best {8.5 - i:.3f} at epoch 2" for i in range(8)]
    assert [points(line) for line in lower.lines] == [([1, 2, 3], [50.0, 40.0, 30.0])]
    assert lower.lines[0].get_color() == strong[1].get_color()


def test_another_metric(tmp_path):
    lines = [{"epoch": 1, "train/mse": 2.0, "valid/mse": 1.0}]
    drawn = curves.learning_curves(lines, tmp_path / "a.png", metric="mse")
    assert drawn.axes[0].get_ylabel() == "mse"


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ({}, "no run to compare"),
        ({"gru": []}, "gru: an empty history has no curve"),
        ({"gru": [{"epoch": 1, "train/nll": 1.0}]}, "gru: no valid/nll in the history, which has"),
        ({"gru": [*history([1.0]), {"epoch": 2}]}, "gru: no train/nll in the history"),
    ],
)
def test_curves_refuse(tmp_path, histories, message):
    with pytest.raises(ValueError, match=message):
        curves.compare_curves(histories, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def music(steps=12):
    """A piece from G3 to C#5 and its prediction, of which the first frame is missing."""
    truth = np.zeros((steps, 88), np.uint8)
    truth[:, 55 - 21] = truth[::3, 61 - 21] = truth[1::4, 73 - 21] = 1
    probability = np.full((steps, 88), 0.01)
    probability[:, 50 - 21 : 74 - 21] = np.random.default_rng(0).uniform(0.06, 0.9, (steps, 24))
    probability[0] = np.nan
    return truth, probability


def test_piano_roll_shows_truth_prediction_and_surprise(tmp_path):
    truth, probability = music()
    path = tmp_path / "a.png"
    drawn = figures.piano_roll(truth, probability, path, title="a piece")
    assert size(path) == (750, 820)
    upper, middle, lower = drawn.axes[:3]
    # From D3 (only expected) to C#5 (both), C3 and C6 being outside.
    for axis in (upper, middle, lower):
        assert axis.images[0].get_extent() == [0, 12, 49.5, 73.5]
        assert [text.get_text() for text in axis.get_yticklabels()] == ["C4", "C5"]
        assert axis.get_yticks().tolist() == [60, 72]
        assert axis.get_xlim() == (0, 12)
    keys = slice(50 - 21, 74 - 21)
    np.testing.assert_array_equal(upper.images[0].get_array(), truth[:, keys].T)
    np.testing.assert_array_equal(
        middle.images[0].get_array().filled(np.nan), probability[:, keys].T
    )
    surprise = lower.images[0].get_array().filled(np.nan)
    total = 0.0
    for t in range(1, 12):
        for key in range(88):
            p = probability[t, key]
            signed = -math.log(p) if truth[t, key] else math.log(1 - p)
            total += abs(signed)
            if 29 <= key < 53:
                assert surprise[key - 29, t] == pytest.approx(signed, rel=1e-12)
    assert np.isnan(surprise[:, 0]).all()
    assert f"Surprise: {total / 11:.2f} nats a frame" in lower.get_title(loc="left")


def test_piano_roll_in_the_file(tmp_path):
    truth, probability = music()
    probability[5, 55 - 21], probability[5, 60 - 21] = 0.001, 0.999  # missed; false
    path = tmp_path / "a.png"
    upper, middle, lower = figures.piano_roll(truth, probability, path).axes[:3]
    colour = reader(path)
    for t in range(12):
        for key in range(50 - 21, 74 - 21):
            # Beside the middle, where a C has its line.
            seen = colour(upper, t + 0.5, key + 21 + 0.3)
            assert near(seen, style.BLACK if truth[t, key] else "white"), (t, key)
    assert near(colour(lower, 5.5, 55.3), style.VERMILION)
    assert near(colour(lower, 5.5, 60.3), style.BLUE)
    assert near(colour(middle, 5.5, 60.3), style.BLUE)
    grey = colour(middle, 0.5, 55.3)
    assert 0.85 < grey[0] < 0.95
    assert np.ptp(grey) == 0


@pytest.mark.parametrize("key", [0, full(40), 87])
def test_piano_roll_of_one_key_shows_an_octave(tmp_path, key):
    truth = np.zeros((3, 88))
    truth[:, key] = 1
    drawn = figures.piano_roll(truth, np.full((3, 88), 0.01), tmp_path / "a.png")
    picture = drawn.axes[0].images[0]
    assert picture.get_array().shape == (12, 3)
    left, right, low, high = picture.get_extent()
    assert (left, right) == (0, 3)
    assert high - low == 12
    assert 20.5 <= low < 21 + key < high <= 108.5
    assert len(drawn.axes[0].get_yticks()) == 1


@pytest.mark.parametrize(
    ("truth", "probability", "message"),
    [
        (np.zeros((3, 87)), np.full((3, 87), 0.5), r"truth should be \[T, 88\], but is \[3, 87\]"),
        (np.full((3, 88), 2), np.full((3, 88), 0.5), "truth should hold 0 and 1"),
        (np.zeros((3, 88)), np.full((2, 88), 0.5), r"probability is \[2, 88\], but truth is"),
        (np.zeros((3, 88)), np.full((3, 88), 1.5), "should lie in 0..1"),
        (np.zeros((3, 88)), np.full((3, 88), [[0.5], [0], [0.5]]), "frame 1: no key"),
        (np.zeros((3, 88)), np.where(np.eye(3, 88) > 0, np.nan, 0.5), "NaN for a whole frame"),
    ],
)
def test_piano_roll_refuses(tmp_path, truth, probability, message):
    with pytest.raises(ValueError, match=message):
        figures.piano_roll(truth, probability, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def raster_table(steps=24, neurons=9):
    periods = np.random.default_rng(0).permutation(np.arange(2, 2 + neurons))
    return np.sin(2 * np.pi * (np.arange(steps)[:, None] / periods[None] + 0.1)) > 0.3


def test_raster_orders_neurons_from_slow_to_fast(tmp_path):
    table, path = raster_table(), tmp_path / "a.png"
    drawn = plots.raster(table, path, title="when")
    share, main, side = drawn.axes
    assert size(path) == (750, 580)
    rows = np.asarray(main.images[0].get_array(), bool)
    assert main.images[0].get_extent() == [0, 24, 0, 9]
    assert sorted(map(bytes, rows)) == sorted(bytes(neuron) for neuron in table.T)
    changes = [sum(a != b for a, b in zip(row[1:], row[:-1], strict=True)) for row in rows]
    assert changes == sorted(changes)
    assert changes[0] < changes[-1]
    # Above: by step; at the side: by neuron, in the order of the rows.
    by_step, edges, _ = share.patches[0].get_data()
    np.testing.assert_allclose(by_step, [100 * sum(step) / 9 for step in table], rtol=1e-12)
    assert edges.tolist() == list(range(25))
    by_neuron, edges, _ = side.patches[0].get_data()
    np.testing.assert_allclose(by_neuron, [100 * sum(row) / 24 for row in rows], rtol=1e-12)
    assert edges.tolist() == list(range(10))
    assert f"{100 * table.sum() / table.size:.1f} %" in share.get_title(loc="left")
    assert share.get_xlim() == main.get_xlim() == (0, 24)
    assert side.get_ylim() == main.get_ylim() == (0, 9)
    # In the file, cell by cell.
    colour = reader(path)
    for neuron, row in enumerate(rows):
        for step, is_open in enumerate(row):
            seen = colour(main, step + 0.5, neuron + 0.5)
            assert near(seen, style.BLUE if is_open else "white"), (neuron, step)


def test_raster_shows_the_piece_on_the_same_time_axis(tmp_path):
    truth, _ = music(24)
    drawn = plots.raster(
        raster_table(), tmp_path / "a.png", above=partial(figures.keys_that_sound, roll=truth)
    )
    piece, share, main, _ = drawn.axes
    low, high = (int(edge + 0.5) - 21 for edge in piece.images[0].get_extent()[2:])
    np.testing.assert_array_equal(piece.images[0].get_array(), truth[:, low:high].T)
    assert truth.sum() == truth[:, low:high].sum()
    assert piece.get_xlim() == share.get_xlim() == main.get_xlim() == (0, 24)
    left = {round(axis.get_position().x0, 9) for axis in (piece, share, main)}
    right = {round(axis.get_position().x1, 9) for axis in (piece, share, main)}
    assert len(left) == len(right) == 1


@pytest.mark.parametrize(
    ("table", "roll", "message"),
    [
        (np.ones((3, 2)), None, r"booleans \[T, H\], but is float64 \[3, 2\]"),
        (np.ones(3, bool), None, r"booleans \[T, H\], but is bool \[3\]"),
        (np.ones((3, 2), bool), np.zeros((3, 8)), r"roll should be \[T, 88\]"),
    ],
)
def test_raster_refuses(tmp_path, table, roll, message):
    above = None if roll is None else partial(figures.keys_that_sound, roll=roll)
    with pytest.raises(ValueError, match=message):
        plots.raster(table, tmp_path / "a.png", above=above)
    assert not list(tmp_path.iterdir())


def test_the_picture_of_a_prediction_holds_what_was_given(tmp_path):
    samples = np.random.default_rng(0).normal(0, 3000, 100).astype(np.int16)
    mean, deviation = samples[20:].reshape(8, 10) * 0.5, np.full((8, 10), 40.0)
    nats = np.linspace(-9, 5, 8)
    path = tmp_path / "wave.png"
    drawn = speech_figures.prediction(samples, mean, deviation, nats, 8000, path, "a sound")
    assert path.read_bytes().startswith(b"\x89PNG")
    upper, lower = drawn.axes
    expected, truth = upper.lines
    np.testing.assert_allclose(truth.get_xdata(), np.arange(100) / 8)
    np.testing.assert_array_equal(truth.get_ydata(), samples)
    np.testing.assert_allclose(expected.get_xdata(), np.arange(20, 100) / 8)
    np.testing.assert_array_equal(expected.get_ydata(), mean.ravel())
    (band,) = upper.collections
    assert band.get_paths()[0].get_extents().ymax == (mean + deviation).max()
    low, high = upper.get_ylim()
    assert low < samples.min()
    assert high > samples.max()
    values, edges, _ = lower.patches[0].get_data()
    np.testing.assert_array_equal(values, nats)
    np.testing.assert_allclose(edges, np.arange(20, 101, 10) / 8)
    assert "-2.00 nats a step" in lower.get_title(loc="left")
    with pytest.raises(ValueError, match=r"samples \[50\] should be \[W\], W at least 80"):
        speech_figures.prediction(samples[:50], mean, deviation, nats, 8000, path)


def test_a_spectrogram_shows_a_tone_where_it_is(tmp_path):
    time = np.arange(8000) / 8000
    tone = (9000 * np.sin(2 * np.pi * 1000 * time) * (time >= 0.5)).astype(np.int16)
    path = tmp_path / "spectrogram.png"
    drawn = speech_figures.spectrograms(tone, tone[:6000], 5000, 8000, path, "a tone")
    assert path.read_bytes().startswith(b"\x89PNG")
    upper, lower = drawn.axes[:2]
    image = upper.images[0]
    left, right, bottom, top = image.get_extent()
    assert (bottom, top) == (0, 4)
    power = np.asarray(image.get_array())
    loud = power.max(0) > -20
    # Windows of 20 ms reach the tone half a window before it begins.
    start = left + (right - left) * np.argmax(loud) / len(loud)
    assert start == pytest.approx(0.5 - 0.008, abs=0.004)
    frequency = top * (power[:, -10].argmax() + 0.5) / len(power)
    assert frequency == pytest.approx(1, abs=0.03)
    assert power.max() == 0
    assert power.min() == -80
    assert lower.lines[0].get_xdata()[0] == 5000 / 8000
    with pytest.raises(ValueError, match="without samples"):
        speech_figures.spectrograms(tone[:0], tone, 20, 8000, path)
