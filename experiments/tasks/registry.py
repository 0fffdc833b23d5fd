"""All experiments by name, and finished runs opened again."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.runner import records
from experiments.runner.config import TrainConfig, from_record
from experiments.tasks.sequence.config import DATASETS

if TYPE_CHECKING:  # These import JAX, and scripts import this module before they parse flags.
    from experiments.runner.experiment import Experiment, Prepared
    from surnn_jax.typing import Params

NAMES = ("music", "speech", *DATASETS)
"""The experiments."""


def load(name: str) -> "Experiment":
    """The experiment of this name; imports its modules, and JAX with them.

    Raises:
        ValueError: an unknown name.
    """
    if name == "music":
        from experiments.tasks.music import experiment as music

        return music.EXPERIMENT
    if name == "speech":
        from experiments.tasks.speech import experiment as speech

        return speech.EXPERIMENT
    if name in DATASETS:
        from experiments.tasks.sequence import experiment as sequence

        return sequence.EXPERIMENTS[name]
    raise ValueError(f"no experiment {name!r}; one of: {', '.join(NAMES)}")


class RestoredRun(NamedTuple):
    """A finished run.

    Attributes:
        record: its record.
        config: its configuration.
        prepared: its model and its data.
        params: the parameters of its best epoch.
    """

    record: records.Record
    config: TrainConfig
    prepared: "Prepared"
    params: "Params"


def restore(workdir: Path, data_dir: str | None, own_data: str | None = None) -> RestoredRun:
    """Opens the folder of a finished run, or of a winner that was kept with ``params.npz``.

    Args:
        workdir: the folder.
        data_dir: folder of the originals, or None.
        own_data: where the own files that the run was trained on lie now, if not where they lay.

    Raises:
        OSError: the record or the data are missing.
        ValueError: the parameters are missing, or a file is damaged; own files have changed.
    """
    from experiments.runner import own, parameters
    from experiments.runner.experiment import parameter_shapes
    from surnn_jax.train import checkpoint

    path = workdir / records.FILE
    record = records.read(path)
    try:
        experiment = load(record.experiment)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    config = from_record(experiment.config, record.config, path)
    if own_data is not None:
        if not config.own:
            raise ValueError(f"--data: {path} is of the data set {config.dataset}; leave it out")
        config = dataclasses.replace(config, own=os.path.abspath(own_data))
    if config.own:
        if data_dir is not None:
            raise ValueError(f"--data_dir: {path} is of own files ({config.own}); leave it out")
        own.check_unchanged(config, record, path)
    kept = (workdir / parameters.FILE).exists()
    folder = None if kept else checkpoint.find(workdir)
    if folder is None and not kept:
        raise ValueError(f"{workdir} holds no checkpoint and no {parameters.FILE}")
    prepared = experiment.prepare(config, data_dir)
    like = parameter_shapes(prepared)
    if folder is None:
        params = parameters.read(workdir, like)
    else:
        params = checkpoint.read(folder, "best", like)
    return RestoredRun(record, config, prepared, params)
