"""lra, pixels, synthetic and wikitext: by their commands, and every model on every kind of task."""

import dataclasses
import itertools
import json
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_case import run, same_files
from tiers import full, tiered

from data import paths
from data.batches import Batches
from experiments import lra, pixels, synthetic, wikitext
from experiments.runner import launch, records
from experiments.runner.config import flag_of
from experiments.runner.experiment import parameter_shapes, scores
from experiments.runner.flags import LaunchOptions
from experiments.tasks import registry
from experiments.tasks.sequence import experiment as experiments
from experiments.tasks.sequence import figures
from experiments.tasks.sequence.config import DATASETS, Config
from experiments.tasks.sequence.data import kind_of
from experiments.tasks.sequence.presets import EVERYTHING
from experiments.tasks.sequence.task import (
    METRIC,
    TaskSpec,
    first_memory,
    measure,
    model_of,
    run_model,
    task_of,
)
from surnn_jax import switches, train
from surnn_jax.layers import Backbone, LanguageModel, mixers
from surnn_jax.layers.sequence_models import Result
from surnn_jax.train import checkpoint

PROGRAMS = {"lra": lra, "pixels": pixels, "synthetic": synthetic, "wikitext": wikitext}
DIGITS = [
    "--dataset=digits", "--features=8", "--no_residual", "--encoder=raw", "--pooling=last",
    "--max_epochs=2", "--train_examples=300", "--eval_examples=50", "--update_rate=0.3",
    "--learning_rate=0.01",
]  # fmt: skip


def experiment(name, workdir, *flags):
    return run("-m", f"experiments.{name}", *flags, f"--workdir={workdir}")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    pytest.importorskip("sklearn", reason="needs the package scikit-learn")
    workdir = tmp_path_factory.mktemp("pixels") / "digits"
    done = experiment("pixels", workdir, *DIGITS)
    assert done.returncode == 0, done.stderr
    return workdir, done


@pytest.mark.full
def test_leaves_record_pictures_and_what_happened_inside(digits):
    workdir, done = digits
    record = records.read(workdir / "result.json")
    assert (record.cell, record.switch, record.dataset) == ("sugru", "fourier", "digits")
    assert record.steps == 2 * 10  # 300 images, 32 a step
    # 3 (1·8 + 8·8 + 8) + 8 of the cell, 4·8·2 + 4 + 8 of the switch, 8·10 + 10 of the head.
    assert record.recurrent_parameters == 3 * (8 + 64 + 8) + 8 + 76
    assert record.parameters == record.recurrent_parameters + 90
    assert 0.15 < record.update_rate < 0.45
    inside = json.loads((workdir / "inside.json").read_text())
    assert abs(inside["layer 1"]["update_rate"] - record.update_rate) < 0.05
    assert len(inside["reach"]) == 4
    for name in ("curves", "switches", "rates", "periods", "memory", "reach"):
        assert (workdir / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
    what, value = records.headline(record)
    assert what == "accuracy, %"
    assert f"{value:.5g}" in done.stdout
    assert "native" in done.stdout or "masked" in done.stdout or "rows" in done.stdout


@pytest.mark.full
def test_evaluate_finds_the_same_figures_and_other_flags_are_refused(digits, tmp_path):
    workdir, _ = digits
    flags = f"--checkpoint={workdir}", f"--show={tmp_path}"
    done = run("-m", "experiments.evaluate", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("identical") == len(records.read(workdir / "result.json").metrics)
    names = {"switches.png", "rates.png", "periods.png", "memory.png", "reach.png", "inside.json"}
    assert same_files(tmp_path, workdir) == names
    done = experiment("pixels", workdir, *DIGITS, "--update_rate=0.4")
    assert done.returncode == 2
    assert "rate=0.3, not 0.4" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "flag", "words"),
    [
        full("lra", "--dataset=smnist", "lra: no data 'smnist'; one of: listops"),
        ("lra", "--preset=listop-sugru", "no preset 'listop-sugru'; such as: listops-sugru"),
        full("pixels", "--data_dir=/no/such", "/no/such"),
        full("wikitext", "--dataset=wikitext2", "max_length must be given"),
    ],
)
def test_bad_flags_end_in_one_line(name, flag, words, tmp_path):
    workdir = tmp_path / "never"
    default = [] if "dataset" in flag or "preset" in flag else ["--dataset=smnist"]
    done = experiment(name, workdir, *default, flag)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not workdir.exists()


