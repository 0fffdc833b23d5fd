"""The music experiment: data, model and pictures of a configuration."""

from pathlib import Path

import data
from data.batches import Batches
from experiments.runner import config as base
from experiments.runner.experiment import Experiment, Prepared, training_settings, what_was_read
from experiments.runner.records import Record
from experiments.tasks.datasets import refusal
from experiments.tasks.music import figures
from experiments.tasks.music.config import Config
from experiments.tasks.music.task import KEYS, frames, model_of, task_of, training_stats
from surnn_jax.typing import Params


def check(config: Config) -> None:
    """Refuses a configuration before anything is read or compiled.

    Raises:
        ValueError: what is wrong and what would be right.
    """
    known = config.dataset in data.NAMES
    if not known or data.source_of(config.dataset).columns["x"].shape != (None, KEYS):
        raise ValueError(refusal("music", config.dataset))
    training_settings(config, "nll", 1)
    model_of(config)
    base.check(config)


def prepare(config: Config, data_dir: str | None) -> Prepared:
    """Reads the data that a configuration names, and builds its model.

    Raises:
        ValueError: bad configuration or data.
        OSError: data that are missing; the message names the command that prepares them.
    """
    splits = {name: data.load(config.dataset, name, data_dir) for name in data.SPLITS}
    feeds = {
        name: Batches(split.columns, config.batch_size, config.seed, bucket_growth=config.growth)
        for name, split in splits.items()
    }
    model = model_of(config)
    pieces = training_stats(splits["train"]["x"], config.batch_size)

    def draw(record: Record, params: Params, folder: Path) -> None:
        del record
        figures.draw(model, params, splits["test"], folder, title=config.unit, seed=config.seed)

    return Prepared(
        task=task_of(config, model, pieces),
        feeds=feeds,
        model=model,
        metric="nll",
        inputs=frames(feeds["train"].batch(0))[0],
        inputs_text="piano rolls, 0 or 1",
        draw=draw,
        recurrent=lambda params: params["recurrent"],
        scored=data.SPLITS,
        data=what_was_read(splits["train"]),
    )


EXPERIMENT = Experiment("music", Config, check, prepare)
