"""Committed models load by name, answer as their records say, and have a card each."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import data
from data.paths import ROOT
from experiments import pretrained
from experiments.report.collect import RESULTS
from experiments.runner import records
from experiments.tasks import registry

PAGE = ROOT / "docs" / "howto" / "pretrained.md"


def test_every_committed_model_has_a_name_and_a_card():
    found = pretrained.folders()
    kept = {path.parent for path in RESULTS.rglob("params.npz")}
    assert kept <= set(found.values())
    assert len(found) == len(set(found.values())) == len(kept) + len(pretrained.ELSEWHERE)
    for name, folder in found.items():
        card, record = pretrained.card(name), records.read(folder / records.FILE)
        assert card.figure == records.headline(record), name
        assert (card.parameters, card.command) == (record.parameters, record.command)
        assert all((card.data, card.inputs, card.licence)), name
        assert re.search(r"2026-\d\d-\d\d$", card.date), name


def test_a_published_winner_gets_a_name(tmp_path, monkeypatch):
    folder = tmp_path / "surnn" / "short" / "smnist" / "sugru" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "params.npz").touch()
    monkeypatch.setattr(pretrained, "RESULTS", tmp_path)
    assert pretrained.folders()["smnist-sugru-short"] == folder


def test_a_wrong_name_is_answered_with_the_nearest():
    for call in (pretrained.load_pretrained, pretrained.card):
        with pytest.raises(ValueError, match=r"^unknown pretrained model 'chung-jsb-grru'; did "
                           r"you mean 'chung-jsb-gru'\?"):  # fmt: skip
            call("chung-jsb-grru")


@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("chung-jsb-gru", jnp.zeros((2, 7, 88))),
        ("controlled-fsdd-lstm", jnp.zeros((2, 7, 20))),
        ("selective_copy-sugru-event", jnp.zeros((2, 96), jnp.int32)),
    ],
)
def test_a_model_loads_without_its_data_and_is_ready_to_apply(name, x, monkeypatch):
    def refuse(*args):
        raise AssertionError("it reads data")

    monkeypatch.setattr(data, "load", refuse)
    model, params = pretrained.load_pretrained(name)
    found = jax.eval_shape(model.apply, params, x)
    leaf = jax.tree.leaves(found)[0]
    assert leaf.shape[:2] == x.shape[:2]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == pretrained.card(name).parameters


def test_a_loaded_model_reproduces_its_recorded_figure():
    """On the test split of the adding problem, which is made; its answers are summed up here."""
    name = "adding-sugru-event"
    model, params = pretrained.load_pretrained(name)
    feed = registry.restore(pretrained.folders()[name], None).prepared.feeds["test"]
    apply, errors = jax.jit(model.apply), []
    for batch in feed.evaluation():
        x = batch["x"][batch["index"] >= 0] if "index" in batch else batch["x"]
        wanted = (x[..., 0] * x[..., 1]).sum(axis=1)
        answers = apply(params, x).outputs[:, -1, 0]
        errors.append(np.square(np.asarray(answers, np.float64) - wanted))
    unit, recorded = pretrained.card(name).figure
    assert unit == "mean squared error"
    assert np.concatenate(errors).mean() == pytest.approx(recorded, rel=1e-4)


def test_the_page_has_the_table_of_the_records():
    (shown,) = pretrained.HOLE.findall(PAGE.read_text())
    assert shown == pretrained.table(), "out of date: run `make report`"


@pytest.mark.full
def test_the_command_prints_the_list_and_a_card(tmp_path):
    def run(*flags):
        command = [sys.executable, "-m", "experiments.pretrained", *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert run().stdout.strip() == pretrained.table()
    card = run("--name=controlled-fsdd-gru").stdout
    for words in (
        "CC BY-SA 4.0",
        "Apache-2.0",
        "-9.4152 nats a step",
        "264,648",
        "--search_seed=7",
    ):
        assert words in card
    wrong = run("--name=nothing")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- end -->\nafter\n")
    assert run(f"--page={page}").returncode == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- table -->\n| name |")
    assert text.endswith("|\n<!-- end -->\nafter\n")
