"""A finished run, opened again: what was trained, and the parameters of its best epoch."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.runner import launch, records
from experiments.tasks.music import experiment as music_runs
from experiments.tasks.sequence import data
from experiments.tasks.sequence import experiment as sequence_runs
from experiments.tasks.speech import experiment as speech_runs
from experiments.tuning import protocols
from surnn_jax.train import checkpoint
from surnn_jax.typing import Params


class RestoredRun(NamedTuple):
    """A finished run.

    Attributes:
        record: what it came to.
        run: its model and its data.
        params: the best parameters.
    """

    record: records.Record
    run: launch.Again
    params: Params


def restore(workdir: Path, data_dir: str | None) -> RestoredRun:
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
    experiments |= dict.fromkeys(data.EXPERIMENTS, sequence_runs.Again)
    if record.experiment not in experiments:
        there = ", ".join(experiments)
        raise ValueError(f"{workdir}: no experiment {record.experiment!r}; there are {there}")
    folder = checkpoint.find(workdir)
    if folder is None:
        raise ValueError(f"{workdir} holds no checkpoint")
    config, _ = protocols.split_off(record.config)
    run = experiments[record.experiment](config, data_dir)
    like = jax.eval_shape(run.task.init, jax.random.key(0), run.first)
    return RestoredRun(record, run, checkpoint.read(folder, "best", like))
