"""The examples of CONTRIBUTING.md and data/OWN_DATA.md, carried out: files added, lines changed.

What is new in `surnn_jax` is imported from a temporary folder and put into the registries that the
changed files have. `data` and `experiments` are copied, changed and imported anew.
"""

import importlib
import re
import shutil
import sys
import types
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from surnn_jax import cells, run, scan, selective, switches
from surnn_jax.layers import Recurrent

ROOT = Path(__file__).resolve().parent.parent
GUIDE, OWN = "CONTRIBUTING.md", "data/OWN_DATA.md"
COPIED = ("data", "experiments")


def fences(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def new_files(document: str) -> dict[str, str]:
    """Path -> what a block of Python says is in the new file."""
    return {block.splitlines()[0].removeprefix("# "): block for block in fences(document, "python")}


def changes(document: str) -> list[tuple[str, str, str]]:
    """Path, old lines and new lines of every hunk."""
    found = []
    for block in fences(document, "diff"):
        path, _, hunks = block.removeprefix("--- ").partition("\n")
        for hunk in hunks.split("@@\n"):
            lines = hunk.splitlines()
            old, new = (
                "".join(line[1:] + "\n" for line in lines if line[:1] in kept)
                for kept in (" -", " +")
            )
            found.append((path, old, new))
    return found


def changed(path: str, *documents: str) -> str:
    """The text of a file with the changes that the documents show."""
    text = (ROOT / path).read_text()
    for document in documents:
        for where, old, new in changes(document):
            if where == path:
                assert text.count(old) == 1, f"{document} changes lines of {path} that are not so"
                text = text.replace(old, new)
    return text


def executed(path: str) -> types.ModuleType:
    """A file of `surnn_jax` as it is after its change, under another name."""
    module = types.ModuleType("changed")
    # What its classes are looked up by.
    sys.modules[module.__name__] = module
    exec(compile(changed(path, GUIDE), path, "exec"), module.__dict__)
    return module


@pytest.fixture
def added(tmp_path, monkeypatch):
    """``added(path)`` imports a new file of `surnn_jax`."""
    names = []

    def add(path: str) -> types.ModuleType:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(new_files(GUIDE)[path])
        package = importlib.import_module(".".join(Path(path).parent.parts))
        folder = str((tmp_path / path).parent)
        monkeypatch.setattr(package, "__path__", [*package.__path__, folder])
        importlib.invalidate_caches()
        names.append(".".join(Path(path).with_suffix("").parts))
        return importlib.import_module(names[-1])

    yield add
    for name in names:
        package, _, attribute = name.rpartition(".")
        delattr(sys.modules[package], attribute)
        del sys.modules[name]
    sys.modules.pop("changed", None)


def outputs_and_gradients(unit, params, x, backend, **given):
    def loss(params):
        outputs = run(unit, params, x, backend=backend, **given).outputs
        return jnp.sin(3 * outputs).sum(), outputs

    (_, outputs), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return outputs, gradients


X = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)  # [T, B, D]


def begun(unit, x):
    """Parameters of 4 neurons; compiled whole, for there are dozens of operations."""
    return jax.jit(unit.init, static_argnums=2)(jax.random.key(1), x, 4)


def test_a_cell(added, monkeypatch):
    ugrnn = added("surnn_jax/cells/update_gate.py").UGRNN
    made = executed("surnn_jax/cells/__init__.py").CELLS["ugrnn"]
    monkeypatch.setitem(cells.CELLS, "ugrnn", made)
    unit = selective("ugrnn", switches.every(6, n=2))
    params = begun(unit, X)
    params["cell"]["vector"]["b_g"] += 0.3
    results = [outputs_and_gradients(unit, params, X, name) for name in ("reference", "masked")]
    chex.assert_trees_all_close(*results, atol=1e-5)  # float32
    # Its equations in NumPy.
    w, u, b = (
        {gate: np.asarray(value) for gate, value in params["cell"][kind].items()}
        for kind in ("input", "recurrent", "vector")
    )
    h = np.zeros((2, 4))
    for t, x in enumerate(X):
        if t % 2 == 0:
            g = 1 / (1 + np.exp(-(x @ w["g"] + h @ u["g"] + b["b_g"])))
            h = g * h + (1 - g) * np.tanh(x @ w["c"] + h @ u["c"] + b["b_c"])
        np.testing.assert_allclose(results[1][0][t], h, atol=1e-6)
    assert ugrnn.name == "ugrnn"
    # By its name in a layer.
    layer = Recurrent("ugrnn", 4)
    assert layer.init_with_output(jax.random.key(0), jnp.ones((2, 3, 3)))[0].shape == (2, 3, 4)


