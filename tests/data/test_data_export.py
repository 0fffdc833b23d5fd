"""Exports: what is loaded is what was prepared, on a machine that has NumPy and JAX only."""

import shutil
import sys
import types

import numpy as np
import pytest
from data_case import rolls, run, tiny_source, write_mat

import data
from data import paths, tfds
from data.cache import DamagedData
from data.source import SPLITS, Column, Reading, Source
from data.storage import Ragged

# `python -m data.MODULE` (sys.argv[1]) with one more data set, `tiny`; its rolls' figures.
COMMAND = """
import runpy, sys, types
sys.path[:0] = ["tests/support", "tests/data"]
from data_case import rolls, tiny_source
import data
sys.modules["data.sets.tiny"] = module = types.ModuleType("data.sets.tiny")
module.SOURCES = [tiny_source(rolls())]
data._MODULES = {"tiny": ("tiny",)}
runpy.run_module(f"data.{sys.argv.pop(1)}", run_name="__main__")
"""

# A process that has no TFDS; prints what it loads.
BARE = """
import sys
sys.path[:0] = ["tests/support", "tests/data"]
sys.modules["tensorflow_datasets"] = sys.modules["tensorflow"] = None
from data_case import rolls, tiny_source
import data
import numpy as np
for split, expected in rolls().items():
    by_variable = data.load_from(tiny_source(rolls()), split, None)
    loaded = data.load_from(tiny_source(rolls()), split, sys.argv[1])
    assert by_variable.ids == loaded.ids
    np.testing.assert_equal(list(loaded["x"]), expected)
    print(split, len(loaded), loaded.ids[-1])
"""
SAYS = "train 5 train/0004\nvalid 2 valid/0001\ntest 3 test/0002\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def originals(tmp_path):
    folder = tmp_path / "originals"
    folder.mkdir()
    write_mat(folder / "tiny.mat", rolls())
    return folder


def export(*flags):
    return run("-c", COMMAND, "export", "tiny", *flags)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What an export of ``tiny`` writes."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "originals").mkdir()
    write_mat(folder / "originals" / "tiny.mat", rolls())
    flags = f"--output={folder / 'output'}", f"--data_dir={folder / 'originals'}"
    done = run("-c", COMMAND, "export", "tiny", *flags, SURNN_CACHE=folder / "cache")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"tiny: exported: {folder / 'output' / 'prepared' / 'tiny'}\n"
    shutil.rmtree(folder / "originals")
    shutil.rmtree(folder / "cache")
    return folder / "output"


