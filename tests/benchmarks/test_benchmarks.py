"""Benchmarks: what is timed, and what is refused."""

import dataclasses
import functools
import time
from contextlib import ExitStack
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmark_case import TINY
from jax.experimental import rnn
from tiers import full

from benchmarks import (
    accelerator,
    baselines,
    data_feed,
    dense_scan,
    minimal,
    problem,
    records,
    saved_memory,
    timing,
    torch_client,
)
from benchmarks.case import Case
from benchmarks.timing import Entrant
from surnn_jax import scan

# Compiled whole: operation by operation, each shape takes dozens of programs.
run = jax.jit(scan.run, static_argnums=0)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _logits(unit, switch, x, features):
    return baselines.logits(unit, switch, x, features)


def logits(*args):
    return np.asarray(_logits(*args))


def test_a_race_takes_turns_and_times_what_is_under_way():
    calls = []

    def call(name, value):
        def run():
            calls.append(name)
            return jnp.full((3,), value)

        return run

    answers = {"a": call("a", 1.0), "b": call("b", 1.0005), "c": call("c", 1.0)}
    entrants = {
        name: Entrant(name, run, {}, ("a",), lambda: np.ones(3)) for name, run in answers.items()
    }
    ticks = []
    times, differences = timing.race(entrants, 40, tick=lambda: ticks.append(1))
    assert calls[:6] == ["a", "b", "c"] * 2
    rounds = [calls[i : i + 3] for i in range(6, len(calls), 3)]
    assert [sorted(order) for order in rounds] == [["a", "b", "c"]] * 40
    assert len({tuple(order) for order in rounds}) == 6  # every order; missed once in 1000 draws
    assert len(ticks) == len(calls) == 3 * 42
    assert [len(of) for of in times.values()] == [40] * 3
    assert min(min(of) for of in times.values()) > 0
    assert differences["a"] == 0
    assert differences["b"] == pytest.approx(5e-4, rel=1e-3)


def test_the_clock_waits_for_the_answer():
    class UnderWay:
        def block_until_ready(self):
            time.sleep(0.05)

    entrant = Entrant("slow", UnderWay, {}, read=lambda answer: ())
    times, _ = timing.race({"slow": entrant}, 2)
    assert min(times["slow"]) >= 50


@pytest.mark.parametrize("wrong", [1.01, np.nan])
def test_another_answer_is_refused_and_named(wrong):
    wanted = {"h": np.ones(4), "params": {"w": np.ones((2, 2))}}
    found = {"h": np.ones(4), "params": {"w": np.full((2, 2), wrong)}}
    calls = []

    def call():
        calls.append(1)
        return found

    with pytest.raises(ValueError, match=r"learned/rows computes.*\['params'\]\['w'\] differs"):
        timing.race({"learned/rows": Entrant("rows", call, {}, (), lambda: wanted)}, 3)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("schedule", "rhythms"), [full("neuron", 8), full("group", 1), ("4", 4), full("event", 8)]
)
def test_a_problem_counts_its_own_switches(schedule, rhythms):
    case = Case(8, 8, 100, 3, schedule, 0.2)
    frozen, learned, few = (problem.pose(case, name) for name in ("frozen", "learned", "share"))
    table = np.asarray(run(frozen.unit, frozen.params, frozen.x).update_mask)
    table = np.broadcast_to(table.reshape(100, -1, 8), (100, 8, 8))
    rate = frozen.facts["rate"]
    assert rate == pytest.approx(table.mean(), abs=1e-6)
    assert rate == pytest.approx(0.2, abs=0.025)  # two steps of 100
    assert frozen.facts["computed"] == rate
    # Where the gradient of the rate reaches a logit, it is nearly open.
    a = logits(learned.unit, learned.params["switch"], learned.x, 8)
    wanted = float((a > -0.25).mean())
    assert learned.facts["computed"] == pytest.approx(wanted, abs=1e-6)
    assert few.facts["computed"] == pytest.approx(rate + (wanted - rate) / 8, abs=1e-6)
    assert len({column.tobytes() for column in table.reshape(800, 8).T}) == rhythms
    jax.tree.map(np.testing.assert_array_equal, frozen.params, few.params)


