"""What the music experiment does with its configurations: train, score, draw, play, record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import data
from data.batches import Batches
from experiments.analysis import style
from experiments.runner import launch
from experiments.runner.flags import LaunchOptions
from experiments.runner.records import Record
from experiments.tasks.music import sound
from experiments.tasks.music.config import Config
from experiments.tasks.music.task import frames, model_of, predict, sample, task_of, training_stats
from surnn_jax.typing import Params

EXPERIMENT = "music"
_PRIME, _MORE = 16, 64


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
    data.source_of(config.dataset)
    launch.training_settings(config, "nll", 1)
    model_of(config)
    for field, least in (("batch_size", 1), ("seed", 0), ("weight_noise", 0)):
        if getattr(config, field) < least:
            raise ValueError(f"{field} must be at least {least}, got {getattr(config, field)}")


def prepare(config: Config, data_dir: str | None) -> launch.Prepared:
    """Reads the data that a configuration names, and makes the task of it.

    Raises:
        ValueError: bad configuration or data.
        OSError: data that are missing; the message names the command that prepares them.
    """
    check(config)
    splits = {name: data.load(config.dataset, name, data_dir) for name in data.SPLITS}
    feeds = {
        name: Batches(split.columns, config.batch_size, config.seed, bucket_growth=config.growth)
        for name, split in splits.items()
    }
    task = task_of(config, training_stats(splits["train"]["x"], config.batch_size))
    return launch.Prepared(task, feeds)


def run(config: Config, workdir: Path, asked: LaunchOptions) -> Record | None:
    """Trains one configuration in `workdir`, or finishes it, and leaves all its results there."""
    prepared = prepare(config, asked.data_dir)
    done = launch.fit(EXPERIMENT, config, prepared, workdir, asked)
    if done is None:
        return None
    fit, record = done
    _show(config, fit.params, asked.data_dir, workdir)
    return record


class Again(launch.Again):
    """A finished run, to be scored again, looked at or exported."""

    wants = "piano rolls, 0 or 1"

    def __init__(self, config: Mapping[str, Any], data_dir: str | None):
        self._config, self._data_dir = Config(**config), data_dir
        super().__init__(prepare(self._config, data_dir))
        self.model, self.inputs = model_of(self._config), frames(self.first)[0]

    def show(self, record: Record, params: Params, folder: Path) -> None:
        """Pictures and sound, as the run itself left them."""
        _show(self._config, params, self._data_dir, folder)


def _show(config: Config, params: Params, data_dir: str | None, workdir: Path) -> None:
    """Pictures and sound of the best epoch, on the test piece of median length."""
    model, test = model_of(config), data.load(config.dataset, "test", data_dir)
    which = np.argsort([len(x) for x in test["x"]], kind="stable")[len(test) // 2]
    piece, name = test["x"][which], test.ids[which]
    unit = config.unit
    inside = predict(model, params, piece)
    style.piano_roll(piece, inside.probability, workdir / "roll.png", title=f"{name}, {unit}")
    if inside.table is not None:
        style.raster(
            inside.table, workdir / "switches.png", title=f"{name}, {unit}", inputs=piece[:-1]
        )
    more = sample(model, params, piece[:_PRIME], _MORE, config.seed)
    sound.write_midi(more, workdir / "continuation.mid")
    sound.write_midi(piece, workdir / "original.mid")
