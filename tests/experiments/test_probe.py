"""Whether switches learn when, and what an experiment's loss does to keep them open."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from tiers import full

from experiments import evaluate, music, speech
from experiments.analysis import gates
from experiments.runner import launch
from experiments.runner.config import identity
from experiments.runner.experiment import BALANCE_RATE, training_settings
from experiments.runner.flags import LaunchOptions
from experiments.tasks import registry
from experiments.tasks.sequence.config import Config
from experiments.tasks.sequence.figures import events_of


def test_rare_neurons_are_those_below_one_percent():
    table = np.zeros((2, 100, 4), bool)
    table[0, 3, 1] = True  # 1 of 200 steps
    table[:, 7, 2] = True  # 2 of 200: not rare
    table[:, :, 3] = True
    found = gates.update_rate(table)
    assert (found.dead, found.rare, found.always) == (1 / 4, 2 / 4, 1 / 4)
    assert gates.summary(table)["rare"] == 0.5


def test_agreement_is_the_correlation_of_open_shares():
    random = np.random.default_rng(0)
    drive = random.random((3, 40, 1))
    one, two = (drive + random.random((3, 40, size)) > 1.2 for size in (5, 9))
    lengths = np.array([40, 0, 13])
    inside = np.arange(40) < lengths[:, None]
    first, second = one.mean(-1)[inside], two.mean(-1)[inside]
    a, b = first - first.mean(), second - second.mean()
    wanted = (a @ b) / math.sqrt((a @ a) * (b @ b))
    assert wanted > 0.3
    assert gates.agreement(one, two, lengths) == pytest.approx(wanted)
    assert gates.agreement(one, one[..., ::-1], lengths) == pytest.approx(1)
    assert math.isnan(gates.agreement(one, np.ones_like(two), lengths))
    # Neurons that do not follow the drive know nothing of each other.
    strangers = random.random((2, 3, 4000, 6)) > 0.5
    assert abs(gates.agreement(*strangers)) < 0.05


def test_tables_of_other_examples_are_refused():
    one, two = np.ones((2, 5, 3), bool), np.ones((2, 6, 3), bool)
    with pytest.raises(ValueError, match=r"\[2, 5, 3\] and \[2, 6, 3\] are not of the same"):
        gates.agreement(one, two)


@pytest.mark.parametrize(
    ("dataset", "text", "wanted"),
    [
        ("imdb_bytes", [[66, 33, 98, 33, 0]], [[0, 1, 0, 1, 0]]),  # "A a " and padding
        ("listops_short", [[11, 3, 14, 10, 15, 0]], [[1, 0, 1, 0, 1, 0]]),  # [MIN 2 [SM 9 ]
        ("cifar10_gray", [[1, 2]], None),
    ],
)
def test_known_events(dataset, text, wanted):
    found = events_of(dataset, {"x": np.array(text)})
    assert (found is None) == (wanted is None)
    if wanted is not None:
        np.testing.assert_array_equal(found, np.array(wanted, bool))


SMALL = Config(
    "adding", layers="sugru", features=8, bare=True, encoder="raw", steps=24, switch="event",
    rate=0.3, batch_size=8, examples=16, evaluated=16, max_epochs=1,
)  # fmt: skip


@pytest.mark.full
def test_seeds_are_compared(tmp_path, capsys):
    experiment = registry.load("synthetic")
    for number, config in enumerate((SMALL, dataclasses.replace(SMALL, seed=1))):
        prepared = experiment.prepare(config, None)
        options = LaunchOptions(command="made by a test")
        launch.train_run("synthetic", config, prepared, tmp_path / str(number), options)
    run = registry.restore(tmp_path / "0", None)
    evaluate.compare(run, tmp_path / "1", tmp_path / "0", None)
    inside = json.loads((tmp_path / "0" / "inside.json").read_text())
    assert -1 <= inside["layer 1"]["agreement"] < 1
    assert f"{inside['layer 1']['agreement']:.3f}" in capsys.readouterr().out
    evaluate.compare(run, tmp_path / "0", tmp_path / "0", None)
    inside = json.loads((tmp_path / "0" / "inside.json").read_text())
    assert inside["layer 1"]["agreement"] == pytest.approx(1)
    other = run._replace(config=dataclasses.replace(SMALL, rate=0.2))
    with pytest.raises(ValueError, match="differs in more than its seed"):
        evaluate.compare(other, tmp_path / "1", None, None)


def _music(config):
    from experiments.tasks.music import task

    random = np.random.default_rng(0)
    x = (random.random((2, 12, 88)) < 0.1).astype(np.float32)
    pieces = task.TrainingStats(-2.0, 20.0)
    batch = {"x": x, "lengths": np.array([12, 7], np.int32), "index": np.arange(2)}
    return task.task_of(config, task.model_of(config), pieces), batch


def _speech(config):
    from experiments.tasks.speech import task
    from experiments.tasks.speech.data import Normalization

    x = np.random.default_rng(0).integers(-2000, 2000, (2, 120)).astype(np.int16)
    scale = Normalization(0.0, 1000.0)
    return task.task_of(config, task.model_of(config), scale), {"x": x, "index": np.arange(2)}


def _sequence(config):
    from experiments.tasks.sequence import data, task

    spec = data.dummy_spec(config)
    batch = {
        "x": np.random.default_rng(0).random((2, 24, 2)).astype(np.float32),
        "y": np.zeros((2, 1, 1), np.float32),
        "index": np.arange(2),
    }
    return task.task_of(config, task.model_of(config, spec), spec), batch


KEY = jax.random.key(1)
ONE = {"switch": "event", "features": 6, "rate": 0.3}


@pytest.mark.full
@pytest.mark.parametrize(
    ("make", "config"),
    [
        (_music, music.Config("jsb", **ONE)),
        full(_speech, speech.Config("fsdd", **ONE)),
        full(_sequence, dataclasses.replace(SMALL, features=6)),
    ],
    ids=["music", "speech", "sequence"],
)
def test_losses_balance_the_switch_that_the_configuration_asks_for(make, config):
    """The loss keeps its value; by `target` a bias gets the homeostat's gradient alone."""
    found = {}
    for balance in ("none", "target"):
        task, batch = make(dataclasses.replace(config, balance=balance))
        params = jax.jit(task.init)(jax.random.key(0), batch)

        def shut(path, leaf):
            bias = path[-1].key == "b" and path[-2].key == "switch"
            return leaf - 50.0 if bias else leaf

        params = jax.tree_util.tree_map_with_path(shut, params)
        loss = jax.jit(jax.value_and_grad(lambda p, t=task, b=batch: t.loss(p, b, KEY)[0]))
        value, slope = loss(params)
        leaves = jax.tree_util.tree_leaves_with_path(slope)
        (bias,) = [
            leaf for path, leaf in leaves if path[-1].key == "b" and path[-2].key == "switch"
        ]
        found[balance] = float(value), np.asarray(bias)
    assert found["none"][0] == found["target"][0]
    # Nothing is open: no gradient through the window, and every bias is to rise.
    assert not found["none"][1].any()
    assert (found["target"][1] < 0).all()


@pytest.mark.parametrize(("frozen", "rate"), [(False, BALANCE_RATE), (True, None)])
def test_the_optimizer_is_told_of_the_homeostat(frozen, rate):
    config = dataclasses.replace(SMALL, balance="target", frozen=frozen)
    assert training_settings(config, "mse", 10)[1].balance_rate == rate
    for balance in ("none", "floor"):
        other = dataclasses.replace(config, balance=balance)
        assert training_settings(other, "mse", 10)[1].balance_rate is None


def test_a_run_begun_before_switches_were_balanced_knows_its_folder():
    later = ("balance", "skip", "own", "split_seed", "tokenizer")
    before = {n: value for n, value in dataclasses.asdict(SMALL).items() if n not in later}
    assert identity(SMALL) == before
    assert identity(dataclasses.replace(SMALL, balance="floor")) == {**before, "balance": "floor"}
