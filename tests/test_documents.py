"""What the documents show is code that runs, links lead somewhere, and names in them exist."""

import dataclasses
import importlib
import importlib.util
import json
import re
import tomllib

import jax
import pytest
import yaml

import surnn_jax
from data.paths import ROOT
from experiments.runner.config import flag_of
from experiments.tasks.music.config import Config as Music
from experiments.tasks.sequence.config import Config as Sequence
from experiments.tasks.speech.config import Config as Speech
from surnn_jax import cells, switches

PAGES = tuple(sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))
"""The pages of the site, without those that it makes of notebooks."""
READMES = (
    "benchmarks/README.md",
    "data/README.md",
    "experiments/README.md",
    "experiments/tuning/README.md",
    "surnn_jax/scan/README.md",
    "surnn_jax/train/README.md",
)
DOCUMENTS = ("README.md", *READMES, *PAGES, "CHANGELOG.md", "CONTRIBUTING.md", "data/OWN_DATA.md")
CONFIGS = (Music, Sequence, Speech)


def blocks(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(), re.M | re.S)


def executed(document: str) -> dict[str, object]:
    """The names that the blocks of a document leave, run as a program with JAX's defaults."""
    names = {"__name__": "__main__"}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for number, block in enumerate(blocks(document)):
            exec(compile(block, f"{document}, block {number}", "exec"), names)
    return names


@pytest.mark.parametrize(
    "document", ["README.md", "docs/installation.md", "docs/howto/accelerators.md"]
)
def test_commands_to_install_need_nothing_filled_in(document):
    """They run as they are printed: no address or folder stands in words."""
    text = (ROOT / document).read_text()
    commands = "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S))
    commands += "\n".join(re.findall(r"`(pip install [^`]*)`", text))
    commands = re.sub(r" +#.*", "", commands)
    assert "pip install" in commands
    assert not re.findall(r"<\w|\b[A-Z]{4,}\b(?!=)", commands.replace("$PWD", ""))