def test_export_can_be_read_from_a_medium_that_cannot_be_written(exported, tmp_path):
    output = tmp_path / "output"
    shutil.copytree(exported, output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    for path in output.rglob("*"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    data.load_from(tiny_source(rolls()), "train", output)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    for path in output.rglob("*"):
        path.chmod(0o700)


def test_numpy_export_needs_no_tfds_no_original_and_no_cache(exported, cache):
    done = run("-c", BARE, exported, SURNN_DATA=exported)
    assert (done.returncode, done.stdout) == (0, SAYS), done.stderr
    assert not cache.exists()
    prepared_already = exported / "prepared" / "tiny", False
    assert data.prepare_from(tiny_source(rolls()), exported) == prepared_already


def test_damaged_export_is_named_with_the_command_that_mends_it(exported, originals, tmp_path):
    output = tmp_path / "with blank"
    shutil.copytree(exported, output)
    damaged = output / "prepared" / "tiny" / "valid" / "x.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\7")
    with pytest.raises(DamagedData) as caught:
        data.load_from(tiny_source(rolls()), "train", output)
    command = f"python -m data.export tiny '--output={output}'"
    assert str(caught.value) == (
        f"{damaged}: changed since it was prepared; prepare it again: {command}"
    )
    # Where the original is, that command, with the folder of the original, does it.
    done = export(f"--output={output}", f"--data_dir={originals}")
    assert (done.returncode, done.stderr) == (0, "")
    data.load_from(tiny_source(rolls()), "train", output)


@pytest.mark.parametrize("what", ["an export", "another's work"])
def test_whole_export_and_what_is_not_ours_are_left_alone(exported, originals, tmp_path, what):
    output = tmp_path / "output"
    shutil.copytree(exported, output)
    target = output / "prepared" / "tiny"
    if what == "another's work":
        shutil.rmtree(target)
        target.mkdir()
        (target / "my work.txt").write_text("mine")
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    done = export(f"--output={output}", f"--data_dir={originals}")
    assert done.returncode == 2
    words = f"error: {target} exists already; delete it or name another --output\n"
    assert done.stderr == words
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_output_is_required(originals):
    done = export(f"--data_dir={originals}")
    assert done.returncode == 2
    assert "--output" in done.stderr


KINDS = {
    "x": Column("int32", (None,), "sequence"),
    "x2": Column("int16", (None, 3), "another"),
    "image": Column("uint8", (4, 3), "of one shape"),
    "wave": Column("float32", (None,), "numbers"),
    "y": Column("uint8", (), "label"),
    "n": Column("int32", (), "large label"),
}
FACTS = {"classes": 3, "names": ["ä", "b"], "of": {"rate": 1.5}, "nothing": None}


def every_kind():
    """A data set with all kinds of columns, made by a seed."""
    splits = {}
    for number, split in enumerate(SPLITS):
        random = np.random.default_rng(number)
        splits[split] = [
            (
                f"{split}/Ü {i}",
                {
                    "x": random.integers(-(2**31), 2**31, i + 1).astype(np.int32),
                    "x2": random.integers(-(2**15), 2**15, (2 * i + 1, 3)).astype(np.int16),
                    "image": random.integers(0, 256, (4, 3)).astype(np.uint8),
                    "wave": random.standard_normal(4 * i + 1).astype(np.float32),
                    "y": i,
                    "n": -(2**31) + i,
                },
            )
            for i in range(5 - number)
        ]
    return Source(
        name="kinds",
        title="all kinds of columns",
        licence="none",
        origin="a test",
        columns=KINDS,
        digest=lambda data_dir: paths.stamp(paths.original("kinds", ["kinds.bin"], data_dir)),
        read=lambda data_dir, unfinished: Reading("kinds.bin", splits, FACTS, None),
        show=lambda example, facts: [],
    )


@pytest.fixture
def kinds(monkeypatch, tmp_path):
    """``every_kind``, registered, and its original's folder."""
    module = types.ModuleType("data.sets.kinds")
    module.SOURCES = [every_kind()]
    monkeypatch.setitem(sys.modules, "data.sets.kinds", module)
    monkeypatch.setitem(data._MODULES, "kinds", ("kinds",))
    folder = tmp_path / "of kinds"
    folder.mkdir()
    (folder / "kinds.bin").write_text("")
    return folder


def assert_equal(found, wanted):
    assert (found.name, found.split, found.ids) == (wanted.name, wanted.split, wanted.ids)
    assert found.facts == wanted.facts
    assert list(found.columns) == list(wanted.columns)
    for name, column in wanted.columns.items():
        assert isinstance(found[name], Ragged) == isinstance(column, Ragged)
        for one, other in zip(found[name], column, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_tfds_export_loads_back_equal(kinds, cache, tmp_path):
    wanted = {split: data.load("kinds", split, kinds) for split in SPLITS}
    assert wanted["train"].facts == FACTS
    output = tmp_path / "tfds"
    tfds.write(data.source_of("kinds"), wanted, output)
    (kinds / "kinds.bin").unlink()
    for split in SPLITS:
        assert_equal(data.load("kinds", split, output), wanted[split])
    # Once more out of TFDS itself, as other pipelines read it.
    import tensorflow_datasets

    builder = tensorflow_datasets.builder_from_directory(output / "surnn_kinds" / "1.0.0")
    assert set(builder.info.splits) == set(SPLITS)
    for split in SPLITS:
        for number, record in enumerate(builder.as_data_source(split)):
            assert record["id"].decode() == wanted[split].ids[number]
            for name, value in wanted[split].example(number).items():
                np.testing.assert_array_equal(record[name], value)


def write_tfds(splits, originals, output):
    """A TFDS copy of a tiny data set."""
    source = tiny_source(splits)
    loaded = {split: data.load_from(source, split, originals) for split in SPLITS}
    return tfds.write(source, loaded, output)


def test_original_is_preferred_to_its_tfds_copy(originals):
    write_tfds(rolls(), originals, originals)
    other = rolls(seed=1)
    write_mat(originals / "tiny.mat", other)
    loaded = data.load_from(tiny_source(other), "train", originals)
    np.testing.assert_equal(list(loaded["x"]), other["train"])


def test_damaged_tfds_copy_is_named(originals, tmp_path):
    output = tmp_path / "output"
    (path,) = write_tfds(rolls(), originals, output).rglob("*train*array_record*")
    raw = path.read_bytes()
    for damaged in (raw[: len(raw) // 2], raw[:100] + bytes(200) + raw[300:], b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"surnn_tiny.*: (damaged|no whole TFDS data set)"):
            data.load_from(tiny_source(rolls()), "train", output)
    path.write_bytes(raw)
    loaded = data.load_from(tiny_source(rolls()), "train", output)
    np.testing.assert_equal(list(loaded["x"]), rolls()["train"])


def test_tfds_copy_that_does_not_read_back_is_not_kept(originals, tmp_path, monkeypatch):
    def loses_the_last(folder):
        reading = read(folder)
        splits = {split: list(examples) for split, examples in reading.splits.items()}
        return reading._replace(splits=splits | {"train": splits["train"][:-1]})

    read = tfds.read
    monkeypatch.setattr(tfds, "read", loses_the_last)
    with pytest.raises(OSError, match="tiny: train does not read back as it was written"):
        write_tfds(rolls(), originals, tmp_path / "output")
    assert list((tmp_path / "output").rglob("*record*")) == []


def test_other_folder_of_that_name_is_named(tmp_path):
    (tmp_path / "surnn_tiny").mkdir()
    with pytest.raises(ValueError, match=r"surnn_tiny: no whole TFDS data set of ours"):
        data.load_from(tiny_source(rolls()), "train", tmp_path)


def test_tensorflow_is_never_imported(originals, tmp_path):
    """Not even tried: a package of that name is there, and ends the process when imported."""
    trap = tmp_path / "trap" / "tensorflow"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("import os\nos._exit(77)\n")
    environment = {"PYTHONPATH": f"{trap.parent}:{paths.ROOT}"}
    assert run("-c", "import tensorflow", **environment).returncode == 77
    flags = f"--output={tmp_path / 'output'}", f"--data_dir={originals}"
    done = run("-c", COMMAND, "export", "tiny", "--tfds", *flags, **environment)
    assert done.stdout == f"tiny: exported: {tmp_path / 'output' / 'surnn_tiny'}\n", done.stderr
    flag = f"--data_dir={tmp_path / 'output'}"
    done = run("-c", COMMAND, "describe", "tiny", flag, **environment)
    assert done.returncode == 0, done.stderr
    assert "\ntrain         5 " in done.stdout
