"""The music experiment: data, model and pictures of a configuration."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

import data
from data.batches import Batches
from experiments.runner import config as base
from experiments.runner import own
from experiments.runner.experiment import Experiment, Prepared, training_settings, what_was_read
from experiments.runner.records import Record
from experiments.tasks.datasets import refusal
from experiments.tasks.music import figures
from experiments.tasks.music.config import Config
from experiments.tasks.music.task import (
    KEYS,
    TrainingStats,
    frames,
    model_of,
    task_of,
    training_stats,
)
from surnn_jax.typing import Params


def check(config: Config) -> None:
    """Refuses a configuration before anything is read or compiled.

    Raises:
        ValueError: what is wrong and what would be right.
    """
    known = config.dataset in data.NAMES
    if config.own:
        own.check(config)
    elif not known or data.source_of(config.dataset).columns["x"].shape != (None, KEYS):
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
    splits = own.load_splits(config, data_dir)
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
        data=what_was_read(splits),
    )


def outline(config: Config) -> tuple[Any, Params]:
    """The model and the shapes of its parameters, without data."""
    model = model_of(config)
    init = task_of(config, model, TrainingStats(0.0, 1.0)).init
    batch = {"x": np.zeros((2, 5, KEYS), np.uint8), "lengths": np.full(2, 5, np.int32)}
    return model, jax.eval_shape(init, jax.random.key(0), batch)


EXPERIMENT = Experiment("music", Config, check, prepare, outline)
