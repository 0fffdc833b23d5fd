"""What seldom decides a run: ties of the metric, clocks, overflows, tiny gradients."""

import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from train_case import TASK, batch, fit

from surnn_jax import train

NEVER = 1e9


def test_of_equal_epochs_the_first_is_the_best_and_patience_runs_on(tmp_path):
    task = TASK._replace(evaluate=lambda params, example: {"mse": (jnp.ones(()), jnp.ones(()))})
    done = fit(tmp_path, task=task, patience=2, save_seconds=NEVER)
    assert done.best_epoch == 1
    assert [line["epoch"] for line in done.history] == [1, 2, 3]


def test_the_seconds_of_a_run_are_those_of_all_its_resumptions(tmp_path):
    def slow(step):
        time.sleep(2 * (step == 1))
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(step)

    with pytest.raises(train.Interrupted):
        fit(tmp_path, batches=slow, save_seconds=NEVER)
    start = time.perf_counter()
    done = fit(tmp_path, save_seconds=NEVER)
    assert done.seconds > time.perf_counter() - start


def test_when_to_save_does_not_go_by_the_time_of_day(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e9)
    fit(tmp_path, save_seconds=1e-6, max_epochs=1)
    steps = sorted(int(folder.name) for folder in (tmp_path / "checkpoints").iterdir())
    assert steps[0] > 0  # Not only before the first step and after the last.


def test_promise_8_a_step_that_makes_parameters_overflow_is_not_taken(tmp_path):
    task = train.Task(
        init=lambda key, example: {"w": jnp.zeros(())},  # then 3e38, then infinity
        loss=lambda params, example, key: (jax.lax.stop_gradient(params["w"]) - params["w"], {}),
        evaluate=lambda params, example: {"zero": (jnp.zeros(()), jnp.ones(()))},
    )
    done = fit(
        tmp_path,
        task=task,
        optimizer=optax.sgd(3e38),
        monitor="zero",
        max_epochs=1,
        steps_per_epoch=2,
        skip_nonfinite=1,
    )
    assert float(done.last_params["w"]) == np.float32(3e38)


def test_an_update_takes_the_mean_of_the_gradients_of_its_batches():
    """Adam hides the scale of a gradient but for its epsilon, 1e-8."""
    params = {"w": jnp.ones(3)}
    gradient = {"w": jnp.full((3,), 1e-8)}
    steps = []
    for accumulate in (1, 2):
        rule = train.make_optimizer(train.OptimizerConfig("adam", 0.1, accumulate=accumulate))
        state = rule.init(params)
        for _ in range(accumulate):
            with jax.numpy_dtype_promotion("standard"):
                update, state = jax.jit(rule.update)(gradient, state, params)
        steps.append(update["w"])
    np.testing.assert_allclose(*steps, rtol=1e-4)
    assert (steps[0] != 0).all()


def test_a_finished_run_trains_on_with_more_epochs(tmp_path):
    whole = fit(tmp_path / "whole", max_epochs=3, save_seconds=NEVER)
    fit(tmp_path / "longer", max_epochs=2, save_seconds=NEVER)
    longer = fit(tmp_path / "longer", max_epochs=3, save_seconds=NEVER)
    assert longer.history == whole.history
    for one, other in zip(*map(jax.tree.leaves, (longer.params, whole.params)), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"max_epochs=3, not 2"):
        fit(tmp_path / "longer", max_epochs=2)


def test_a_metric_that_is_a_plain_number_is_told_what_it_should_be(tmp_path):
    task = TASK._replace(evaluate=lambda params, batch: {"mse": jnp.ones(())})
    with pytest.raises(ValueError, match=r"metric 'mse' must be a pair \(sum, weight\)"):
        fit(tmp_path, task=task)


def test_auto_without_a_cluster_says_what_to_do(monkeypatch):
    def initialize():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"auto finds no cluster .* leave it out for one process"):
        train.initialize_distributed("auto")
