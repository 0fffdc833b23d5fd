"""The loop in one process: resumption, signals, bad numbers, early stopping, compilations."""

import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiers import full
from train_case import CONFIG, OPTIMIZER, STEPS, TASK, batch, digest, evaluation, fit

from surnn_jax import train
from surnn_jax.train import checkpoint, monitoring
from surnn_jax.train.files import read_lines

NEVER = 1e9  # save_seconds: only at the start and the end


def sealed(workdir):
    """The steps of all whole checkpoints."""
    folders = (workdir / "checkpoints").iterdir()
    return sorted(int(f.name) for f in folders if (f / checkpoint.MANIFEST).is_file())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbs."""
    workdir = tmp_path_factory.mktemp("whole")
    done = fit(workdir, save_seconds=NEVER)
    assert read_lines(workdir / "metrics.jsonl") == done.history
    return done


def same(done, other):
    """Whether two runs end with the same bits, in the best and in the last parameters."""
    return digest((done.params, done.last_params)) == digest((other.params, other.last_params))


def test_metrics_and_parameters_are_those_of_a_plain_loop(whole):
    init_key, key = jax.random.split(jax.random.key(0))
    params = TASK.init(init_key, batch(0))
    state = OPTIMIZER.init(params)
    gradient = jax.jit(jax.value_and_grad(TASK.loss, has_aux=True))
    update, evaluate = jax.jit(OPTIMIZER.update), jax.jit(TASK.evaluate)
    history, kept, pairs = [], [], []
    for step in range(4 * STEPS):
        (_, measured), grads = gradient(params, batch(step), jax.random.fold_in(key, step))
        with jax.numpy_dtype_promotion("standard"):
            updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        pairs.append(np.array(measured["mse"]))
        if (step + 1) % STEPS == 0:
            valid = sum(np.array(evaluate(params, example)["mse"]) for example in evaluation())
            trained = sum(pairs[-STEPS:])
            history.append((trained[0] / trained[1], valid[0] / valid[1]))
            kept.append(params)
    found = [(line["train/mse"], line["valid/mse"]) for line in whole.history]
    # One compiled step and many small ones round differently.
    np.testing.assert_allclose(found, history, rtol=1e-4)
    best = np.argmin([value for _, value in history])
    assert whole.best_epoch == best + 1
    assert whole.best_value == found[best][1]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, whole.params, kept[best])
    jax.tree.map(close, whole.last_params, params)
    assert whole.steps == 4 * STEPS


def test_best_epoch_is_not_the_last_and_patience_ends_the_run(tmp_path):
    # The validation metric is what the parameters have drifted to: it falls, then rises.
    task = train.Task(
        init=lambda key, example: {"w": jnp.zeros(())},
        loss=lambda params, example, key: (-params["w"], {}),
        evaluate=lambda params, example: {"far": (jnp.abs(params["w"] - 3.0), jnp.ones(()))},
    )
    done = fit(
        tmp_path,
        task=task,
        optimizer=optax.sgd(1.0),
        steps_per_epoch=1,
        monitor="far",
        max_epochs=20,
        patience=2,
    )
    assert [line["valid/far"] for line in done.history] == [2.0, 1.0, 0.0, 1.0, 2.0]
    assert (done.best_epoch, done.best_value) == (3, 0.0)
    assert float(done.params["w"]) == 3.0
    assert float(done.last_params["w"]) == 5.0
    # The best parameters outlive the process, and a finished run does nothing.
    again = fit(
        tmp_path,
        task=task._replace(loss=None),
        optimizer=optax.sgd(1.0),
        steps_per_epoch=1,
        monitor="far",
        max_epochs=20,
        patience=2,
    )
    assert digest(again.params) == digest(done.params)
    assert again[2:] == done[2:]


@pytest.mark.parametrize("stop", [3, 2 * STEPS])
def test_promise_6_sigterm_in_a_step_saves_and_leaves_within_that_step(tmp_path, whole, stop):
    def told(step):
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert step <= stop, "went on after the signal"
        return batch(step)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(train.Interrupted) as caught:
        fit(tmp_path, batches=told, save_seconds=NEVER)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert sealed(tmp_path) == [0, stop + 1]

    again = fit(tmp_path, save_seconds=NEVER)
    assert same(again, whole)


@pytest.mark.parametrize("epoch", [1, 4])
def test_promise_6_sigint_in_validation_leaves_within_that_batch(tmp_path, whole, epoch):
    calls = []

    def told():
        calls.append(0)
        for example in evaluation():
            calls[-1] += 1
            # The first call only looks at the shape of a batch.
            if len(calls) == epoch + 1 and calls[-1] == 2:
                os.kill(os.getpid(), signal.SIGINT)
            yield example

    with pytest.raises(train.Interrupted) as caught:
        fit(tmp_path, evaluation=told, save_seconds=NEVER)
    assert caught.value.code == 130
    assert calls[-1] == 2
    assert sealed(tmp_path) == [0, epoch * STEPS]
    assert len(read_lines(tmp_path / "metrics.jsonl")) == epoch - 1

    again = fit(tmp_path, save_seconds=NEVER)
    assert same(again, whole)
    # What the last validation found is on the disk, though its step was saved before.
    third = fit(tmp_path, save_seconds=NEVER, batches=lambda step: batch(0))
    assert third[2:] == again[2:]
    assert digest(third.params) == digest(whole.params)


def _poisoned(step):
    example = batch(step)
    if step >= 15:
        example["x"] = example["x"] * np.float32(np.nan)
    return example


@pytest.mark.parametrize("save_seconds", [0.0, full(NEVER)])
def test_promise_8_a_loss_that_is_not_finite_stops_and_is_not_saved(tmp_path, whole, save_seconds):
    with pytest.raises(FloatingPointError, match=r"^step 15 \(epoch 3\): loss nan") as caught:
        fit(tmp_path, batches=_poisoned, save_seconds=save_seconds)
    assert "\n" not in str(caught.value)
    [line] = read_lines(tmp_path / "nonfinite.jsonl")
    assert (line["step"], line["epoch"], line["loss"]) == (15, 3, "nan")
    assert line["sha256"][:12] in str(caught.value)
    steps = sealed(tmp_path)
    assert steps == ([14, 15] if save_seconds == 0 else [0])
    # Lines of epochs that no checkpoint holds, and one cut short, are written anew.
    assert len(read_lines(tmp_path / "metrics.jsonl")) == 2
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "st')
    assert same(fit(tmp_path, save_seconds=NEVER), whole)
    assert [line["epoch"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def _missing_steps(*left_out):
    """The run's batches where those are not there: the optimizer never hears of them."""
    state = train.step.init_state(TASK, OPTIMIZER, jax.random.split(jax.random.key(0))[0], batch(0))
    key = jax.random.split(jax.random.key(0))[1]
    for number in range(4 * STEPS):
        if number in left_out:
            state = state._replace(step=state.step + 1)
        else:
            state, _ = train.step.train_step(TASK, OPTIMIZER, key, state, batch(number))
    return state.params


