"""Pictures and sound of the speech experiment: waveforms, spectrograms, WAV files."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile

from experiments.analysis import plots
from experiments.analysis.style import BLACK, BLUE, VERMILION, sheet
from experiments.tasks.speech.data import NEXT, SEEN, Normalization, Speech
from experiments.tasks.speech.task import predict, sample
from surnn_jax.layers import WaveformPredictor
from surnn_jax.typing import Params

_PRIME, _MORE = 1.0, 1.0
"""Seconds that a model is given at most, and seconds that it adds."""
_SHOWN = 50
"""Steps of a window whose prediction is drawn."""
_WINDOW, _HOP = 0.02, 0.002
_DECIBELS = 80


def draw(
    model: WaveformPredictor,
    scale: Normalization,
    params: Params,
    speech: Speech,
    folder: Path,
    *,
    window: int,
    title: str,
    seed: int,
) -> None:
    """Draws and plays the test recording of median length.

    Writes ``wave.png``, ``switches.png`` (of a model with a switch), ``spectrogram.png``,
    ``original.wav`` and ``continuation.wav``.

    Args:
        model: the model.
        scale: the normalization it was trained with.
        params: its parameters.
        speech: the data.
        folder: where the files go.
        window: samples of a window.
        title: the model and its training.
        seed: of the continuation.
    """
    rate, lengths = speech.rate, speech.test["x"].lengths
    long = np.flatnonzero(lengths >= window)
    which = int(long[np.argsort(lengths[long], kind="stable")[len(long) // 2]])
    sound, title = speech.test["x"][which], f"{speech.test.ids[which]}, {title}"
    samples = sound[_loudest(sound, window)]
    mean, deviation, nats, table = predict(model, scale, params, samples)
    # Of long windows only a stretch, or nothing could be made out.
    part = _loudest(samples[SEEN:].reshape(-1, NEXT), min(_SHOWN, len(nats)))
    stretch = samples[NEXT * part.start : NEXT * part.stop + SEEN]
    shown = stretch, mean[part], deviation[part], nats[part]
    prediction(*shown, rate, folder / "wave.png", title)
    if table is not None:
        plots.raster(table, folder / "switches.png", title=title)
    prime = max(SEEN, min(len(sound) // 2, round(_PRIME * rate)) // NEXT * NEXT)
    more = sample(model, scale, params, sound[:prime], round(_MORE * rate / NEXT), seed)
    spectrograms(sound, more, prime, rate, folder / "spectrogram.png", title)
    wavfile.write(folder / "original.wav", rate, sound)
    wavfile.write(folder / "continuation.wav", rate, more)


def prediction(
    samples: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray,
    nats: np.ndarray,
    rate: int,
    path: str | os.PathLike,
    title: str = "",
) -> Any:
    """A stretch of sound, its prediction, and the surprise at every step.

    Args:
        samples: ``[W]``.
        mean: ``[T, N]``, the expected last T N samples, N at a time.
        deviation: ``[T, N]``, their standard deviations.
        nats: ``[T]``, negative log-density of each N samples.
        rate: samples a second.
        path: the PNG.
        title: the sound and the model.

    Raises:
        ValueError: shapes that do not fit.
    """
    if mean.ndim != 2 or mean.shape != deviation.shape or nats.shape != mean.shape[:1]:
        raise ValueError(
            f"mean {list(mean.shape)}, deviation {list(deviation.shape)} and nats "
            f"{list(nats.shape)} should be [T, N], [T, N] and [T]"
        )
    first = len(samples) - mean.size
    if samples.ndim != 1 or first < 0:
        raise ValueError(f"samples {list(samples.shape)} should be [W], W at least {mean.size}")
    time = 1000 * np.arange(len(samples) + 1) / rate
    center, spread, then = mean.ravel(), deviation.ravel(), time[first:-1]
    with sheet(11, 6.2, title, path) as figure:
        upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, 1])
        upper.fill_between(
            then, center - spread, center + spread, color=BLUE, alpha=0.25, linewidth=0,
            label="expected: mean ± deviation",
        )  # fmt: skip
        upper.plot(then, center, color=BLUE, linewidth=1.2, label="expected: mean")
        upper.plot(time[:-1], samples, color=BLACK, linewidth=1, label="truth")
        # A wide guess at one step must not press the sound flat; the legend needs room above.
        low, high = (end([end(samples), end(center)]) for end in (np.min, np.max))
        room = 0.2 * float(high - low) or 1.0
        upper.set(ylim=(low - room, high + 2 * room), ylabel="amplitude [16 bits]")
        upper.set_title(f"Waveform, and what was expected of each {mean.shape[1]} samples")
        upper.legend(loc="upper right", ncols=3)
        edges = time[first :: mean.shape[1]]
        lower.stairs(nats, edges, baseline=None, color=VERMILION, linewidth=1.5)
        lower.axhline(nats.mean(), color=BLACK, linewidth=0.8, linestyle="--")
        lower.set(xlabel="time [ms]", ylabel="nats a step", xlim=(0, time[-1]))
        lower.set_title(f"Surprise; dashed: the mean, {nats.mean():.2f} nats a step")
        for axis in (upper, lower):
            axis.grid(axis="y")
    return figure


def spectrograms(
    truth: np.ndarray,
    invented: np.ndarray,
    prime: int,
    rate: int,
    path: str | os.PathLike,
    title: str = "",
) -> Any:
    """A recording and a model's continuation of its beginning, on the same axes and scale.

    Args:
        truth: ``[W]``, the recording.
        invented: ``[V]``: its first `prime` samples, and how the model went on.
        prime: how many samples the model was given.
        rate: samples a second.
        path: the PNG.
        title: the sound and the model.

    Raises:
        ValueError: a sound without samples.
    """
    if not (len(truth) and len(invented)):
        raise ValueError("a sound without samples has no spectrogram")
    sounds = [_power(sound, rate) for sound in (truth, invented)]
    loudest = max(sounds[0][0].max(), 1.0)  # one 16-bit unit, far below all speech
    longest = max(len(truth), len(invented)) / rate
    with sheet(11, 7, title, path) as figure:
        axes = figure.subplots(2, sharex=True, sharey=True)
        titles = "The recording", "Its beginning, and after the line what the model drew"
        for axis, (power, span), heading in zip(axes, sounds, titles, strict=True):
            decibels = 10 * np.log10(np.maximum(power / loudest, 10 ** (-_DECIBELS / 10)))
            image = axis.imshow(
                decibels.T, origin="lower", aspect="auto", cmap="magma", vmin=-_DECIBELS, vmax=0,
                extent=(*span, 0, rate / 2000),
            )  # fmt: skip
            axis.set(ylabel="frequency [kHz]", xlim=(0, longest))
            axis.set_title(heading)
        axes[1].axvline(prime / rate, color="white", linewidth=1.5)
        axes[1].set_xlabel("time [s]")
        label = "power [dB of the recording's loudest]"
        figure.colorbar(image, ax=axes, label=label, pad=0.01, extend="both")
    return figure


def _power(samples: np.ndarray, rate: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Power ``[frames, frequencies]`` in Hann windows of 20 ms, and the seconds it stands for."""
    width, hop = min(round(_WINDOW * rate), len(samples)), max(1, round(_HOP * rate))
    windows = np.lib.stride_tricks.sliding_window_view(samples.astype(float), width)[::hop]
    power = np.abs(np.fft.rfft(windows * np.hanning(width + 2)[None, 1:-1], axis=1)) ** 2
    start = (width - hop) / 2
    return power, (start / rate, (start + hop * len(power)) / rate)


def _loudest(sound: np.ndarray, length: int) -> slice:
    """The loudest of the stretches of this length that follow one another."""
    starts = range(0, len(sound) - length + 1, length)
    start = max(starts, key=lambda start: sound[start : start + length].astype(float).var())
    return slice(start, start + length)