def test_every_page_stands_in_the_navigation_once():
    listed = re.findall(r": ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert [page for page in listed if listed.count(page) > 1] == []


def test_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    (script,) = blocks("README.md")
    assert len([line for line in script.splitlines() if line]) <= 30


@pytest.mark.full
def test_the_script_of_readme_reaches_what_it_says():
    names = executed("README.md")
    assert names["error"] < 0.01
    assert 0.05 < names["rate"] < 0.15
    # "Guessing the mean has a squared error of 0.17": two uniform numbers have a variance of 1/6.
    with jax.numpy_dtype_promotion("standard"):
        _, sums = names["batch"](jax.random.key(0))
    assert abs(sums.var() - 0.17) < 0.1


@pytest.mark.full
def test_the_guide_runs_from_top_to_bottom():
    names = executed("docs/guide.md")
    assert names["logits"].shape == (8, 10)
    assert names["made"].outputs.shape == (8, 784, 64)
    assert abs(names["made"].rate - 0.1) < 0.005
    assert names["result"].update_mask.shape == names["result"].outputs.shape == (784, 8, 64)
    # Of 1,000 words, before any training: scores of unit variance cost half a nat.
    assert 500 < names["perplexity"] < 3000
    # Thresholds were set by this very batch.
    assert abs(names["result"].rate - 0.05) < 0.005
    assert abs(names["rate"] - 0.1) < 0.005
    assert names["log_probabilities"].shape == (4, 1000)


OTHERS = [name for name in (*READMES, *PAGES) if blocks(name) and name != "docs/guide.md"]
SLOW_PAGES = {f"docs/howto/{name}.md" for name in ("own-cell", "own-switch", "pretrained")}


@pytest.mark.parametrize(
    "document",
    [pytest.param(name, marks=pytest.mark.full) if name in SLOW_PAGES else name for name in OTHERS],
)
def test_the_blocks_of_a_document_run_from_top_to_bottom(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    executed(document)


def notebook() -> dict[str, object]:
    return json.loads((ROOT / "docs/tutorial.ipynb").read_text())


def saved_text(cells) -> str:
    return "".join(
        "".join(output.get("text", ()))
        for cell in cells
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
    )


def test_the_notebook_has_its_outputs():
    """Every cell that prints or draws has been run, in order."""
    code = [cell for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        source = "".join(cell["source"])
        kinds = {output["output_type"] for output in cell["outputs"]}
        assert ("print(" in source) == ("stream" in kinds)
        assert ("plt.subplots(" in source) == ("display_data" in kinds)


@pytest.mark.full
def test_the_notebook_does_what_it_shows():
    made = notebook()
    saved = saved_text(made["cells"])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        names = hooks_of("execute").execute(made)
    measured = names["fitted"].history[-1]
    assert measured["valid/accuracy"] > 0.9
    assert 0.1 < measured["valid/update_rate"] < 0.3
    # Digits differ by the machine, words do not.
    now = saved_text(made["cells"])
    assert re.sub(r"[\d.,e+-]+", "#", now) == re.sub(r"[\d.,e+-]+", "#", saved)


def hooks_of(name: str):
    """A module of the site's own code."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_includes(document: str) -> str:
    """A page with the text of the files that it includes."""
    hooks = hooks_of("hooks")

    def included(match):
        text = (ROOT / match[1]).read_text()
        return hooks.section(text, match[2]) if match[2] else text

    return hooks.INCLUDE.sub(included, (ROOT / document).read_text())


def anchors(text: str) -> set[str]:
    """Those that a forge gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    documented = set(re.findall(r"^::: ([\w.]+)$", text, re.M))
    return documented | {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    for link in links:
        name, _, anchor = link.partition("#")
        target = ((ROOT / document).parent / name if name else ROOT / document).resolve()
        assert target.exists(), link
        shown = with_includes(str(target.relative_to(ROOT))) if anchor else ""
        assert not anchor or anchor in anchors(shown), link


def test_every_promise_has_tests_that_bear_its_number():
    promised = re.findall(r"^(\d+)\. ", (ROOT / "docs/promises.md").read_text(), re.M)
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
    if document == "CONTRIBUTING.md":  # Its own example.
        modules -= {"experiments.gestures"}
    missing = [
        module
        for module in modules
        if not (ROOT / module.replace(".", "/")).with_suffix(".py").exists()
    ]
    assert not missing


def test_the_map_of_the_folders_is_true():
    """Every package has a row, and every name in a row is there."""
    text = (ROOT / "docs/code.md").read_text()
    rows = re.findall(r"^\| `([\w/]+)/` \| (.*) \|$", text, re.M)
    packages = {
        str(path.parent.relative_to(ROOT))
        for package in ("surnn_jax", "data", "experiments", "benchmarks")
        for path in (ROOT / package).rglob("__init__.py")
    }
    inner = {
        "surnn_jax/scan/cuda",
        "surnn_jax/scan/native",
        "surnn_jax/scan/pallas",
        "data/sets/pathfinder",
        "data/sets/own",
    }
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
    renamed = {(own.name, flag_of(own)) for own in fields if flag_of(own) != own.name}
    # `--data` is no longer the old name of `--copy_tokens`: it names own files.
    assert written == renamed - {("data", "copy_tokens"), ("own", "data")}


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


def test_what_make_docs_installs_is_the_extra():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (line,) = re.findall(
        r"^docs: install\n\t\$\(PIP\) (.+)$", (ROOT / "Makefile").read_text(), re.M
    )
    wanted = [re.sub(r">=.*", "", name) for name in extra["docs"]]
    assert line.replace("'", "").split() == wanted
    pinned = (ROOT / "constraints.txt").read_text()
    for name in wanted:
        assert re.search(rf"^{re.escape(name.partition('[')[0])}==", pinned, re.M), name


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = set(re.findall(r"([\w/-]+\.md)$", navigation, re.M))
    assert listed == {page.removeprefix("docs/") for page in PAGES} | {"tutorial.md"}


def test_the_table_of_cells_and_switches_is_complete():
    text = (ROOT / "docs/units.md").read_text()
    named = set(re.findall(r"^\| `(\w+)", text, re.M))
    assert named >= {*cells.CELLS, *switches.SWITCHES, *switches.SURROGATES}


REFERENCE = {
    name
    for page in (ROOT / "docs/api").glob("*.md")
    for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M)
}


@pytest.mark.parametrize(
    "package",
    [
        *("surnn_jax", "surnn_jax.cells", "surnn_jax.switches", "surnn_jax.scan"),
        *("surnn_jax.layers", "surnn_jax.layers.export", "surnn_jax.layers.weights"),
        *("surnn_jax.nnx", "surnn_jax.train", "data"),
    ],
)
def test_every_public_name_is_in_the_reference(package):
    module = importlib.import_module(package)
    names = getattr(module, "__all__", ("sequence", "step", "begin"))
    for name in names:
        if name == "__version__":
            continue
        # What two packages export is described once.
        value = getattr(module, name)
        shown = [found(other) for other in REFERENCE if other.rpartition(".")[2] == name]
        assert any(one is value for one in shown), f"{package}.{name}"


def test_what_the_reference_names_exists():
    for name in REFERENCE:
        found(name)