def test_a_switch(added, monkeypatch):
    added("surnn_jax/switches/beat_switch.py")
    beat = executed("surnn_jax/switches/__init__.py").SWITCHES["beat"]
    monkeypatch.setitem(switches.SWITCHES, "beat", beat)
    unit = selective("tanh", switches.SWITCHES["beat"](100, n=3))
    params = begun(unit, X)
    results = [outputs_and_gradients(unit, params, X, name) for name in ("reference", "masked")]
    chex.assert_trees_all_close(*results, atol=1e-5)  # float32
    assert run(unit, params, X).update_mask[:, 0].tolist() == [1, 0, 0, 1, 0, 0]
    h = results[1][0]
    assert (h[0] == h[1]).all()
    assert not (h[2] == h[3]).any()
    with pytest.raises(TypeError, match="'m'"):
        switches.SWITCHES["beat"](100, m=3)


def test_a_back_end(added, monkeypatch):
    plain = added("surnn_jax/scan/plain.py")
    assert executed("surnn_jax/scan/backends.py").BACKENDS["plain"] is plain
    monkeypatch.setitem(scan.BACKENDS, "plain", plain)
    unit = selective("gru", switches.event(6, rate=0.5))
    params = begun(unit, X[:4])
    given = {"lengths": jnp.array([3, 4]), "resets": jnp.zeros((4, 2), bool).at[2, 1].set(True)}
    results = [
        outputs_and_gradients(unit, params, X[:4], name, **given) for name in ("reference", "plain")
    ]
    chex.assert_trees_all_close(*results, atol=1e-5)  # float32
    assert scan.choose(unit, 4, 6, 2).backend != "plain"


def test_an_optimizer(monkeypatch):
    optimizers = executed("surnn_jax/train/optimizers.py")
    config = optimizers.OptimizerConfig("lion", 0.01)
    rule = optimizers.make(config)
    params = {"w": jnp.array([1.0, -2.0])}
    updates, _ = rule.update({"w": jnp.array([0.5, -3.0])}, rule.init(params), params)
    # Lion goes by the sign of the gradient alone.
    np.testing.assert_allclose(updates["w"], [-0.01, 0.01], rtol=1e-6)


@pytest.fixture(scope="module")
def changed_tree(tmp_path_factory):
    """`data` and `experiments` with every change and every new file, imported from a copy."""
    tree = tmp_path_factory.mktemp("tree")
    for package in COPIED:
        ignored = shutil.ignore_patterns("results", "__pycache__")
        shutil.copytree(ROOT / package, tree / package, ignore=ignored)
    new = new_files(GUIDE) | new_files(OWN)
    paths = {path for document in (GUIDE, OWN) for path, _, _ in changes(document)}
    for path in (path for path in (*new, *paths) if path.partition("/")[0] in COPIED):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(new[path] if path in new else changed(path, GUIDE, OWN))

    def ours():
        return [name for name in sys.modules if name.partition(".")[0] in COPIED]

    with pytest.MonkeyPatch.context() as patch:
        before = {name: sys.modules.pop(name) for name in ours()}
        patch.setattr(sys, "path", [str(tree), *sys.path])
        patch.setenv("SURNN_CACHE", str(tree / "cache"))
        importlib.invalidate_caches()
        yield tree
        for name in ours():
            del sys.modules[name]
        sys.modules.update(before)


SMALL = {"layers": "tanh", "features": 4, "bare": True}
"""What compiles fast."""


def prepared(experiment: str, folder: Path | None, **fields):
    registry = importlib.import_module("experiments.tasks.registry")
    own = registry.load(experiment)
    config = own.config(**fields)
    own.check(config)
    return own.prepare(config, None if folder is None else str(folder))


