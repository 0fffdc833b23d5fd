"""The speech experiment: data, model, pictures and sound of a configuration."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from data.batches import Batches
from experiments.runner.config import check as check_ranges
from experiments.runner.experiment import Experiment, Prepared, training_settings
from experiments.runner.records import Record
from experiments.tasks.speech import data, figures
from experiments.tasks.speech.config import Config
from experiments.tasks.speech.data import NEXT, SEEN
from experiments.tasks.speech.task import frames, model_of, task_of
from surnn_jax.typing import Params


def check(config: Config) -> None:
    """Refuses a configuration before anything is read or compiled.

    Raises:
        ValueError: what is wrong and what would be right.
    """
    data.check(config)
    check_ranges(config)
    training_settings(config, "nll", 1)
    model_of(config)


def prepare(config: Config, data_dir: str | None) -> Prepared:
    """Reads the recordings that a configuration names, and builds its model.

    Raises:
        ValueError: bad configuration or data.
        OSError: data that are missing; the message names the command that prepares them.
    """
    speech = data.read(config, data_dir)
    feeds = {
        name: Batches({"x": split.x}, config.batch_size, config.seed)
        for name, split in speech.splits.items()
    }
    model, scale = model_of(config), speech.normalization

    def draw(record: Record, params: Params, folder: Path) -> None:
        # How long it was trained is in every title: after little training it sounds like noise.
        steps = record.best_epoch * feeds["train"].steps_per_epoch
        title = f"{config.unit} after {steps:,} training steps"
        figures.draw(
            model, scale, params, speech, folder,
            window=config.window, title=title, seed=config.seed,
        )  # fmt: skip

    return Prepared(
        task=task_of(config, model, scale),
        feeds=feeds,
        model=model,
        metric="nll",
        inputs=frames(feeds["train"].batch(0)["x"], scale)[0],
        inputs_text=(
            f"{SEEN} samples of 16 bits a step, {NEXT} on from step to step, less {scale.mean!r}, "
            f"over {scale.deviation!r}"
        ),
        draw=draw,
        recurrent=lambda params: params["recurrent"],
        scored=tuple(feeds),
        about=speech.about,
        data=speech.read,
    )


def outline(config: Config) -> tuple[Any, Params]:
    """The model and the shapes of its parameters, without data."""
    model = model_of(config)
    init = task_of(config, model, data.Normalization(0.0, 1.0)).init
    return model, jax.eval_shape(init, jax.random.key(0), {"x": np.zeros((2, 50), np.int16)})


EXPERIMENT = Experiment("speech", Config, check, prepare, outline)
