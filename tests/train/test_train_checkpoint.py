"""A checkpoint is whole or refused (promise 7)."""

import hashlib
import logging
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_case import TASK, batch, digest, fit

from surnn_jax.train import CorruptCheckpointError, checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with its last two checkpoints, of steps 23 and 24."""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, fit(workdir)


@pytest.fixture
def copy(run, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(run[0], workdir)
    return workdir


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_promise_7_every_flipped_bit_is_found_in_the_file_where_it_is(copy):
    draw = random.Random(7)
    folder = copy / "checkpoints" / "24"
    checkpoint.verify(folder)
    everything = files(folder)
    assert folder / checkpoint.MANIFEST in everything
    tried = [*everything, *draw.choices(everything, k=25)]
    places = [
        (path, draw.randrange(8 * path.stat().st_size)) for path in tried if path.stat().st_size
    ]
    # The manifest's first line holds the hash of the rest, and nothing else does.
    places += [(folder / checkpoint.MANIFEST, 8 * byte + 1) for byte in range(0, 66, 5)]
    for path, bit in places:
        flip(path, bit)
        with pytest.raises(CorruptCheckpointError) as caught:
            checkpoint.verify(folder)
        assert str(path) in str(caught.value)
        flip(path, bit)
    checkpoint.verify(folder)


@pytest.mark.parametrize("harm", ["truncated", "missing", "added"])
def test_promise_7_a_changed_file_list_names_the_file(copy, harm):
    folder = copy / "checkpoints" / "24"
    path = max(files(folder / "state"), key=lambda file: file.stat().st_size)
    if harm == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "missing":
        path.unlink()
    else:
        path = path.with_name("stray")
        path.touch()
    with pytest.raises(CorruptCheckpointError) as caught:
        fit(copy)
    assert str(path) in str(caught.value)
    assert "restore=latest_good" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {f.name for f in (copy / "checkpoints").iterdir()} == {"23", "24"}


def test_promise_7_latest_good_goes_on_from_before_and_says_so(run, copy, caplog):
    damaged = max(files(copy / "checkpoints" / "24" / "state"), key=lambda f: f.stat().st_size)
    flip(damaged, 1000)
    with caplog.at_level(logging.WARNING):
        done = fit(copy, restore="latest_good")
    assert str(damaged) in caplog.text
    assert digest((done.params, done.last_params)) == digest((run[1].params, run[1].last_params))
    names = {folder.name for folder in (copy / "checkpoints").iterdir()}
    assert names == {"23", "24", "24.damaged"}


def test_promise_7_no_silent_restart_when_all_are_damaged(copy):
    for step in ("23", "24"):
        (copy / "checkpoints" / step / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(CorruptCheckpointError, match="no good checkpoint is left"):
        fit(copy, restore="latest_good")
    for step in ("23", "24"):
        (copy / "checkpoints" / step / checkpoint.MANIFEST).unlink()
    with pytest.raises(
        CorruptCheckpointError, match=r"MANIFEST.sha256 is missing; no good checkpoint"
    ):
        fit(copy)


def test_leftovers_of_killed_saves_are_no_checkpoints(run, copy):
    # Orbax takes an empty folder of the highest number for the latest step.
    (copy / "checkpoints" / "99").mkdir()
    (copy / "checkpoints" / "98.orbax-checkpoint-tmp").mkdir()
    (copy / "checkpoints" / "24" / checkpoint.MANIFEST).unlink()
    done = fit(copy)
    assert digest((done.params, done.last_params)) == digest((run[1].params, run[1].last_params))
    assert {folder.name for folder in (copy / "checkpoints").iterdir()} == {"23", "24"}
    checkpoint.verify(copy / "checkpoints" / "24")


def test_the_best_parameters_are_read_without_an_optimizer(run):
    workdir, done = run
    folder = checkpoint.find(workdir)
    assert folder.name == "24"
    shapes = jax.eval_shape(TASK.init, jax.random.key(0), batch(0))
    assert digest(checkpoint.read(folder, "best", shapes)) == digest(done.params)
    record = checkpoint.read_record(folder)
    assert record["config"]["cell"] == "tanh"
    assert record["progress"]["best_value"] == done.best_value


def test_other_shapes_are_refused(run):
    shapes = jax.eval_shape(TASK.init, jax.random.key(0), {"x": np.zeros((4, 6, 5))})
    folder = checkpoint.find(run[0])
    with pytest.raises(ValueError, match="best holds cell/w: float32") as caught:
        checkpoint.read(folder, "best", shapes)
    assert str(caught.value).endswith("float32[3, 8], but this model has float32[5, 8]")
    del shapes["cell"]["w"]
    with pytest.raises(ValueError, match=r"float32\[3, 8\], but this model has nothing"):
        checkpoint.read(folder, "best", shapes)


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.find(tmp_path) is None


def test_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_FORMAT", 0)
    fit(tmp_path, max_epochs=1, save_seconds=1e9)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format 0, this version reads 1 and 2"):
        fit(tmp_path, max_epochs=1)


def test_what_is_saved_in_the_background_is_the_state_of_that_step(tmp_path):
    """The next steps are given the state's memory to use up while it is still being written."""
    state = {"w": jnp.arange(2.0**20)}
    use_up = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0)
    writer = checkpoint.Writer(tmp_path, None)
    for step in range(3):
        before = np.asarray(state["w"]).copy()
        writer.save(step, state, {"b": jnp.zeros(3)}, {})
        state = use_up(state)
        assert state["w"][0] == -1
        writer.wait()
        found = checkpoint.read(checkpoint.find(tmp_path), "state", state)
        np.testing.assert_array_equal(found["w"], before)
        state = {"w": jnp.arange(2.0**20) + step}
    writer.close()


def test_a_checkpoint_under_the_name_of_another_step_is_refused(copy):
    shutil.rmtree(copy / "checkpoints" / "24")
    (copy / "checkpoints" / "23").rename(copy / "checkpoints" / "24")
    with pytest.raises(CorruptCheckpointError, match=r"checkpoints/24 holds step 23"):
        fit(copy)


def test_a_checkpoint_of_another_run_is_refused(copy, tmp_path):
    """Another seed is enough; a run of the same configuration has the same bits."""
    other = tmp_path / "other"
    fit(other, config={"seed": 1}, save_seconds=1e9)
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(other / "checkpoints", copy / "checkpoints")
    with pytest.raises(ValueError, match="seed"):
        fit(copy)


@pytest.mark.parametrize("body", [b"\xff\xff  a\n", b"no sum\n", b"a b c\n"])
def test_a_manifest_of_another_form_with_its_right_sum_is_named(copy, body):
    path = copy / "checkpoints" / "24" / checkpoint.MANIFEST
    path.write_bytes(b"# " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(CorruptCheckpointError, match=checkpoint.MANIFEST):
        checkpoint.verify(path.parent)