SMALL = Config("adding", steps=24, features=8, batch_size=8, learning_rate=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": "sugru,s5"}, "unknown layer 's5'"),
        ({"layers": "attention", "heads": 3}, "heads must divide the width"),
        ({"switch": "furier"}, "unknown switch 'furier'; one of: fourier, event"),
        ({"gate": "widow"}, "unknown surrogate 'widow'"),
        ({"rate": 1.5}, "rate must lie strictly between 0 and 1"),
        ({"positions": "sine"}, "unknown positions 'sine'; one of: none, learned, rotary"),
        ({"precision": "half"}, "unknown precision 'half'"),
        ({"dropout": 1.0}, "dropout must lie"),
        ({"encoder": "embed"}, "encoder 'embed' needs a vocabulary"),
        ({"cutoffs": "20,10", "dataset": "wikitext2"}, "cutoffs must rise"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"warmup": -1}, "warmup must be 0 or more"),
        ({"hold": -1.0}, "rate_penalty must be at least 0, got -1.0"),
        ({"hold": float("nan")}, "rate_penalty must be at least 0, got nan"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(changes, words):
    config = dataclasses.replace(SMALL, **changes)
    (name,) = (n for n, sets in DATASETS.items() if config.dataset in sets)
    with pytest.raises(ValueError, match=words):
        registry.load(name).check(config)


@pytest.mark.parametrize("name", PROGRAMS)
def test_presets_can_be_built_and_are_listed_quickly(name):
    program = PROGRAMS[name]
    for runs in program.TASKS.values():
        for config in runs.values():
            experiments.check(name, config, shapes=False)
    single = {preset for preset, runs in program.PRESETS.items() if list(runs) == [""]}
    # `listops-cpu` has `listops-sugru-cpu`.
    sizes = re.compile("(-cpu|-short)?$")
    assert single == {
        sizes.sub("", task) + f"-{model}" + sizes.search(task)[0]
        for task, runs in program.TASKS.items()
        for model in runs
    }
    start = time.perf_counter()
    done = run("-m", f"experiments.{name}", "--list")
    # Half a second on an idle machine.
    assert time.perf_counter() - start < 10
    assert done.returncode == 0, done.stderr
    short = {re.sub("(-cpu|-short)$", "", preset) for preset in program.PRESETS}
    assert all(preset in done.stdout for preset in short)
    if name != "lra":  # one code for all
        return
    done = run("-m", f"experiments.{name}", "--list", "--preset=sugru")
    named = {line.split()[0] for line in done.stdout.splitlines()[3:] if line}
    assert {preset for preset in single if "sugru" in preset} <= named


def test_looking_inside_passes_over_the_rows_that_fill_up_a_batch():
    """Those come first in an evaluation, and there may be more of them than are looked at."""
    sequences = [np.full(3 + i, i, np.int32) for i in range(40)]
    [_, *others] = whole = list(Batches({"x": sequences}, 32).evaluation())
    assert (whole[0]["index"][:16] == -1).all()
    found = figures.examples_of(whole[0])
    assert found["index"].tolist() == list(range(8))
    assert (found["lengths"] == 3 + found["index"]).all()
    assert figures.examples_of(others[0])["index"].tolist() == list(range(8, 24))


@pytest.mark.parametrize(
    ("openings", "pictures"),
    [
        full([], {"rates"}),
        ([2], {"rates", "memory"}),
        ([2, 5], {"rates", "memory", "periods"}),
    ],
)
def test_pictures_of_little_are_left_out(tmp_path, openings, pictures):
    """A run that trained for hours must not end in an error because a layer never opened."""
    still, few = np.zeros((9, 4), bool), np.zeros((9, 4), bool)
    few[openings, 1] = True
    figures.draw({"layer 1": still, "layer 2": few}, None, tmp_path, "a run")
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png" for name in pictures}


@pytest.mark.full
def test_rows_that_fill_up_a_batch_do_not_count_as_updates():
    """Of images, whose batches have no lengths otherwise: the figures are those of one full batch,
    and so are thresholds that `init` sets."""
    config = Config(switch="event", features=4, rate=0.4, hold=0.0)
    spec = TaskSpec("classify", 2, 12)
    x = 3 + np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    columns = {"x": x, "y": np.arange(5) % 2}
    whole, cut = Batches(columns, 5), Batches(columns, 8)
    task = task_of(config, model_of(config, spec), spec)
    init = jax.jit(lambda batch: task.init(jax.random.key(0), batch))
    of_whole, of_cut = (init(feed.batch(0)) for feed in (whole, cut))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), of_whole, of_cut)
    found, wanted = (train.score(task, of_whole, feed.evaluation()) for feed in (cut, whole))
    assert wanted["update_rate"] == pytest.approx(0.4, abs=0.03)
    assert found == pytest.approx(wanted, rel=1e-4)