def test_no_switch_hangs_on_rounding():
    posed = problem.pose(Case(32, 1, 1000, 3, "neuron", 0.1))
    a = logits(posed.unit, posed.params["switch"], posed.x, 32)
    # Of 32000 logits, spread over about 3, one lies within 1e-4 of any place but for this.
    assert np.abs(a).min() > 5e-4
    assert posed.facts["rate"] == pytest.approx(0.1, abs=0.003)


@pytest.mark.parametrize("schedule", ["neuron", full("event")])
def test_at_rate_1_everything_is_open_and_nothing_nearly_so(schedule):
    posed = problem.pose(Case(8, 4, 50, 3, schedule, 1.0), "learned")
    a = logits(posed.unit, posed.params["switch"], posed.x, 8)
    assert a.min() > 0.25
    assert posed.facts["rate"] == posed.facts["computed"] == 1.0


def test_what_hands_its_work_on_is_not_timed_under_its_name():
    event = problem.unit(Case(8, 4, 50, 3, "event", 0.2), "frozen")
    rhythm = problem.unit(Case(8, 4, 50, 3, "neuron", 0.2), "frozen")
    minimal = problem.unit(Case(8, 4, 50, 3, "neuron", 0.2, "min_gru"), "frozen")
    assert problem.supports("rows", rhythm, TINY)
    assert not problem.supports("rows", event, TINY)
    assert not problem.supports("rows", problem.unit(TINY, "frozen"), TINY)
    assert not problem.supports("native", minimal, TINY)
    assert all(problem.supports("compact", unit, TINY) for unit in (event, rhythm, minimal))


@pytest.mark.full
def test_the_linear_baselines_agree_with_a_loop():
    case = Case(4, 2, 9, 3, "neuron", 0.4, "min_gru")
    posed = problem.pose(case)
    cell = jax.tree.map(np.asarray, posed.params["cell"])
    open_ = np.asarray(run(posed.unit, posed.params, posed.x).update_mask) > 0
    assert 0 < open_.mean() < 1
    h, wanted = np.zeros((2, 4)), []
    for x, g in zip(np.asarray(posed.x), open_, strict=True):
        move = 1 / (1 + np.exp(-(x @ cell["input"]["z"] + cell["vector"]["b_z"])))
        new = (1 - move) * h + move * (x @ cell["input"]["n"] + cell["vector"]["b_n"])
        h = np.where(g, new, h)
        wanted.append(h)
    for baseline in (baselines.associative_scan, baselines.where_scan):
        found = jax.jit(baseline, static_argnums=0)(posed.unit, posed.params, posed.x)
        # float32, nine steps
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.full
def test_minimal_is_raced_against_both():
    entrants = minimal.make_entrants(
        Case(4, 2, 9, 3, "neuron", 0.4, "min_gru"), ["native", "masked"]
    )
    assert list(entrants) == ["associative_scan", "where in lax.scan", "masked"]
    _, differences = timing.race(entrants, 1)
    assert 0 < max(differences.values()) < 1e-5


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
def test_torch_computes_the_same_in_its_own_process():
    with ExitStack() as stack:
        entrants = dense_scan.make_entrants(TINY, ["masked"], stack, 1)
        assert list(entrants) == ["flax.linen.RNN", "torch.nn.GRU", "masked"]
        _, differences = timing.race(entrants, 1)
    assert 0 < differences["torch.nn.GRU"] < 1e-5
    assert 0 < differences["masked"] < 1e-5


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
def test_torch_computes_our_lstm():
    posed = problem.pose(dataclasses.replace(TINY, cell="lstm"))
    with torch_client.Torch(posed, threads=1) as other:
        other.step()
        wanted = problem.step(problem.ours(posed.unit, "masked"), posed)()
        assert timing.agree("torch", other.answer(None), wanted) < 1e-5


