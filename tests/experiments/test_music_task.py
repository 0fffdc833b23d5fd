"""The loss of the music experiment."""

import jax
import numpy as np
import pytest

from experiments.music import Config
from experiments.tasks.music import task as music_task

CONFIG = Config(features=4, batch_size=1)
PIECES = [np.zeros((length, 88), np.uint8) for length in (3, 9)]


def _batch(length: int) -> dict:
    x = np.random.default_rng(length).integers(0, 2, (1, length, 88)).astype(np.float32)
    return {"x": x, "lengths": np.array([length], np.int32), "index": np.zeros(1, np.int32)}


def test_every_frame_counts_the_same_whatever_batch_it_is_in():
    pieces = music_task.training_stats([p | (np.arange(88) < 22) for p in PIECES], 1)
    assert pieces.frames == (2 + 8) / 2
    assert pieces.logit == pytest.approx(np.log(0.25 / 0.75))
    task = music_task.task_of(CONFIG, pieces)
    params = task.init(jax.random.key(0), _batch(9))
    for length in (3, 9):
        loss, measured = task.loss(params, _batch(length), jax.random.key(1))
        nats, frames = measured["nll"]
        assert frames == length - 1
        assert loss == pytest.approx(float(nats) / 5, rel=1e-6)
