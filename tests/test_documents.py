"""What the documents show is code that runs, links lead somewhere, and names in them exist."""

import dataclasses
import importlib
import re

import pytest
import yaml

import surnn_jax
from data.paths import ROOT
from experiments.runner.config import flag_of
from experiments.tasks.music.config import Config as Music
from experiments.tasks.sequence.config import Config as Sequence
from experiments.tasks.speech.config import Config as Speech

READMES = (
    "README.md",
    "benchmarks/README.md",
    "data/README.md",
    "experiments/README.md",
    "surnn_jax/scan/README.md",
    "surnn_jax/train/README.md",
)
DOCUMENTS = (*READMES, "CHANGELOG.md", "CONTRIBUTING.md", "data/OWN_DATA.md", "docs/peers.md")
CONFIGS = (Music, Sequence, Speech)


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
    assert names["log_probabilities"].shape == (4, 1000)


@pytest.mark.parametrize("document", [name for name in READMES[1:] if blocks(name)])
def test_the_readme_of_a_room_runs_from_top_to_bottom(document):
    names = {}
    for block in blocks(document):
        exec(block, names)


def anchors(text: str) -> set[str]:
    """Those that a forge gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
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
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    tested = {n for text in sources for n in re.findall(r"^def test_promise_(\d+)_", text, re.M)}
    assert len(promised) == 11
    assert tested == set(promised)


@pytest.mark.parametrize("document", [*DOCUMENTS, "Makefile"])
def test_commands_name_programs_that_exist(document):
    text = (ROOT / document).read_text()
    modules = set(
        re.findall(r"python -m ((?:benchmarks|data|experiments|surnn_jax)\.[\w.]+)", text)
    )
    for names in re.findall(r"for what in ([\w ]+);", text):  # `make bench`
        modules |= {f"benchmarks.{name}" for name in names.split()}
    if document == "CHANGELOG.md":  # Names the old programs, too.
        modules -= {"benchmarks.floors", "benchmarks.held"}
    if document == "CONTRIBUTING.md":  # Of its own example.
        modules -= {"experiments.gestures"}
    missing = [
        module
        for module in modules
        if not (ROOT / module.replace(".", "/")).with_suffix(".py").exists()
    ]
    assert not missing


def test_the_map_of_readme_is_true():
    """Every package has a row, and every name in a row is there."""
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| `([\w/]+)/` \| (.*) \|$", text.partition("## Map")[2], re.M)
    packages = {
        str(path.parent.relative_to(ROOT))
        for package in ("surnn_jax", "data", "experiments", "benchmarks")
        for path in (ROOT / package).rglob("__init__.py")
    }
    inner = {"surnn_jax/scan/native", "surnn_jax/scan/pallas", "data/sets/pathfinder"}
    inner |= {f"experiments/tasks/{task}" for task in ("music", "sequence", "speech")}
    folders = {folder for folder, _ in rows}
    assert packages - inner - {"surnn_jax"} == folders
    for folder, words in rows:
        for name in re.findall(r"`([\w/]+)`", words):
            if name != "fit":
                path = ROOT / folder / name
                assert path.is_dir() if name.endswith("/") else path.with_suffix(".py").exists(), (
                    f"{folder}/{name}"
                )
    named = {
        f"{folder}/{name.rstrip('/')}"
        for folder, words in rows
        for name in re.findall(r"`([\w/]+/)`", words)
    }
    assert inner <= named


def test_new_names_in_the_changelog_exist_and_old_ones_do_not():
    rows = re.findall(
        r"^\| `(surnn_jax\.[\w.]+)` \| `(surnn_jax\.[\w.]+)` \|$",
        (ROOT / "CHANGELOG.md").read_text(),
        re.M,
    )
    assert len(rows) > 10
    for old, new in rows:
        found(new)
        with pytest.raises((ImportError, AttributeError)):
            found(old)


def test_flags_of_the_changelog_are_those_of_the_experiments():
    rows = re.findall(
        r"^\| `--(\w+)` \| `--(\w+)`(?:; \w+: `--(\w+)`)? \|$",
        (ROOT / "CHANGELOG.md").read_text(),
        re.M,
    )
    written = {(old, name) for old, *new in rows for name in new if name}
    fields = [own for kind in CONFIGS for own in dataclasses.fields(kind)]
    assert written == {(own.name, flag_of(own)) for own in fields if flag_of(own) != own.name}


def found(name: str):
    """The object or module of a dotted name."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError:
        return importlib.import_module(name)


def test_versions_that_are_written_twice_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == surnn_jax.__version__
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (pinned,) = re.findall(r"^ruff==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert hooks["rev"] == "v" + pinned
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    assert versions == ["3.11", "3.12", "3.13"]
