"""Pictures and sound of the music experiment: piano rolls, switches, MIDI files."""

import os
from pathlib import Path
from typing import Any

import numpy as np

import data
from data.sets.music import KEYS, LOWEST, frames_per_quarter
from experiments.analysis import plots
from experiments.analysis.style import BLACK, BLUE, GREY, VERMILION, shades, sheet, width_of
from experiments.tasks.music.task import predict, sample
from surnn_jax.layers import FramePredictor
from surnn_jax.typing import Params

_PRIME, _MORE = 16, 64
"""Frames of the piece that the model is given, and frames that it adds."""
_MOST_NATS = 4.0
_OCTAVE = 12


def draw(
    model: FramePredictor, params: Params, test: data.Split, folder: Path, *, title: str, seed: int
) -> None:
    """Draws and plays the test piece of median length.

    Writes ``roll.png``, ``switches.png`` (of a model with a switch), ``continuation.mid`` and
    ``original.mid``.

    Args:
        model: the model.
        params: its parameters.
        test: the test split.
        folder: where the files go.
        title: the name of the model.
        seed: of the continuation.
    """
    which = np.argsort([len(x) for x in test["x"]], kind="stable")[len(test) // 2]
    piece, title = test["x"][which], f"{test.ids[which]}, {title}"
    predicted = predict(model, params, piece)
    piano_roll(piece, predicted.probability, folder / "roll.png", title=title)
    if predicted.table is not None:
        plots.raster(
            predicted.table,
            folder / "switches.png",
            title=title,
            above=lambda axis: keys_that_sound(axis, piece[:-1]),
        )
    more = sample(model, params, piece[:_PRIME], _MORE, seed)
    for roll, file in ((more, "continuation.mid"), (piece, "original.mid")):
        write_midi(roll, folder / file, frames_per_quarter=frames_per_quarter(test))


def piano_roll(
    truth: np.ndarray, probability: np.ndarray, path: str | os.PathLike, title: str = ""
) -> Any:
    """A piece, its prediction, and their differences, under one another.

    Args:
        truth: ``[T, 88]`` of 0 and 1.
        probability: ``[T, 88]``; row t is the prediction of frame t from the frames before it. A
            row of NaN was not predicted: it stays grey and does not count.
        path: the PNG.
        title: the piece and the model.

    Raises:
        ValueError: other shapes or values; a row of zeros, which predicts nothing.
    """
    truth, probability = _roll("truth", truth), np.asarray(probability, float)
    if probability.shape != truth.shape:
        raise ValueError(
            f"probability is {list(probability.shape)}, but truth is {list(truth.shape)}"
        )
    predicted = ~np.isnan(probability).all(1)
    known = probability[predicted]
    if not ((known >= 0) & (known <= 1)).all():
        raise ValueError("probability should lie in 0..1, or be NaN for a whole frame")
    if not known.any(1).all():
        frame = np.flatnonzero(predicted)[~known.any(1)][0]
        raise ValueError(f"frame {frame}: no key has a probability; NaN says 'not predicted'")

    # Within float32's reach of 0 and 1, as a sigmoid may round to them.
    heard = np.where(truth, probability, 1 - probability)
    nats = -np.log(np.clip(heard, 1e-7, 1))
    used = _used(truth, probability)
    with sheet(width_of(len(truth)), 8.2, title, path) as figure:
        upper, middle, lower = axes = figure.subplots(3, sharex=True, sharey=True)
        _keys(upper, truth, used, shades(BLACK), (0, 1))
        upper.set_title("Truth: the keys that sound")
        image = _keys(middle, probability, used, shades(BLUE), (0, 1))
        middle.set_title("Prediction, made one frame ahead")
        figure.colorbar(image, ax=middle, label="probability", pad=0.01)
        signed, span = np.where(truth, nats, -nats), (-_MOST_NATS, _MOST_NATS)
        image = _keys(lower, signed, used, shades(VERMILION, BLUE), span)
        mean = f": {nats[predicted].sum(1).mean():.2f} nats a frame" if predicted.any() else ""
        lower.set_title(f"Surprise{mean} (orange: not expected, came; blue: expected, stayed away)")
        bar = figure.colorbar(image, ax=lower, label="nats", pad=0.01, extend="both")
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        lower.set_xlabel("time [frames]")
        lower.locator_params(axis="x", integer=True)
        for axis in axes:
            axis.set_ylabel("key")
    return figure


def keys_that_sound(axis: Any, roll: np.ndarray) -> None:
    """Draws a piece ``[T, 88]`` on one axis, such as that above a raster of switches.

    Raises:
        ValueError: another shape, or values other than 0 and 1.
    """
    roll = _roll("roll", roll)
    _keys(axis, roll, _used(roll, roll), shades(BLACK), (0, 1))
    axis.set_title("Input: the keys that sound")
    axis.set_ylabel("key")


def write_midi(
    roll: np.ndarray,
    path: str | os.PathLike,
    quarter_bpm: float = 100,
    frames_per_quarter: int = 1,
) -> None:
    """Writes a roll as one piano part.

    A roll does not say whether a key was struck again or held: a key that sounds in frames next
    to one another becomes one long note.

    Args:
        roll: ``[T, 88]`` of 0 and 1; column j is MIDI note 21 + j.
        path: the file, such as ``continuation.mid``.
        quarter_bpm: quarter notes a minute. Rolls have no tempo; 100 is what the four published
            sets have on average, which last 67 hours together.
        frames_per_quarter: frames in a quarter note.

    Raises:
        ValueError: another shape, another value, or a speed that is not positive.
    """
    roll = np.asarray(roll)
    if roll.ndim != 2 or roll.shape[1] != KEYS:
        raise ValueError(f"a roll should be [T, {KEYS}], but is {list(roll.shape)}")
    if not np.isin(roll, (0, 1)).all():
        wrong = roll[~np.isin(roll, (0, 1))][0]
        raise ValueError(f"a roll holds 0 and 1, but this one holds {wrong}")
    if not quarter_bpm > 0:
        raise ValueError(f"quarter_bpm must be positive, not {quarter_bpm}")
    if frames_per_quarter < 1:
        raise ValueError(f"frames_per_quarter must be at least 1, not {frames_per_quarter}")
    # music21 takes a second to import.
    from music21 import instrument, note, stream, tempo

    part = stream.Part([instrument.Piano(), tempo.MetronomeMark(number=quarter_bpm)])
    silence = np.zeros((1, KEYS), np.int8)
    edges = np.diff(roll.astype(np.int8), axis=0, prepend=silence, append=silence)
    for key in range(KEYS):
        for start, end in zip(*(np.flatnonzero(edges[:, key] == e) for e in (1, -1)), strict=True):
            length = (end - start) / frames_per_quarter
            part.insert(start / frames_per_quarter, note.Note(LOWEST + key, quarterLength=length))
    part.write("midi", fp=os.fspath(path))


def _roll(name: str, roll: np.ndarray) -> np.ndarray:
    roll = np.asarray(roll)
    if roll.ndim != 2 or roll.shape[1] != KEYS or not len(roll):
        raise ValueError(f"{name} should be [T, {KEYS}], but is {list(roll.shape)}")
    if not np.isin(roll, (0, 1)).all():
        raise ValueError(f"{name} should hold 0 and 1 alone")
    return roll.astype(bool)


def _keys(
    axis: Any, values: np.ndarray, used: tuple[int, int], colours: Any, span: tuple[float, float]
) -> Any:
    """Draws ``[T, 88]`` as an image, cropped to the keys ``used[0]`` to ``used[1] - 1``."""
    low, high = used
    image = axis.imshow(
        values[:, low:high].T.astype(float), cmap=colours, origin="lower", aspect="auto",
        vmin=span[0], vmax=span[1],
        extent=(0, len(values), LOWEST + low - 0.5, LOWEST + high - 0.5),
    )  # fmt: skip
    octaves = [note for note in range(LOWEST + low, LOWEST + high) if note % _OCTAVE == 0]
    axis.set_yticks(octaves, [f"C{note // _OCTAVE - 1}" for note in octaves])
    axis.set_axisbelow(False)
    axis.grid(axis="y", color=GREY, linewidth=0.5, alpha=0.5)
    return image


def _used(truth: np.ndarray, probability: np.ndarray) -> tuple[int, int]:
    """First and last + 1 of the keys that matter, an octave at least, so that a C is among them."""
    used = np.flatnonzero(truth.any(0) | (np.nan_to_num(probability) > 0.05).any(0))
    if not used.size:
        return 0, KEYS
    low, high = int(used[0]), int(used[-1]) + 1
    low = max(0, min(low, KEYS - _OCTAVE, (low + high - _OCTAVE) // 2))
    return low, max(high, low + _OCTAVE)
