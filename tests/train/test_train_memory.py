"""Tasks that carry a state from batch to batch: what they see, and that it survives a restart."""

import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from train_case import TASK, batch, digest, evaluation, fit

from surnn_jax import train
from surnn_jax.train.signals import Interrupted


def seen(example):
    """A number that tells batches apart."""
    return jnp.sum(example["x"])


def begin(params, example):
    return {"sum": jnp.zeros(()), "batches": jnp.zeros((), jnp.int32)}


def after(memory, example):
    return {"sum": 0.5 * memory["sum"] + seen(example), "batches": memory["batches"] + 1}


def loss(params, example, key, memory):
    value, measured = TASK.loss(params, example, key)
    one = jnp.ones(())
    told = {"before": (memory["sum"], one), "count": (memory["batches"].astype(jnp.float32), one)}
    # The memory must matter for the parameters, or a lost one would not be seen.
    value = value * (1 + 0.1 * jnp.tanh(memory["sum"]))
    return value, ({**measured, **told}, after(memory, example))


def evaluate(params, example, memory):
    measured = TASK.evaluate(params, example)
    return {**measured, "before": (memory["sum"], jnp.ones(()))}, after(memory, example)


REMEMBERS = train.Task(TASK.init, loss, evaluate, begin)


def sums(examples):
    total, found = 0.0, []
    for example in examples:
        found.append(total)
        total = 0.5 * total + float(seen(example))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("memory"), task=REMEMBERS, save_seconds=1e9)


def test_each_batch_is_told_what_the_one_before_left(whole):
    training = sums(batch(step) for step in range(24))
    for epoch, line in enumerate(whole.history):
        steps = slice(6 * epoch, 6 * (epoch + 1))
        np.testing.assert_allclose(line["train/before"], np.mean(training[steps]), rtol=1e-5)
        assert line["train/count"] == np.mean(range(24)[steps])  # epochs do not begin anew


def test_every_evaluation_begins_anew(whole):
    expected = np.mean(sums(evaluation()))
    for line in whole.history:
        np.testing.assert_allclose(line["valid/before"], expected, rtol=1e-5)
    again = train.score(REMEMBERS, whole.params, evaluation())
    np.testing.assert_allclose(again["before"], expected, rtol=1e-5)


def test_a_stopped_run_goes_on_with_its_memory(whole, tmp_path):
    def asked(step):
        if step == 9 and not (tmp_path / "told").exists():
            (tmp_path / "told").touch()
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(step)

    with pytest.raises(Interrupted):
        fit(tmp_path / "run", task=REMEMBERS, save_seconds=1e9, batches=asked)
    done = fit(tmp_path / "run", task=REMEMBERS, save_seconds=1e9, batches=asked)
    assert digest((done.params, done.last_params)) == digest((whole.params, whole.last_params))


@pytest.mark.parametrize("part", ["loss", "evaluate"])
def test_a_memory_that_would_not_fit_its_checkpoint_is_refused_before_it_trains(part, tmp_path):
    def grows(memory):
        return {**memory, "batches": memory["batches"][None]}

    def longer(*args):
        value, (measured, memory) = loss(*args)
        return value, (measured, grows(memory))

    def further(*args):
        measured, memory = evaluate(*args)
        return measured, grows(memory)

    task = REMEMBERS._replace(**{part: {"loss": longer, "evaluate": further}[part]})
    with pytest.raises(ValueError, match="the memory must keep its shapes") as caught:
        fit(tmp_path, task=task)
    assert str(caught.value) == (
        f"Task.{part}: the memory must keep its shapes and dtypes; batches was int32[] and became "
        "int32[1]"
    )
    assert not (tmp_path / "checkpoints").exists()