def test_figures_are_those_of_plain_numpy():
    """Errors and nats of classes, squares of numbers, nats of words; padded rows do not count."""
    random = np.random.default_rng(0)
    index = np.array([4, 0, -1])
    y = np.array([1, 2, 0])
    logits = random.normal(size=(3, 4)).astype(np.float32)
    found = measure(
        TaskSpec("classify", 4, 9), {"x": 0, "y": y, "index": index}, Result(logits, None, ())
    )
    nats = np.log(np.exp(logits).sum(-1)) - logits[np.arange(3), y]
    np.testing.assert_allclose(found["nll"][0], nats[:2].sum(), rtol=1e-5)
    wrong, weight = map(float, found["error"])
    assert (wrong, weight) == ((logits.argmax(-1) != y)[:2].sum(), 2)

    target = random.normal(size=(3, 2, 1)).astype(np.float32)
    answer = random.normal(size=(3, 2, 1)).astype(np.float32)
    found = measure(
        TaskSpec("regress", 1, 9, ends=2),
        {"y": target, "index": index},
        Result(jax.numpy.asarray(answer), None, ()),
    )
    total, weight = found["mse"]
    np.testing.assert_allclose(total, ((answer - target)[:2] ** 2).sum(), rtol=1e-5)
    assert weight == 4
    np.testing.assert_allclose(found["power"][0], (target[:2] ** 2).sum(), rtol=1e-5)

    lengths = np.array([3, 1, 0])
    log = -random.random((3, 3)).astype(np.float32)
    found = measure(
        TaskSpec("language", 5, 3, 5), {"y": np.zeros((3, 3), int), "lengths": lengths},
        Result(jax.numpy.asarray(log), None, ()),
    )  # fmt: skip
    np.testing.assert_allclose(found["nll"][0], -log[0].sum() - log[1, 0], rtol=1e-5)
    assert found["nll"][1] == 4


def tiny(dataset, model):
    """A configuration of that model, as small as can be, for the data set."""
    program = synthetic if dataset in DATASETS["synthetic"] else pixels
    task = {"selective_copy": "selective-copy-cpu", "adding": "adding-cpu"}.get(dataset, "smnist")
    config = program.TASKS[task][model]
    return dataclasses.replace(
        config, dataset=dataset, features=8, steps=24, examples=32, evaluated=16, batch_size=8,
        max_epochs=1, heads=2, state=4, data=3, tokens=6, warmup=2, rate=max(config.rate, 0.3),
        layers=",".join(dict.fromkeys(config.names[:2])),
    )  # fmt: skip


def trained(config, workdir, name):
    experiment, options = registry.load(name), LaunchOptions(command="made by a test")
    record = launch.train_run(name, config, experiment.prepare(config, None), workdir, options)
    assert all(np.isfinite(value) for value in record.metrics.values())
    assert 0 < record.update_rate <= 1
    # The finished run is opened again: its parameters score the same, and nothing is trained.
    again = registry.restore(workdir, None)
    assert again.config == config
    assert scores(again.prepared, again.params)[0] == record.metrics
    undrawn = again.prepared._replace(draw=lambda *given: None)  # the pictures are there
    once_more = launch.train_run(name, config, undrawn, workdir, options)
    assert once_more.metrics == record.metrics
    return record


@pytest.mark.parametrize(
    ("dataset", "model"),
    tiered(
        itertools.product(["adding", "selective_copy", "digits"], EVERYTHING),
        [("selective_copy", "sugru-event")],
    ),
)
def test_every_model_trains_checkpoints_resumes_and_scores(dataset, model, tmp_path):
    name = "pixels" if dataset == "digits" else "synthetic"
    record = trained(tiny(dataset, model), tmp_path, name)
    assert METRIC[kind_of(dataset)] in {n.removeprefix("test_") for n in record.metrics}


LANGUAGE = Config(
    "wikitext2", layers="sugru,attention", positions="rotary", features=8, window=6, steps=6,
    horizon=16, heads=2, batch_size=4, examples=200, evaluated=120, max_epochs=2, cutoffs="2000",
)  # fmt: skip


