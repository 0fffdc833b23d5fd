"""The benchmark of whole models: a small run, and what its steps compute."""

import json

import jax
import numpy as np
import pytest
from benchmark_case import python

from benchmarks import models
from benchmarks.case import Case
from surnn_jax.layers import Backbone, Classifier, Options


@pytest.mark.full
def test_a_small_run_has_a_line_for_the_base_and_for_every_switch_and_rate(tmp_path):
    output = tmp_path / "models.jsonl"
    done = python(
        "-m", "benchmarks.models", "--features=8", "--inputs=3", "--batch=2", "--steps=32",
        "--rounds=2", "--rates=0.1,0.5", "--switches=frozen", "--backends=masked",
        "--schedules=neuron,block", "--others=flax,s4d", f"--output={output}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    base, low, high, *blocks = lines[:-2]
    assert [line["backend"] for line in lines] == ["masked"] * 5 + ["flax", "s4d"]
    assert [(line["schedule"], line["asked"]) for line in blocks] == [
        ("block", 0.1),
        ("block", 0.5),
    ]
    assert [line["switch"] for line in (base, low, high)] == ["none", "frozen", "frozen"]
    assert [line["asked"] for line in (base, low, high)] == [1.0, 0.1, 0.5]
    assert abs(low["rate"] - 0.1) < 0.05
    assert abs(high["rate"] - 0.5) < 0.1
    for line in (base, low, high):
        assert line["benchmark"] == "models"
        assert line["model"] == "two blocks, H = 8"
        assert line["rounds"] == 2


@pytest.mark.full
def test_a_stream_is_the_whole_model_step_by_step():
    posed = models.pose(Case(8, 2, 6, 3), [0.5], ["frozen"], "masked", ["neuron"], ["s4d"], 6)
    assert list(posed) == ["GRU", "frozen 0.5", "s4d"]
    case, seen = Case(8, 2, 6, 3), jax.random.split(jax.random.key(0), 3)
    backbone = Backbone(("gru",) * 2, 8, options=Options(backend="masked"))
    x = jax.random.normal(seen[0], (case.batch, case.steps, case.inputs))
    params = jax.jit(Classifier(backbone, 10, "mean").init)(seen[2], x[:1, :2])["params"]
    whole = jax.jit(backbone.apply)({"params": params["backbone"]}, x).outputs
    np.testing.assert_allclose(posed["GRU"].call(), whole[:, -1], rtol=1e-5, atol=1e-5)
    done = python("-m", "benchmarks.models", "--streaming=2", "--others=flax")
    assert done.stderr == "error: --streaming: the model in Flax alone has no step\n"


@pytest.mark.full
def test_every_round_does_the_same_whole_step():
    entrant = models.pose(Case(8, 4, 32, 3), [0.5], ["frozen"], "masked")["frozen 0.5"]
    with jax.numpy_dtype_promotion("standard"):  # Optax mixes int32 and float32.
        first, params, _ = entrant.call()
        again, after, state = entrant.call()
    assert first == again  # It starts anew each time.
    jax.tree.map(np.testing.assert_array_equal, params, after)
    assert abs(first - np.log(models.CLASSES)) < 1  # Nothing is known of ten classes yet.
    # Adam has seen a gradient of every kernel but those of the frozen switches.
    moments = next(part.mu for part in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "mu"))
                   if hasattr(part, "mu"))  # fmt: skip
    idle = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(moments)
        if not np.any(leaf)
    ]
    assert idle
    assert all("switch" in name for name in idle)


@pytest.mark.full
def test_the_model_in_flax_alone_is_the_base():
    """Of equal parameters, so that they are compared fairly; Flax's cell has the same equation."""
    case = Case(8, 2, 16, 3)
    with jax.numpy_dtype_promotion("standard"):
        found = models.pose(case, [], [], "masked", others=["flax"])
        sizes = [
            sum(leaf.size for leaf in jax.tree.leaves(found[name].call()[1]))
            for name in ("GRU", "flax")
        ]
    assert sizes[0] == sizes[1]


def test_an_unknown_model_is_refused():
    done = python("-m", "benchmarks.models", "--others=gpt")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --others must list some of flax, attention, s4d, mamba, got 'gpt'\n"
    )


def test_help_is_there_at_once():
    done = python("-X", "importtime", "-m", "benchmarks.models", "--help")
    assert done.returncode == 0
    assert "--rates: Shares of open switches" in done.stdout
    assert "jax" not in {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