def test_promise_8_steps_that_are_not_finite_can_be_skipped_up_to_a_limit(tmp_path):
    def poisoned(number):
        example = batch(number)
        if number in (3, 15):
            example["x"] = example["x"] * np.float32(np.inf)
            example["index"] = np.array([number, 7, 8, 9], np.int32)
        else:
            example["index"] = np.arange(4, dtype=np.int32)
        return example

    def stops(number):
        if number == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        return poisoned(number)

    task = TASK._replace(
        loss=lambda params, b, key: TASK.loss(params, b, key),
        init=lambda key, example: TASK.init(key, example),
    )
    arguments = {"task": task, "save_seconds": NEVER}
    folder = tmp_path / "two"
    with pytest.raises(train.Interrupted):
        fit(folder, batches=stops, skip_nonfinite=2, **arguments)
    done = fit(folder, batches=poisoned, skip_nonfinite=2, **arguments)
    # The program that may skip is another one, and rounds as it likes.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, done.last_params, _missing_steps(3, 15))
    lines = read_lines(folder / "nonfinite.jsonl")
    assert [(line["step"], line["epoch"], line["index"][0]) for line in lines] == [
        (3, 1, 3),
        (15, 3, 15),
    ]
    assert all(line["loss"] == "nan" and len(line["sha256"]) == 64 for line in lines)
    assert lines[0]["sha256"] != lines[1]["sha256"]
    assert [line["skipped"] for line in done.history] == [1, 1, 2, 2]

    folder = tmp_path / "one"
    with pytest.raises(FloatingPointError, match=r"^step 15 .*; 1 such steps were skipped before"):
        fit(folder, batches=poisoned, skip_nonfinite=1, **arguments)
    assert [line["step"] for line in read_lines(folder / "nonfinite.jsonl")] == [3, 15]


def test_promise_8_parameters_that_overflow_are_not_saved(tmp_path):
    # Loss and gradient of the last step are finite; only the parameters it leads to are not.
    task = train.Task(
        init=lambda key, example: {"w": jnp.full((), 3e38)},
        loss=lambda params, example, key: (jax.lax.stop_gradient(params["w"]) - params["w"], {}),
        evaluate=lambda params, example: {"zero": (jnp.zeros(()), jnp.ones(()))},
    )
    arguments = {"task": task, "optimizer": optax.sgd(3e38), "monitor": "zero", "max_epochs": 1}
    with pytest.raises(FloatingPointError, match=r"^step 1: a parameter is not finite"):
        fit(tmp_path, steps_per_epoch=1, **arguments)
    assert sealed(tmp_path) == [0]


