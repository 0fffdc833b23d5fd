"""The code that README and CONTRIBUTING show is code that runs, and links lead somewhere."""

import dataclasses
import re
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import pytest

from data.paths import ROOT
from surnn_jax import run, selective
from surnn_jax.cells import Cell
from surnn_jax.switches import Switch
from surnn_jax.typing import Array

FOLDERS = ("", "benchmarks/", "data/", "experiments/")


def blocks(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(), re.M | re.S)


def test_readme_runs_from_top_to_bottom():
    names = {}
    for block in blocks("README.md"):
        exec(block, names)
    assert names["logits"].shape == (8, 10)
    assert names["outputs"].shape == (8, 784, 64)
    assert names["result"].update_mask.shape == names["result"].outputs.shape == (784, 8, 64)
    # Of 1,000 words, before any training: scores of unit variance cost half a nat.
    assert 500 < names["perplexity"] < 3000
    # Thresholds were set by this very batch.
    assert abs(names["result"].rate - 0.05) < 0.005


def test_the_unit_and_the_switch_of_contributing_work():
    given = {
        "Array": Array,
        "Cell": Cell,
        "NamedTuple": NamedTuple,
        "Switch": Switch,
        "dataclasses": dataclasses,
        "jax": jax,
        "jnp": jnp,
    }
    for block in blocks("CONTRIBUTING.md"):
        exec(block, given)
    unit = selective(given["MGU"], given["Beat"](3))
    x = jax.random.normal(jax.random.key(0), (6, 2, 3))
    params = unit.init(jax.random.key(1), x, 4)
    results = [run(unit, params, x, backend=name) for name in ("reference", "masked")]
    chex.assert_trees_all_close(*results, atol=1e-6)  # float32
    assert results[1].update_mask[:, 0].tolist() == [1, 0, 0, 1, 0, 0]
    h = results[1].outputs
    assert (h[0] == h[1]).all()
    assert not (h[2] == h[3]).any()


def anchors(text: str) -> set[str]:
    """Those that a forge gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "document",
    ["CONTRIBUTING.md", *(f"{folder}README.md" for folder in FOLDERS)],
)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    for link in links:
        name, _, anchor = link.partition("#")
        target = (ROOT / document).parent / name if name else ROOT / document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_promise_of_readme_has_tests_that_bear_its_number():
    promised = re.findall(r"^(\d+)\. ", (ROOT / "README.md").read_text(), re.M)
    sources = [path.read_text() for path in (ROOT / "tests").glob("test_*.py")]
    tested = {n for text in sources for n in re.findall(r"^def test_promise_(\d+)_", text, re.M)}
    assert len(promised) == 11
    assert tested == set(promised)
