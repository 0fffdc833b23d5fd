"""The look-up order of originals: the first place given decides, and is never passed over."""

import os
from pathlib import Path

import pytest

from data import paths


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders with the same file: given, SURNN_DATA's, beside the checkout, TFDS's, fetched."""
    root = tmp_path / "checkout"
    root.mkdir()
    folders = [tmp_path / "given", tmp_path / "variable", tmp_path / "shared" / "data"]
    folders += [tmp_path / "tfds", tmp_path / "cache" / "downloads"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "a.mat").write_text("")
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SURNN_DATA", str(folders[1]))
    monkeypatch.setenv("TFDS_DATA_DIR", str(folders[3]))
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))
    return folders


def test_order(places, monkeypatch):
    given, variable, shared, tfds, fetched = places
    assert paths.original("a", ["a.mat"], given) == given / "a.mat"
    assert paths.original("a", ["a.mat"], str(given)) == given / "a.mat"
    assert paths.original("a", ["a.mat"]) == variable / "a.mat"
    monkeypatch.delenv("SURNN_DATA")
    assert paths.original("a", ["a.mat"]) == shared / "a.mat"
    monkeypatch.setenv("SURNN_DATA", "")
    assert paths.original("a", ["a.mat"]) == shared / "a.mat"
    (shared / "a.mat").unlink()
    assert paths.original("a", ["a.mat"]) == tfds / "a.mat"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert paths.original("a", ["a.mat"]) == fetched / "a.mat"
    (fetched / "a.mat").unlink()
    assert paths.find(["a.mat"]) is None


def test_folder_of_tfds_is_the_usual_one_where_none_is_named(places, monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "tensorflow_datasets").mkdir(parents=True)
    assert paths.folders()[2] == tmp_path / "home" / "tensorflow_datasets"


def test_subfolder(places):
    given = places[0]
    (given / "sub").mkdir()
    (given / "a.mat").rename(given / "sub" / "a.mat")
    assert paths.original("a", ["a.mat", "sub/a.mat"], given) == given / "sub" / "a.mat"


def test_a_better_folder_comes_before_a_better_name(places):
    """What the user names decides, also where another folder holds the first of the names."""
    given, variable, _, _, _ = places
    (variable / "a.mat").rename(variable / "b.mat")
    assert paths.original("a", ["a.mat", "b.mat"]) == variable / "b.mat"
    (given / "b.mat").write_text("")
    assert paths.original("a", ["a.mat", "b.mat"], given) == given / "a.mat"


def test_given_folder_that_does_not_exist_is_an_error(places, monkeypatch):
    missing = places[0] / "mistyped"
    with pytest.raises(FileNotFoundError, match=r"--data_dir=.*mistyped: no such folder"):
        paths.original("a", ["a.mat"], missing)
    monkeypatch.setenv("SURNN_DATA", str(missing))
    with pytest.raises(FileNotFoundError, match=r"SURNN_DATA=.*mistyped: no such folder"):
        paths.original("a", ["a.mat"])


def test_given_folder_without_the_file_is_an_error(places):
    (places[0] / "a.mat").unlink()
    wanted = rf"a needs a\.mat or sub/a\.mat, which is not in {places[0]}; give"
    with pytest.raises(FileNotFoundError, match=wanted):
        paths.original("a", ["a.mat", "sub/a.mat"], places[0])


def test_file_in_place_of_the_folder(places):
    with pytest.raises(NotADirectoryError, match="not a folder"):
        paths.original("a", ["a.mat"], places[0] / "a.mat")


def test_nothing_given_names_both_ways_out(places, monkeypatch):
    monkeypatch.delenv("SURNN_DATA")
    for place in places[2:]:
        (place / "a.mat").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        paths.original("a", ["a.mat"])
    message = str(caught.value)
    assert ", ".join(map(str, places[2:])) in message
    assert "--data_dir=FOLDER or SURNN_DATA=FOLDER" in message
    assert "\n" not in message


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path))
    assert paths.cache_folder() == tmp_path
    monkeypatch.delenv("SURNN_CACHE")
    assert paths.cache_folder() == Path.home() / ".cache" / "surnn_jax"


def _change_size(path):
    path.write_bytes(path.read_bytes() + b"x")


def _change_time(path):
    os.utime(path, ns=(0, 1))


def _add(path):
    (path.parent / "new").write_text("")


@pytest.mark.parametrize("change", [_change_size, _change_time, _add, Path.unlink])
def test_stamp_sees_every_change_of_a_folder(tmp_path, change):
    folder = tmp_path / "a"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "c").write_text("1")
    (folder / "d").write_text("2")
    before = paths.stamp(folder)
    assert paths.stamp(folder) == before
    assert paths.stamp(folder, version=2) != before
    assert paths.stamp(folder / "d", folder / "b" / "c") != paths.stamp(folder / "d")
    change(folder / "b" / "c")
    assert paths.stamp(folder) != before
