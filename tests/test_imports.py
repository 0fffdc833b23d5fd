"""Imports go one way, no file is too long, and `experiments` shows its programs and rooms."""

import ast
import functools
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("surnn_jax", "data", "experiments", "benchmarks")

FLOORS = {
    "surnn_jax": (
        {"surnn_jax.names", "surnn_jax.typing"},
        {"surnn_jax.command"},
        {"surnn_jax.cells", "surnn_jax.switches"},
        {"surnn_jax.scan"},
        {"surnn_jax.layers", "surnn_jax.train"},
        {"surnn_jax.nnx"},
        {"surnn_jax"},
    ),
    "data": (
        {
            "data.arrays",
            "data.cli",
            "data.columns",
            "data.guarded",
            "data.matlab",
            "data.source",
            "data.prefetch",
        },
        {"data.tree", "data.parquet"},
        {"data.files", "data.paths", "data.pickles", "data.storage", "data.download"},
        {"data.batches", "data.cache", "data.generation", "data.midi", "data.tfds"},
        {"data.sets", "data.streams", "data.synthetic"},
        {"data"},
        {"data.describe", "data.export", "data.prepare"},
    ),
    "experiments": (
        {"experiments.analysis"},
        {"experiments.runner"},
        {"experiments.tasks"},
        {"experiments.tuning"},
        {"experiments.report"},
        {"experiments"},  # The programs themselves.
    ),
    "benchmarks": ({"benchmarks"},),
}
"""The floors of each package, the lowest first. A room imports from itself and from floors below
its own: not from those above, and not from the others on its own. The longest name counts, so
``data`` is that module alone."""

PROGRAMS = {"evaluate", "export", "lra", "music", "pixels", "search", "speech", "synthetic"}
PROGRAMS |= {"pretrained", "report_page", "reproduce", "tables", "wikitext"}
ROOMS = {"analysis", "report", "runner", "tasks", "tuning"}

OTHER_PACKAGES = {
    "surnn_jax": set(),
    "data": set(),
    "experiments": {"surnn_jax", "data"},
    "benchmarks": {
        "surnn_jax",
        "data",
        "experiments",  # Its presets are compiled for GPUs; versions; the style of pictures.
    },
}
"""What each package may import of the others."""

BY_NAME = {"data": "data.sets."}
"""Module -> the modules it imports by a name put together at run time."""

LONGEST = 400


@functools.cache
def files() -> dict[str, Path]:
    """Every module of ours and its file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(module: str) -> set[str]:
    """The modules of ours that `module` names in an import, wherever in its file that stands."""
    named = set()
    for node in ast.walk(ast.parse(files()[module].read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module if files()[module].stem == "__init__" else module.rpartition(".")[0]
            origin = importlib.util.resolve_name(
                "." * node.level + (node.module or ""), package if node.level else None
            )
            names = {f"{origin}.{alias.name}" for alias in node.names}
            # What is no module is a name that `origin` itself has to know.
            named |= names if names <= files().keys() else {*names, origin}
    if module in BY_NAME:
        named |= {name for name in files() if name.startswith(BY_NAME[module])}
    return named & files().keys()


@functools.cache
def arrows() -> dict[str, set[str]]:
    return {module: imported(module) for module in files()}


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def room_of(module: str) -> tuple[int, str]:
    """The floor and the room of a module."""
    rooms = [
        (floor, room)
        for floor, rooms in enumerate(FLOORS[module.partition(".")[0]])
        for room in rooms
        if within(module, room)
    ]
    return max(rooms, key=lambda found: len(found[1]))


def test_every_import_points_down():
    wrong = []
    for module, others in arrows().items():
        package = module.partition(".")[0]
        for other in others:
            if other.partition(".")[0] != package:
                if not any(within(other, room) for room in OTHER_PACKAGES[package]):
                    wrong.append(f"{module} imports {other} of another package")
                continue
            (floor, room), (other_floor, other_room) = room_of(module), room_of(other)
            shared = room == other_room != "experiments"  # Each of the programs stands alone.
            if other_floor >= floor and not shared:
                wrong.append(f"{module} imports {other}, from floor {floor} to {other_floor}")
    assert not wrong, "\n".join(sorted(wrong))


def test_there_is_no_circle():
    # Take away modules that import nothing that is left, or that nothing left imports: a circle
    # is what stays.
    left = {module: set(others) for module, others in arrows().items()}
    while True:
        used = set().union(*left.values())
        inside = {module for module, others in left.items() if others and module in used}
        if inside == left.keys():
            break
        left = {module: left[module] & inside for module in inside}
    assert not left, "\n".join(
        f"{module} -> {', '.join(sorted(others))}" for module, others in sorted(left.items())
    )


def test_every_room_of_the_floors_exists():
    rooms = {room for floors in FLOORS.values() for floor in floors for room in floor}
    assert rooms <= files().keys()
    rooms = {room for rooms in OTHER_PACKAGES.values() for room in rooms}
    assert rooms <= files().keys()


def test_experiments_shows_its_programs_and_rooms():
    shown = {path.name for path in (ROOT / "experiments").iterdir() if path.name != "__pycache__"}
    programs = {f"{name}.py" for name in PROGRAMS}
    assert shown == programs | ROOMS | {"__init__.py", "README.md", "results"}


def without_examples(text: str) -> str:
    """A file without the examples at the ends of its docstrings."""
    return re.sub(r"^\n    Examples:\n(?: {8}.*\n|\n)+(?= {4}\"\"\"$)", "", text, flags=re.M)


@pytest.mark.parametrize("package", [*PACKAGES, "tests", "docs", ".github", "."])
def test_no_file_is_too_long(package):
    folder = ROOT / package
    paths = folder.iterdir() if package == "." else folder.rglob("*")
    kinds = {".py", ".md", ".h", ".cc", ".cu", ".cuh", ".yml", ".yaml", ".toml"}
    lines = {
        str(path.relative_to(ROOT)): len(without_examples(path.read_text()).splitlines())
        for path in paths
        if path.suffix in kinds
    }
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}
