"""What the speech experiment does with its configurations: train, score, draw, play, record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile

from data.batches import Batches
from experiments.analysis import style
from experiments.runner import launch
from experiments.runner.flags import LaunchOptions
from experiments.runner.records import Record
from experiments.tasks.speech import data as speech_data
from experiments.tasks.speech import figures as speech_figures
from experiments.tasks.speech.config import Config
from experiments.tasks.speech.data import NEXT, SEEN, Speech
from experiments.tasks.speech.task import frames, model_of, predict, sample, task_of
from surnn_jax.typing import Params

EXPERIMENT = "speech"
_PRIME, _MORE = 1.0, 1.0
"""Seconds that a model is given at most, and seconds that it adds."""
_SHOWN = 50
"""Steps of a window whose prediction is drawn."""


def run_all(runs: Mapping[str, Config], asked: LaunchOptions) -> None:
    """Runs every configuration in a folder of its own, then compares them: see :func:`.launch.go`.

    Args:
        runs: name -> configuration.
        asked: what else the command line asks for.
    """
    launch.run_all(
        EXPERIMENT,
        runs,
        asked,
        refuse=check,
        run=lambda config, folder: run(config, folder, asked),
        metric="nll",
        summary=launch.summary,
    )


def check(config: Config) -> None:
    """Refuses a configuration before anything is read or compiled.

    Raises:
        ValueError: what is wrong and what would be right.
    """
    speech_data.check(config)
    launch.training_settings(config, "nll", 1)
    model_of(config)
    if config.weight_noise < 0:
        raise ValueError(f"weight_noise must be at least 0, got {config.weight_noise}")


def prepare(config: Config, data_dir: str | None) -> launch.Prepared:
    """Reads the data that a configuration names, and makes the task of it.

    Raises:
        ValueError: bad configuration or data.
        OSError: data that are missing; the message names the command that prepares them.
    """
    check(config)
    return _prepared(config, speech_data.read(config, data_dir))


def _prepared(config: Config, speech: Speech) -> launch.Prepared:
    feeds = {
        name: Batches({"x": cut.x}, config.batch_size, config.seed)
        for name, cut in speech.splits.items()
    }
    return launch.Prepared(task_of(config, speech.level), feeds)


def run(config: Config, workdir: Path, asked: LaunchOptions) -> Record | None:
    """Trains one configuration in `workdir`, or finishes it, and leaves all its results there."""
    speech = speech_data.read(config, asked.data_dir)
    print(speech.about(), flush=True)
    prepared = _prepared(config, speech)
    done = launch.fit(EXPERIMENT, config, prepared, workdir, asked)
    if done is None:
        return None
    fit, record = done
    _show(config, speech, fit.params, _trained(prepared, record), workdir)
    return record


class Again(launch.Again):
    """A finished run, to be scored again, looked at or exported."""

    def __init__(self, config: Mapping[str, Any], data_dir: str | None):
        self._config = config = Config(**config)
        check(config)
        self._speech = speech = speech_data.read(config, data_dir)
        super().__init__(_prepared(config, speech))
        level = speech.level
        self.model, self.inputs = model_of(config), frames(self.first["x"], level)[0]
        self.wants = (
            f"{SEEN} samples of 16 bits a step, {NEXT} on from step to step, less {level.mean!r}, "
            f"over {level.deviation!r}"
        )

    def show(self, record: Record, params: Params, folder: Path) -> None:
        """Pictures and sound, as the run itself left them."""
        _show(self._config, self._speech, params, _trained(self._prepared, record), folder)


def _trained(prepared: launch.Prepared, record: Record) -> int:
    """Steps up to the best epoch."""
    return record.best_epoch * prepared.feeds["train"].steps_per_epoch


def _show(config: Config, speech: Speech, params: Params, steps: int, workdir: Path) -> None:
    """Pictures and sound of the best epoch, on the test recording of median length."""
    model, level, rate = model_of(config), speech.level, speech.rate
    lengths = speech.test["x"].lengths
    long = np.flatnonzero(lengths >= config.window)
    which = int(long[np.argsort(lengths[long], kind="stable")[len(long) // 2]])
    sound = speech.test["x"][which]
    # How much it was trained stands on every picture: little training sounds like noise.
    title = f"{speech.test.ids[which]}, {config.unit} after {steps:,} training steps"
    window = sound[_loudest(sound, config.window)]
    mean, deviation, nats, table = predict(model, level, params, window)
    # Of long windows a stretch alone, or nothing could be made out.
    shown = min(_SHOWN, len(nats))
    part = _loudest(window[SEEN:].reshape(-1, NEXT), shown)
    heard = window[NEXT * part.start : NEXT * part.stop + SEEN]
    drawn = heard, mean[part], deviation[part], nats[part]
    speech_figures.prediction(*drawn, rate, workdir / "wave.png", title)
    if table is not None:
        style.raster(table, workdir / "switches.png", title=title)
    prime = max(SEEN, min(len(sound) // 2, round(_PRIME * rate)) // NEXT * NEXT)
    more = sample(model, level, params, sound[:prime], round(_MORE * rate / NEXT), config.seed)
    speech_figures.spectrograms(sound, more, prime, rate, workdir / "spectrogram.png", title)
    wavfile.write(workdir / "original.wav", rate, sound)
    wavfile.write(workdir / "continuation.wav", rate, more)


def _loudest(sound: np.ndarray, length: int) -> slice:
    """The stretch of most power, of those that follow one another."""
    starts = range(0, len(sound) - length + 1, length)
    start = max(starts, key=lambda start: sound[start : start + length].astype(float).var())
    return slice(start, start + length)