def test_rows_of_a_stream_share_a_clock_and_a_table():
    """The state goes on from window to window, and a rhythm stays one table for all rows."""
    options = mixers.Options(switch=switches.fourier(16))
    model = LanguageModel(Backbone(("sugru",), 8, "embed", vocabulary=5, options=options))
    batch = {"x": np.zeros((4, 6), np.int32), "y": np.zeros((4, 6), np.int32)}
    params = jax.jit(model.init)(jax.random.key(0), batch["x"], batch["y"])["params"]
    memory, spec = first_memory(model, params, 4), TaskSpec("language", 5, 6, 5)
    run = jax.jit(lambda params, memory: run_model(model, spec, params, batch, memory=memory))
    for window in (1, 2):
        before = jax.tree.map(jnp.shape, memory)
        result = run(params, memory)
        memory = result.carry
        assert result.traces[0].update_mask.shape == (6, 8)
        assert jax.tree.map(jnp.shape, memory) == before
        assert memory.layers[0].clock == 6 * window


def needs_wikitext():
    if paths.find(["wikitext2"], None) is None:
        pytest.skip("needs the original of wikitext2: name its folder by SURNN_DATA")


@pytest.mark.full
def test_a_language_model_carries_its_state_from_window_to_window(tmp_path):
    """The score of the test stream does not depend on how it is cut into windows."""
    needs_wikitext()
    prepared = experiments.prepare(LANGUAGE, None)
    options = LaunchOptions(command="made by a test")
    record = launch.train_run("wikitext", LANGUAGE, prepared, tmp_path, options)
    long, task = experiments.prepare(dataclasses.replace(LANGUAGE, steps=24), None), prepared.task
    params = checkpoint.read(checkpoint.find(tmp_path), "best", parameter_shapes(prepared))
    one = train.score(long.task, params, long.feeds["test"].evaluation())
    np.testing.assert_allclose(one["nll"], record.metrics["test_nll"], rtol=1e-5)
    # Forgetting between windows gives another score: there is something to carry.
    forgetful = task._replace(
        evaluate=lambda p, b, m: (task.evaluate(p, b, task.memory(p, b))[0], m)
    )
    other = train.score(forgetful, params, prepared.feeds["test"].evaluation())
    assert abs(other["nll"] - one["nll"]) > 1e-6


@pytest.mark.full
@pytest.mark.parametrize("model", sorted(EVERYTHING.keys() - {"transformer-rotary"}))
def test_every_model_learns_language(model, tmp_path):
    needs_wikitext()
    config = wikitext.TASKS["wikitext2-cpu"][model]
    small = dataclasses.replace(
        config, features=16, steps=6, heads=2, window=6, batch_size=4, examples=200, warmup=2,
        evaluated=120, max_epochs=1, state=4,
    )  # fmt: skip
    trained(small, tmp_path, "wikitext")


@pytest.mark.full
@pytest.mark.parametrize("model", ["sugru", "gru", "transformer", "s4d"])
def test_pairs_are_matched(model, tmp_path):
    needs_wikitext()
    config = lra.TASKS["retrieval-cpu"][model]
    small = dataclasses.replace(
        config, features=8, steps=24, heads=2, batch_size=8, examples=32, evaluated=16, warmup=2,
        max_epochs=1, state=4,
    )  # fmt: skip
    trained(small, tmp_path, "lra")


def test_help_names_every_field():
    done = run("-m", "experiments.lra", "--help")
    assert done.returncode == 0
    for field in dataclasses.fields(Config):
        assert f"--{flag_of(field)}" in done.stdout.replace("[no]", "")


def test_the_model_of_a_configuration_has_the_layers_it_names():
    model = model_of(
        dataclasses.replace(SMALL, layers="sugru, s4d,attention"), TaskSpec("classify", 3, 24)
    )
    assert model.backbone.layers == ("sugru", "s4d", "attention")


def test_options_without_a_preset_do_what_they_say():
    """Reading from both ends takes a second unit; the others reach the layers."""
    spec = TaskSpec("classify", 3, 24)

    def sizes(**changes):
        model = model_of(dataclasses.replace(SMALL, bare=True, **changes), spec)
        variables = jax.eval_shape(model.init, jax.random.key(0), np.zeros((2, 24, 1), np.float32))
        return model.backbone.options, sum(x.size for x in jax.tree.leaves(variables))

    options, one_way = sizes(bidirectional=False, layers="gru")
    assert (options.dtype, options.backend) == (None, "auto")
    _, both = sizes(bidirectional=True, layers="gru")
    assert both > 1.9 * one_way - 100
    options, _ = sizes(precision="bfloat16", backend="masked", state=6, layers="s4d")
    assert (options.dtype, options.backend, options.state) == (jax.numpy.bfloat16, "masked", 6)
    assert sizes(state=8, layers="s4d")[1] > sizes(state=4, layers="s4d")[1]