def test_parameters_as_cudnn_wants_them():
    posed = problem.pose(dataclasses.replace(TINY, cell="lstm"))
    flat = baselines.for_cudnn(posed.params["cell"])
    sizes = TINY.inputs, TINY.features
    assert flat.shape == (rnn.get_num_params_in_lstm(*sizes, 1, False),)
    parts = rnn.unpack_lstm_weights(flat, *sizes, 1, False)
    rest = jnp.zeros((1, TINY.batch, TINY.features))
    lengths = jnp.full((TINY.batch,), TINY.steps, jnp.int32)
    rows = jnp.swapaxes(posed.x, 0, 1)
    found = rnn.lstm_ref(rows, rest, rest, *parts, lengths, *sizes, 1, 0.0, False)[0]
    wanted = run(posed.unit, posed.params, posed.x).outputs
    np.testing.assert_allclose(jnp.swapaxes(found, 0, 1), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.full
def test_kernels_are_raced_on_what_is_there():
    case = Case(8, 4, 24, 3, "group", 0.2, "gru")
    with ExitStack() as stack:
        entrants = accelerator.make_entrants(case, ["pallas", "masked"], "float32", stack)
    assert list(entrants) == ["lax.scan", "pallas", "masked"]
    times, differences = timing.race(entrants, 1)
    assert 0 < differences["pallas"] < 1e-5
    facts = entrants["pallas"].facts
    assert 0 < facts["busy"] < 24
    np.testing.assert_allclose(facts["rate"], facts["busy"] / 24, rtol=1e-6)  # one group
    line = records.timed("accelerator", case, entrants, times, differences)[1]
    told = accelerator.shares({**line, "milliseconds": 2.0}, (1e9, 1e8))
    assert told["microseconds_per_busy_step"] == 2000 / facts["busy"]
    products = 6 * 4 * facts["busy"] * 3 * 8 * (8 + 3)  # three gates, forward and twice backward
    np.testing.assert_allclose(told["product_share"], products / 2e-3 / 1e9)
    np.testing.assert_allclose(told["memory_share"], 4 * 96 * (2 * 8 + 2 * 3) / 2e-3 / 1e8)


def test_ceilings_are_measured():
    product, memory = accelerator.ceilings("float32", rounds=2)
    assert 1e8 < product < 1e13
    assert 1e7 < memory < 1e12


def test_bytes_are_counted_once_and_arguments_are_free():
    x = np.arange(6.0)
    leaves = [x, x.reshape(2, 3), np.ones(4), np.ones(4), np.ones(4, np.float32), np.zeros(2)]
    assert saved_memory.counted(leaves, [np.arange(6.0)]) == 32 + 16 + 16


@pytest.mark.full
@pytest.mark.parametrize("backend", ["masked", full("pallas")])
def test_a_dense_scan_keeps_more_for_its_backward_pass(backend):
    case = Case(8, 8, 24, 3, "neuron", 0.2)
    posed = problem.pose(case)
    plain = problem.theirs(baselines.masked_scan, posed.unit)
    base = saved_memory.measure(plain, posed, "outputs")
    ours = saved_memory.measure(problem.ours(posed.unit, backend), posed, "outputs")
    saved_memory.agree(backend, ours, base)
    states = 24 * 8 * 8 * 4
    assert ours.kept >= states  # its own states are all that it stores, ...
    assert ours.kept < 1.5 * states
    assert base.kept > 4 * states  # ... autodiff keeps gates and products as well


@pytest.mark.parametrize("feed", ["listops", "images", "stream"])
def test_a_feed_is_timed_over_batches_from_the_disk(tmp_path, feed):
    split = data_feed.written(tmp_path / "split", feed, 5000 if feed == "stream" else 20, 0)
    assert (tmp_path / "split" / "train" / "x.npy").stat().st_size > 5000
    make, epoch = data_feed.batches(feed, split, 4, 0)
    calls = []

    def slowly(step):
        calls.append(step)
        time.sleep(0.002)
        return make(step)

    times = data_feed.feed_times(slowly, epoch, 3)
    assert calls == list(range(3 * epoch))
    assert len(times) == 3
    assert min(times) > 0.002
    steps = {make(step)["x"].shape for step in calls}
    if feed == "listops":
        assert all(b == 4 and 501 <= t < 2000 for b, t in steps)
    else:
        assert steps == {(4, 1024) if feed == "images" else (4, 150)}