def test_a_validation_that_is_not_finite_stops_the_run(tmp_path):
    task = TASK._replace(evaluate=lambda params, b: {"mse": (jnp.full((), jnp.nan), jnp.ones(()))})
    with pytest.raises(FloatingPointError, match=r"^epoch 1 \(step 6\): metric valid/mse is nan"):
        fit(tmp_path, task=task, save_seconds=NEVER)
    assert sealed(tmp_path) == [0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"config": CONFIG | {"cell": "gru"}}, "cell='tanh', not 'gru'"),
        ({"config": CONFIG | {"optimiser": {"rate": 0.02}}}, "optimiser.rate=0.01, not 0.02"),
        ({"config": {"cell": "tanh"}}, "features=8, which is not given now"),
        ({"config": CONFIG | {"layers": 2}}, "no layers, which is 2 now"),
        ({"seed": 1}, "seed=0, not 1"),
        ({"patience": 3}, "patience=None, not 3"),
        ({"steps_per_epoch": 5}, "steps_per_epoch=6, not 5"),
    ],
)
def test_promise_9_a_workdir_of_another_configuration_is_refused(tmp_path_factory, changes, named):
    workdir = tmp_path_factory.getbasetemp() / "promise_9"
    if not workdir.exists():
        fit(workdir, max_epochs=1, save_seconds=NEVER)
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="give another workdir") as caught:
        fit(workdir, **{"max_epochs": 1, **changes})
    assert named in str(caught.value)
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_promise_10_one_compilation_per_shape_also_after_a_resumption(tmp_path):
    traced = []

    def squares(params, example):
        error = example["x"].sum((1, 2)) - params["b"][None]
        return jnp.sum(error**2)

    def loss(params, example, key):
        traced.append(("loss", example["x"].shape))
        return squares(params, example), {}

    def evaluate(params, example):
        traced.append(("evaluate", example["x"].shape))
        return {"mse": (squares(params, example), jnp.ones(()))}

    def init(key, example):
        return {"b": jnp.zeros(())}

    def two_shapes(step):
        example = batch(step)
        return {**example, "x": example["x"][:, : 5 + step % 2]}

    def stopping(step):
        if step == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return two_shapes(step)

    def fresh_process(**arguments):
        traced.clear()
        # Functions that JAX has not met: forgetting all programs of this process takes seconds.
        task = train.Task(*map(functools.partial, (init, loss, evaluate)))
        return fit(tmp_path, task=task, save_seconds=NEVER, **arguments)

    once = sorted([("loss", (4, 5, 3)), ("loss", (4, 6, 3)), ("evaluate", (4, 6, 3))])
    with pytest.raises(train.Interrupted):
        fresh_process(batches=stopping)
    assert sorted(traced) == once
    fresh_process(batches=two_shapes)
    assert sorted(traced) == once


def test_two_runs_in_one_workdir_are_refused(tmp_path):
    def second(step):
        if step == 2:
            with pytest.raises(BlockingIOError, match="another process trains there"):
                fit(tmp_path)
        return batch(step)

    fit(tmp_path, batches=second, save_seconds=NEVER, max_epochs=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_epochs": 0}, "max_epochs must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"save_seconds": float("nan")}, "save_seconds must not be negative"),
        ({"skip_nonfinite": -1}, "skip_nonfinite must not be negative, got -1"),
        ({"restore": "newest"}, "restore: no 'newest'; there are latest, latest_good"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be at least 1"),
        ({"monitor": "nll"}, "monitor: no metric 'nll'; there are mse"),
        ({"evaluation": list}, "evaluation() gives no batch"),
        ({"config": {"rate": float("nan")}}, "not JSON compliant"),
    ],
)
def test_bad_settings_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        fit(tmp_path, **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "checkpoints").exists()


def test_a_metric_may_not_take_the_trainers_names(tmp_path):
    def loss(params, example, key):
        return TASK.loss(params, example, key)[0], {"grad_norm": (jnp.ones(()), jnp.ones(()))}

    with pytest.raises(ValueError, match="grad_norm"):
        fit(tmp_path, task=TASK._replace(loss=loss))


def test_metrics_without_a_checkpoint_are_not_overwritten(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(ValueError, match="give another workdir"):
        fit(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1}\n'


def test_compiling_is_said_before_anything_is_compiled(tmp_path, capsys):
    """Also before the parameters are made, which takes as long as a step."""

    def init(key, batch):
        said.append(capsys.readouterr().err)
        return TASK.init(key, batch)

    said = []
    fit(tmp_path, task=TASK._replace(init=init), max_epochs=1, save_seconds=NEVER)
    assert said[0].startswith("compiling: ")
    assert "compiling" not in capsys.readouterr().err  # Once.
    fit(tmp_path, task=TASK, max_epochs=2, save_seconds=NEVER)
    again = capsys.readouterr().err.splitlines()
    assert again[0].startswith("resuming from step ")
    assert again[1].startswith("compiling: ")


def test_what_is_shown_while_it_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(monitoring, "_LINE_SECONDS", 0.0)
    fit(tmp_path, save_seconds=NEVER, max_epochs=1)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("compiling: ")
    assert lines[1].startswith("step 1/6 ")
    for word in ("steps/s", "loss=", "valid/mse=", "update_rate=0.5"):
        assert word in lines[-1]
    speed = json.loads((tmp_path / "speed.jsonl").read_text())
    assert speed["steps_per_second"] > 0
    assert 0 < speed["input_share"] < 1
    assert speed["seconds"] > 6 / speed["steps_per_second"] - 0.01
    assert 2**24 < speed["peak_bytes"] < 2**36
