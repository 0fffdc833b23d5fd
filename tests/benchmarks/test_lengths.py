"""The benchmark over lengths: a small run, and what it refuses."""

import json

import jax
import numpy as np
import pytest
from benchmark_case import python

from benchmarks import lengths, plot, problem
from benchmarks.case import Case


@pytest.mark.full
def test_a_small_run_measures_time_and_memory_of_each(tmp_path):
    output, png = tmp_path / "lengths.jsonl", tmp_path / "lengths.png"
    done = python(
        "-m", "benchmarks.lengths", "--features=8", "--inputs=8", "--batch=2", "--steps=64",
        "--rounds=2", "--heads=2", "--models=attention,gru", "--backends=masked",
        f"--output={output}", f"--plot={png}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    attention, gru = (json.loads(line) for line in output.read_text().splitlines())
    assert [line["backend"] for line in (attention, gru)] == ["attention", "GRU, masked"]
    for line in (attention, gru):
        assert line["milliseconds"] >= line["spread"][0] > 0
        assert line["baseline"] == "GRU, masked"
        assert line["temporary_bytes"] > 0
        assert line["versions"]["jax"] == jax.__version__
    scores, states = 2 * 2 * 64 * 64 * 4, 2 * 64 * 8 * 4
    assert attention["kept_bytes"] > scores
    assert scores > gru["kept_bytes"] >= states
    assert gru["parameters"] == 3 * 8 * 8 * 2 + 4 * 8
    assert attention["parameters"] == 4 * 8 * 8 + 8
    assert "attention" in done.stderr
    assert png.read_bytes()[:4] == b"\x89PNG"


def test_time_and_memory_are_drawn_against_the_length(tmp_path):
    def line(name, steps, ms, **changes):
        memory = {"kept_bytes": 2_000_000 * steps, "temporary_bytes": 1_000_000}
        sizes = {"batch": 2, "inputs": 8, "features": 8}
        return {
            "benchmark": "lengths", "backend": name, "steps": steps, "milliseconds": ms, **sizes,
            **memory, **changes,
        }  # fmt: skip

    lines = [line("GRU", 8, 1.0), line("GRU", 4, 2.0), line("S4D", 4, 7.0), line("GRU", 4, 3.0)]
    time, kept, more = plot.draw(lines, tmp_path / "lengths.png").axes
    gru, s4d = time.lines
    assert gru.get_xydata().tolist() == [[4, 3.0], [8, 1.0]]  # the later of two
    assert s4d.get_xydata().tolist() == [[4, 7.0]]
    assert kept.lines[0].get_ydata().tolist() == pytest.approx([8, 16])
    assert more.lines[0].get_ydata().tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="of one size; got 2"):
        plot.draw([*lines, line("GRU", 4, 1.0, batch=3)], tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


@pytest.mark.full
def test_the_layers_that_are_timed_compute_what_they_should():
    case = Case(8, 2, 64, 8, "neuron", 0.25)  # as above: compiled already
    posed = lengths.pose(case, ["sugru", "s4d"], ["masked"], heads=2)
    assert list(posed) == ["suGRU, masked", "S4D"]
    forward, own = posed["suGRU, masked"]
    assert own.facts["switch"] == "learned"
    assert 0.2 < own.facts["rate"] < 0.3 < own.facts["computed"] < 1
    wanted = jax.jit(problem.ours(own.unit, "compact"))(own.params, np.swapaxes(own.x, 0, 1))
    # float32, 64 steps that forget
    np.testing.assert_allclose(
        jax.jit(forward)(own.params, own.x), np.swapaxes(wanted, 0, 1), rtol=1e-4, atol=1e-5
    )
    forward, own = posed["S4D"]
    assert own.facts["switch"] == "none"
    assert jax.eval_shape(forward, own.params, own.x).shape == own.target.shape == (2, 64, 8)


def test_without_a_back_end_nothing_is_posed():
    case = Case(8, 2, 64, 8, "neuron", 0.25, "min_gru")
    with pytest.raises(ValueError, match="--backends: none of native runs a suGRU here"):
        lengths.pose(case, ["sugru"], ["native"], heads=2)


def test_bad_input_is_one_line_and_exit_code_2():
    done = python("-m", "benchmarks.lengths", "--models=gru,rnn")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --models must list some of sugru, gru, attention, s4d, got 'gru,rnn'\n"
    )