def two_steps(made) -> dict[str, float]:
    """Takes two steps down the gradient, sees the loss fall, and gives the metrics."""
    task, batch, key = made.task, made.feeds["train"].batch(0), jax.random.key(0)
    params = task.init(key, batch)
    memory = () if task.memory is None else (task.memory(params, batch),)

    @jax.jit
    def step(params):
        loss, gradient = jax.value_and_grad(lambda p: task.loss(p, batch, key, *memory)[0])(params)
        return loss, jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)

    losses = []
    for _ in range(3):
        loss, params = step(params)
        losses.append(float(loss))
    assert losses[2] < losses[1] < losses[0]
    measured = task.evaluate(params, batch, *memory)
    measured = measured[0] if memory else measured
    return {name: float(total / weight) for name, (total, weight) in measured.items()}


def gestures(folder: Path) -> dict[str, np.ndarray]:
    """Writes twenty recordings of three classes; name -> numbers."""
    random = np.random.default_rng(0)
    (folder / "gestures").mkdir()
    found = {}
    for i in range(20):
        name = f"{('nod', 'shake', 'wave')[i % 3]}-{i:02d}.csv"
        found[name] = random.normal(size=(30 + i, 3)).astype(np.float32)
        np.savetxt(folder / "gestures" / name, found[name], "%.9g", delimiter=",")
    return found


def test_a_metric_and_a_data_set_of_your_own(changed_tree, tmp_path):
    written = gestures(tmp_path)
    data = importlib.import_module("data")
    splits = {name: data.load("gestures", name, tmp_path) for name in data.SPLITS}
    assert [len(split) for split in splits.values()] == [16, 2, 2]
    assert sorted(name for split in splits.values() for name in split.ids) == sorted(written)
    for split in splits.values():
        for i, name in enumerate(split.ids):
            example = split.example(i)
            np.testing.assert_array_equal(example["x"], written[name])
            assert name.startswith(split.facts["names"][example["y"]])
    (line,) = data.source_of("gestures").show(splits["test"].example(0), splits["test"].facts)
    assert line.partition(":")[0] in ("nod", "shake", "wave")
    made = prepared("lra", tmp_path, dataset="gestures", batch_size=4, **SMALL)
    found = two_steps(made)
    assert 0 <= found["error"] <= 1
    # The metric of the guide: of the likeliest of three classes.
    assert 1 / 3 < found["confidence"] < 1


def test_an_experiment_of_your_own(changed_tree, tmp_path):
    gestures(tmp_path)
    program = importlib.import_module("experiments.gestures")
    (config,) = program.PRESETS["gestures-sugru"].values()
    assert config.names == ("sugru",)
    listing = importlib.import_module("experiments.report.listing")
    assert "gestures-sugru," in listing.show("gestures", program.PRESETS)
    fields = {**vars(config), **SMALL}
    assert "error" in two_steps(prepared("gestures", tmp_path, **fields))


@pytest.mark.full
def test_an_experiment_with_a_model_of_its_own(changed_tree, tmp_path):
    registry = importlib.import_module("experiments.tasks.registry")
    launch = importlib.import_module("experiments.runner.launch")
    options = importlib.import_module("experiments.runner.flags").LaunchOptions
    own = registry.load("sines")
    config = own.config(cell="tanh", max_epochs=2, features=4)
    launch.run_all(own, {"": config}, options(workdir=str(tmp_path), command="python -m sines"))
    restored = registry.restore(tmp_path, None)
    assert restored.config == config
    assert restored.record.metrics["test_mse"] < 1
    # A bad field is refused by the name of its flag.
    with pytest.raises(ValueError, match="noise"):
        own.check(own.config(noise=-1.0))


def test_the_files_that_each_example_opens_are_listed():
    text = (ROOT / GUIDE).read_text()
    opened = [*new_files(GUIDE), *(path for path, _, _ in changes(GUIDE))]
    for section in text.split("\n## ")[1:]:
        listed = re.findall(r"`([\w/.]+)`", section.partition("*Files:*")[2].partition("\n\n")[0])
        inside = [path for path in opened if f"# {path}\n" in section or f"--- {path}\n" in section]
        assert set(inside) <= set(listed), section.splitlines()[0]
