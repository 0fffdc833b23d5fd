"""The look-up order of originals: the first place given decides, and is never passed over."""

from pathlib import Path

import pytest

from data import locate


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Three folders with the same file: given, in SURNN_DATA, and beside the checkout."""
    root = tmp_path / "checkout"
    root.mkdir()
    folders = [tmp_path / "given", tmp_path / "variable", tmp_path / "shared" / "data"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "a.mat").write_text("")
    monkeypatch.setattr(locate, "ROOT", root)
    monkeypatch.setenv("SURNN_DATA", str(folders[1]))
    return folders


def test_order(places, monkeypatch):
    given, variable, shared = places
    assert locate.original("a", "a.mat", (), given) == given / "a.mat"
    assert locate.original("a", "a.mat", (), str(given)) == given / "a.mat"
    assert locate.original("a", "a.mat", ()) == variable / "a.mat"
    monkeypatch.delenv("SURNN_DATA")
    assert locate.original("a", "a.mat", ()) == shared / "a.mat"
    monkeypatch.setenv("SURNN_DATA", "")
    assert locate.original("a", "a.mat", ()) == shared / "a.mat"


def test_subfolder(places):
    given = places[0]
    (given / "sub").mkdir()
    (given / "a.mat").rename(given / "sub" / "a.mat")
    assert locate.original("a", "a.mat", ("sub",), given) == given / "sub" / "a.mat"


def test_given_folder_that_does_not_exist_is_an_error(places, monkeypatch):
    missing = places[0] / "mistyped"
    with pytest.raises(FileNotFoundError, match=r"a needs a\.mat: --data_dir=.*mistyped: no such"):
        locate.original("a", "a.mat", (), missing)
    monkeypatch.setenv("SURNN_DATA", str(missing))
    with pytest.raises(FileNotFoundError, match=r"SURNN_DATA=.*mistyped: no such folder"):
        locate.original("a", "a.mat", ())


def test_given_folder_without_the_file_is_an_error(places):
    (places[0] / "a.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither .*/a\.mat nor .*/sub/a\.mat; give"):
        locate.original("a", "a.mat", ("sub",), places[0])


def test_file_in_place_of_the_folder(places):
    with pytest.raises(NotADirectoryError, match="not a folder"):
        locate.original("a", "a.mat", (), places[0] / "a.mat")


def test_nothing_given_names_both_ways_out(places, monkeypatch):
    monkeypatch.delenv("SURNN_DATA")
    (places[2] / "a.mat").unlink()
    places[2].rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        locate.original("a", "a.mat", ())
    message = str(caught.value)
    assert str(places[2]) in message
    assert "--data_dir=FOLDER or SURNN_DATA=FOLDER" in message
    assert "\n" not in message


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path))
    assert locate.cache_folder() == tmp_path
    monkeypatch.delenv("SURNN_CACHE")
    assert locate.cache_folder() == Path.home() / ".cache" / "surnn_jax"
