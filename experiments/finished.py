"""A finished run, opened again: what was trained, and the parameters of its best epoch."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments import (
    launch,
    music_runs,
    protocols,
    records,
    sequence_data,
    sequence_runs,
    speech_runs,
)
from surnn_jax.train import checkpoint
from surnn_jax.typing import Params


class Finished(NamedTuple):
    """A finished run.

    Attributes:
        record: what it came to.
        run: its model and its data.
        params: the best parameters.
    """

    record: records.Record
    run: launch.Again
    params: Params


def opened(workdir: Path, data_dir: str | None) -> Finished:
    """Opens the folder of a finished run.

    Args:
        workdir: the folder.
        data_dir: folder of the originals, or None.

    Raises:
        OSError: no record is there, or the data are missing.
        ValueError: no checkpoint is there, or something there is damaged.
    """
    record = records.read(workdir / records.FILE)
    experiments: dict[str, Any] = {
        part.EXPERIMENT: part.Again for part in (music_runs, speech_runs)
    }
    experiments |= dict.fromkeys(sequence_data.EXPERIMENTS, sequence_runs.Again)
    if record.experiment not in experiments:
        there = ", ".join(experiments)
        raise ValueError(f"{workdir}: no experiment {record.experiment!r}; there are {there}")
    folder = checkpoint.find(workdir)
    if folder is None:
        raise ValueError(f"{workdir} holds no checkpoint")
    config, _ = protocols.split_off(record.config)
    run = experiments[record.experiment](config, data_dir)
    like = jax.eval_shape(run.task.init, jax.random.key(0), run.first)
    return Finished(record, run, checkpoint.read(folder, "best", like))
