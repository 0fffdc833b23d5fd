"""Benchmarks: what is timed, what is refused, and what is made of the records."""

import dataclasses
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

from benchmarks import (
    accelerator,
    baselines,
    data_feed,
    dense_scan,
    floors,
    held,
    plot,
    problem,
    records,
    residuals,
    timing,
    torch_client,
)
from benchmarks.case import Case
from benchmarks.timing import Entrant
from surnn_jax import scan

ROOT = Path(timing.__file__).parents[1]
TINY = Case(features=8, batch=8, steps=24, inputs=3)


def python(*arguments):
    """Runs Python at the root."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def record(**changes):
    """A record of `native` at 10 %, per neuron, at the size of the floors."""
    fields = {
        "benchmark": "skip_scan",
        "backend": "native",
        "schedule": "neuron",
        "switch": "frozen",
        "rate": 0.101,
        "computed": 0.101,
        "asked": 0.1,
        "features": 256,
        "batch": 16,
        "steps": 1024,
        "inputs": 64,
        "milliseconds": 40.0,
        "spread": [38.0, 39.0, 42.0],
        "rounds": 7,
        "baseline": "masked lax.scan",
        "speedup": 10.0,
        "cpu": "A Fast One",
        "threads": 2,
        "kernel": "avx2",
        "freed_memory": "kept",
        "versions": {"python": "3.11.7", "jax": "0.10.2", "flax": "0.12.8"},
    }
    return {**fields, **changes}


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


def test_speedup_is_the_median_of_the_rounds_ratios():
    base, variant = [10.0, 40.0, 300.0], [5.0, 10.0, 300.0]
    assert timing.speedup(base, variant) == 2.0  # of 2, 4, 1; the ratio of the medians is 4
    assert timing.milliseconds(base) == 40.0
    assert timing.spread([1.0, 2.0, 3.0, 4.0, 10.0]) == [1.0, 2.0, 4.0]


def test_a_race_becomes_one_record_for_each_baseline():
    facts = {"schedule": "neuron", "rate": 0.1, "computed": 0.1, "asked": 0.1}
    frozen, learned = {**facts, "switch": "frozen"}, {**facts, "switch": "learned"}
    entrants = {
        "frozen/base": Entrant("base", None, frozen),
        "other": Entrant("other", None, frozen),
        "frozen/native": Entrant("native", None, frozen, ("frozen/base", "other")),
        "learned/native": Entrant("native", None, learned, ("frozen/base",)),
    }
    times = {
        "frozen/base": [8.0, 8.0, 8.0],
        "other": [4.0, 4.0, 4.0],
        "frozen/native": [2.0, 2.0, 2.0],
        "learned/native": [2.5, 2.5, 2.5],
    }
    differences = {**dict.fromkeys(times, 0.0), "learned/native": 1e-6}
    lines = records.timed("skip_scan", TINY, entrants, times, differences)
    brief = [(r["switch"], r["backend"], r["baseline"], r["speedup"]) for r in lines]
    assert brief == [
        ("frozen", "base", "base", 1.0),
        ("frozen", "other", "other", 1.0),
        ("frozen", "native", "base", 4.0),
        ("frozen", "native", "other", 2.0),
        ("learned", "native", "base", 3.2),
    ]
    assert [r.get("of_frozen") for r in lines] == [None] * 4 + [0.8]
    assert lines[-1] == {
        **learned,
        **{"benchmark": "skip_scan", "backend": "native", "baseline": "base", "speedup": 3.2},
        **{"features": 8, "batch": 8, "steps": 24, "inputs": 3, "rounds": 3, "of_frozen": 0.8},
        **{"milliseconds": 2.5, "spread": [2.5, 2.5, 2.5], "difference": 1e-6},
    }


def test_records_survive_a_file_and_damage_is_named(tmp_path):
    path = tmp_path / "bench.jsonl"
    lines = [record(), record(backend="rows", speedup=2.0)]
    path.write_text("".join(map(records.dump, lines)))
    assert records.read(path) == lines
    with path.open("a") as file:
        file.write('{"benchmark": "skip_sc')
    with pytest.raises(ValueError, match=r"bench\.jsonl, line 3: not a record"):
        records.read(path)
    path.write_text('{"benchmark": "skip_scan", "backend": "native"}')
    with pytest.raises(ValueError, match=r"bench\.jsonl, line 1: not a record.*lacks schedule"):
        records.read(path)
    path.write_text("")
    with pytest.raises(ValueError, match="holds no record"):
        records.read(path)
    with pytest.raises(ValueError, match="JSON compliant"):
        records.dump(record(speedup=float("nan")))


def test_the_table_leaves_out_what_says_nothing():
    head, first, second = records.table([record(), record(speedup=1.5, of_frozen=0.875)]).split(
        "\n"
    )
    columns = "backend schedule switch rate computed H B T D ms min–q1–q3 baseline faster of frozen"
    assert " ".join(head.split()) == columns
    assert first.split()[-2:] == ["10.00×", "–"]
    assert second.split()[-2:] == ["1.50×", "0.88"]


@pytest.mark.parametrize(
    ("schedule", "rhythms"), [("neuron", 8), ("group", 1), ("4", 4), ("event", 8)]
)
def test_a_problem_counts_its_own_switches(schedule, rhythms):
    case = Case(8, 8, 100, 3, schedule, 0.2)
    frozen, learned, few = (problem.pose(case, name) for name in ("frozen", "learned", "share"))
    table = scan.run(frozen.unit, frozen.params, frozen.x).table
    table = np.asarray(jnp.broadcast_to(table.reshape(100, -1, 8), (100, 8, 8)))
    rate = frozen.facts["rate"]
    assert rate == pytest.approx(table.mean(), abs=1e-6)
    assert rate == pytest.approx(0.2, abs=0.025)  # two steps of 100
    assert frozen.facts["computed"] == rate
    # Where the gradient of the rate reaches a logit, it is nearly open.
    a = baselines.logits(learned.unit, learned.params["switch"], learned.x, 8)
    wanted = float((a > -0.25).mean())
    assert learned.facts["computed"] == pytest.approx(wanted, abs=1e-6)
    assert few.facts["computed"] == pytest.approx(rate + (wanted - rate) / 8, abs=1e-6)
    assert len({column.tobytes() for column in table.reshape(800, 8).T}) == rhythms
    jax.tree.map(np.testing.assert_array_equal, frozen.params, few.params)


def test_no_switch_hangs_on_rounding():
    posed = problem.pose(Case(32, 1, 1000, 3, "neuron", 0.1))
    a = baselines.logits(posed.unit, posed.params["switch"], posed.x, 32)
    # Of 32000 logits, spread over about 3, one lies within 1e-4 of any place but for this.
    assert np.abs(a).min() > 5e-4
    assert posed.facts["rate"] == pytest.approx(0.1, abs=0.003)


@pytest.mark.parametrize("schedule", ["neuron", "event"])
def test_at_rate_1_everything_is_open_and_nothing_nearly_so(schedule):
    posed = problem.pose(Case(8, 4, 50, 3, schedule, 1.0), "learned")
    a = baselines.logits(posed.unit, posed.params["switch"], posed.x, 8)
    assert a.min() > 0.25
    assert posed.facts["rate"] == posed.facts["computed"] == 1.0


def test_what_hands_its_work_on_is_not_timed_under_its_name():
    event = problem.unit(Case(8, 4, 50, 3, "event", 0.2), "frozen")
    rhythm = problem.unit(Case(8, 4, 50, 3, "neuron", 0.2), "frozen")
    minimal = problem.unit(Case(8, 4, 50, 3, "neuron", 0.2, "min_gru"), "frozen")
    assert problem.serves("rows", rhythm)
    assert not problem.serves("rows", event)
    assert not problem.serves("rows", problem.unit(TINY, "frozen"))
    assert not problem.serves("native", minimal)
    assert all(problem.serves("compact", unit) for unit in (event, rhythm, minimal))


def test_the_linear_baselines_agree_with_a_loop():
    case = Case(4, 2, 9, 3, "neuron", 0.4, "min_gru")
    posed = problem.pose(case)
    cell = jax.tree.map(np.asarray, posed.params["cell"])
    open_ = np.asarray(scan.run(posed.unit, posed.params, posed.x).table) > 0
    assert 0 < open_.mean() < 1
    h, wanted = np.zeros((2, 4)), []
    for x, g in zip(np.asarray(posed.x), open_, strict=True):
        move = 1 / (1 + np.exp(-(x @ cell["input"]["z"] + cell["vector"]["b_z"])))
        new = (1 - move) * h + move * (x @ cell["input"]["n"] + cell["vector"]["b_n"])
        h = np.where(g, new, h)
        wanted.append(h)
    for baseline in (baselines.associative_scan, baselines.where_scan):
        found = baseline(posed.unit, posed.params, posed.x)
        # float32, nine steps
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_held_is_raced_against_both():
    entrants = held.enter(Case(4, 2, 9, 3, "neuron", 0.4, "min_gru"), ["native", "masked"])
    assert list(entrants) == ["associative_scan", "where in lax.scan", "masked"]
    _, differences = timing.race(entrants, 1)
    assert 0 < max(differences.values()) < 1e-5


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
def test_torch_computes_the_same_in_its_own_process():
    with ExitStack() as stack:
        entrants = dense_scan.enter(TINY, ["masked"], stack, 1)
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
    wanted = scan.run(posed.unit, posed.params, posed.x).outputs
    np.testing.assert_allclose(jnp.swapaxes(found, 0, 1), wanted, rtol=1e-5, atol=1e-6)


def test_kernels_are_raced_on_what_is_there():
    case = Case(8, 4, 24, 3, "group", 0.2, "gru")
    with ExitStack() as stack:
        entrants = accelerator.enter(case, ["pallas", "masked"], "float32", stack)
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
    assert residuals.counted(leaves, [np.arange(6.0)]) == 32 + 16 + 16


@pytest.mark.parametrize("backend", ["masked", "pallas"])
def test_a_dense_scan_keeps_more_for_its_backward_pass(backend):
    case = Case(8, 8, 24, 3, "neuron", 0.2)
    posed = problem.pose(case)
    plain = problem.theirs(baselines.masked_scan, posed.unit)
    base = residuals.measure(plain, posed, "outputs")
    ours = residuals.measure(problem.ours(posed.unit, backend), posed, "outputs")
    residuals.agree(backend, ours, base)
    states = 24 * 8 * 8 * 4
    assert ours.kept >= states  # its own states are all that it stores, ...
    assert ours.kept < 1.5 * states
    assert base.kept > 4 * states  # ... autodiff keeps gates and products as well


def test_the_floors_take_the_last_run_of_the_best_back_end():
    lines = [
        record(speedup=20.0),
        record(speedup=9.75),
        record(asked=0.05, speedup=11.9),
        record(asked=0.25, speedup=6.0, rate=0.25, computed=0.25),
        record(features=128, asked=0.25, speedup=99.0),
        record(asked=0.05, backend="rows", speedup=4.0),
        record(asked=0.05, backend="compact", speedup=3.0),
        record(switch="share", of_frozen=0.9, computed=0.12, speedup=9.0),
        record(benchmark="memory", saving=6.5, reads="outputs", chunk=None, backend="native"),
        record(benchmark="memory", saving=9.5, reads="last", chunk=None, backend="native"),
    ]
    rows = floors.table(lines).split("\n")[2:]
    assert len(rows) == len(floors.FLOORS) == 20
    cells = [row.strip("| ").split(" | ") for row in rows]
    found = {(c[0], c[1]): c[2:] for c in cells}
    masked = "masked lax.scan"
    assert found["10%, per neuron, native, frozen", masked] == [
        "9.50×", "12.00×", "9.75×", "native", "yes",
    ]  # fmt: skip
    assert found["5%, per neuron, native, frozen", masked][-1] == "no"
    assert found["25%, per neuron, native, frozen", masked][2:] == [
        "6.00×",
        "native",
        "yes, the aim",
    ]
    assert found["5%, per neuron, pure JAX", masked][2:] == ["4.00×", "rows", "yes"]
    few = found["10%, per neuron, native, learned from 1/8 of the batch", "the same frozen"]
    assert few == ["0.85×", "0.95×", "0.90×", "native, computes 12.0%", "yes"]
    assert found["bytes kept for the backward pass, 10%, per neuron", masked][2] == "6.50×"
    assert sum(c[-1] == "not measured" for c in cells) == 14


def test_every_floor_can_be_met_by_a_record():
    for floor in floors.FLOORS:
        one = {k: v[0] if isinstance(v, tuple) else v for k, v in floor.wanted.items()}
        assert floors.best(floor, [{**one, floor.measure: 1.0}]) is not None
        assert floor.least < floor.aim


def test_a_plot_draws_the_medians_by_back_end(tmp_path):
    lines = []
    for asked, base, native in ((0.05, 90.0, 8.0), (0.25, 100.0, 24.0), (1.0, 110.0, 100.0)):
        at = {"asked": asked, "rate": asked, "computed": asked}
        for switch in ("frozen", "learned"):
            base_line = record(backend="masked lax.scan", milliseconds=base, **at, switch=switch)
            lines += [base_line, record(milliseconds=native, **at, switch=switch)]
        lines.append(record(milliseconds=native + 1, **at, switch="share"))
        lines.append(
            record(backend="flax.linen.RNN", baseline="flax.linen.RNN", milliseconds=95.0,
                   schedule="none", switch="none")
        )  # fmt: skip
    path = tmp_path / "time.png"
    drawn = plot.draw(lines, path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [axis.get_title("left").split("\n")[0] for axis in drawn.axes] == [
        "neuron, frozen",
        "neuron, learned",
    ]
    frozen, learned = ({line.get_label(): line for line in axis.lines} for axis in drawn.axes)
    assert frozen["native"].get_ydata().tolist() == [8.0, 24.0, 100.0]
    assert frozen["native"].get_xdata().tolist() == [5.0, 25.0, 100.0]
    assert frozen["ideal"].get_ydata().tolist() == pytest.approx([5.5, 27.5, 110.0])
    assert frozen["flax.linen.RNN, no switch"].get_ydata() == [95.0, 95.0]
    assert learned["native"].get_ydata().tolist() == [8.0, 24.0, 100.0]
    assert learned["native, 1/8 teach"].get_ydata().tolist() == [9.0, 25.0, 101.0]
    assert "native, 1/8 teach" not in frozen
    base = {"backend": "native, no switch", "baseline": "native, no switch", "milliseconds": 50.0}
    lines = [record(**base, schedule="none", switch="none", rate=1.0), record(milliseconds=6.0)]
    (axis,) = plot.draw([{**r, "benchmark": "inference"} for r in lines], path).axes
    across = {line.get_label(): line.get_ydata() for line in axis.lines}
    assert across["native, no switch"] == [50.0, 50.0]
    assert across["ideal"] == pytest.approx([5.05])
    with pytest.raises(ValueError, match="got memory"):
        plot.draw([record(benchmark="memory")], path)


def test_the_ideal_is_the_rate_even_where_no_record_is_dense(tmp_path):
    at = {"rate": 0.25, "asked": 0.25}
    lines = [record(backend="masked lax.scan", milliseconds=100.0, **at), record(**at)]
    (axis,) = plot.draw(lines, tmp_path / "ideal.png").axes
    (ideal,) = [line for line in axis.lines if line.get_label() == "ideal"]
    assert ideal.get_ydata().tolist() == pytest.approx([25.0])


def test_a_sweep_over_lengths_is_drawn_against_them(tmp_path):
    lines = [
        record(backend=name, steps=steps, milliseconds=ms * steps)
        for steps in (1024, 4096)
        for name, ms in (("masked lax.scan", 0.4), ("native", 0.04))
    ]
    (axis,) = plot.draw(lines, tmp_path / "steps.png", "steps").axes
    (native,) = [line for line in axis.lines if line.get_label() == "native"]
    assert native.get_xdata().tolist() == [1024, 4096]
    assert native.get_ydata().tolist() == pytest.approx([40.96, 163.84])
    assert not [line for line in axis.lines if line.get_label() == "ideal"]


def test_a_small_run_from_flags_to_records_and_plot(tmp_path):
    output, png = tmp_path / "a.jsonl", tmp_path / "a.png"
    output.write_text(records.dump(record()))  # of an earlier run, which stays
    done = python(
        "-m", "benchmarks.skip_scan", "--features=8", "--batch=8", "--steps=24", "--inputs=3",
        "--rates=0.25", "--rounds=2", "--schedules=neuron", "--switches=learned,share",
        "--backends=masked", f"--output={output}", f"--plot={png}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    first, *lines = records.read(output)
    assert first == record()
    assert [(r["switch"], r["backend"]) for r in lines] == [
        ("learned", "masked lax.scan"),
        ("learned", "masked"),
        ("share", "masked"),
        ("none", "flax.linen.RNN"),
    ]
    for line in lines:
        assert line["milliseconds"] >= line["spread"][0] > 0
        assert line["rate"] <= line["computed"] <= 1
        assert line["cpu"]
        assert line["versions"]["jax"] == jax.__version__
    assert 0 < lines[1]["difference"] < 1e-4
    assert lines[0]["computed"] > lines[2]["computed"] > lines[2]["rate"]
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert "learned" in done.stderr
    printed = python("-m", "benchmarks.floors", str(output))
    assert printed.stdout.count("| yes |") == 1, printed.stderr
    assert "Measured on A Fast One, 2 threads, kernel avx2, jax 0.10.2" in printed.stdout


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


def test_feeds_are_compared_with_a_consumer_and_memory_is_counted(tmp_path):
    output = tmp_path / "feed.jsonl"
    done = python(
        "-m", "benchmarks.data_feed", "--feeds=stream,resident", "--examples=40", "--batch=8",
        "--rounds=2", "--features=4", "--tokens=1000000", f"--output={output}",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    line, resident = (json.loads(line) for line in output.read_text().splitlines())
    assert (line["feed"], line["steps"]) == ("stream", 150)
    assert line["milliseconds"] >= line["spread"][0] > 0
    assert line["examples_per_second"] == pytest.approx(8e3 / line["milliseconds"])
    assert line["ratio"] == pytest.approx(line["examples_per_second"] / line["consumed_per_second"])
    assert line["versions"]["jax"] == jax.__version__
    assert "examples a second" in done.stderr
    assert resident["feed"] == "resident"
    assert resident["stream_bytes"] == 4_000_000
    # All of the stream was read: ids are 0..267,734, and up to 8 · 150 tokens are left out.
    assert resident["sum"] == pytest.approx(1e6 * 133_867, rel=0.01)
    # JAX alone takes more than a tenth of that.
    assert 1e8 < resident["peak_bytes"] < 1e9
    assert resident["anonymous_bytes"] < resident["peak_bytes"]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["data_feed", "--feeds=listops,sound"], "--feeds must list some of listops, images"),
        (["skip_scan", "--rates=0.1,1.5"], "--rates must be numbers above 0 and up to 1"),
        (["skip_scan", "--features=64,x"], "--features must be whole numbers above 0"),
        (["skip_scan", "--backends=fast"], "--backends must list some of native, rows"),
        (["skip_scan", "--schedules=0"], "group, event, a number of groups, got '0'"),
        (["skip_scan", "--switches=share"], "share is compared with learned"),
        (["held", "--plot=nowhere/a.png"], "nowhere/a.png: no such folder"),
        (["floors", "nowhere.jsonl"], "nowhere.jsonl"),
        (["plot", "README.md", "--plot=a.png"], "README.md, line 1: not a record"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command, says):
    done = python("-m", "benchmarks." + command[0], *command[1:])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["skip_scan", "dense_scan", "held", "inference", "memory"])
def test_help_is_there_at_once(name):
    done = python("-X", "importtime", "-m", f"benchmarks.{name}", "--help")
    assert done.returncode == 0
    assert "--features: H, neurons" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "benchmarks.options" in imported
    assert not imported & {"jax", "flax", "torch", "matplotlib"}  # seconds each


def test_help_of_the_feeds_is_there_at_once():
    done = python("-X", "importtime", "-m", "benchmarks.data_feed", "--help")
    assert done.returncode == 0
    assert "--feeds: Of listops, images, stream, resident" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "benchmarks.case" in imported
    assert not imported & {"jax", "flax", "matplotlib"}
