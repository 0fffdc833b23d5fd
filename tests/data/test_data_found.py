"""Finding originals: names that are nearly right, links, and what lies there instead."""

import gzip
import os
import zipfile

import numpy as np
import pytest
from data_case import rolls, tiny_source, write_mat
from original_case import load_splits, write

import data
from data import files, paths, tree


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def home(tmp_path):
    """The user's data folder."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(
    "name", ["TINY.MAT", "Tiny.mat", "poly music/tiny.mat", "Poly-Music/tiny.mat"]
)
def test_names_in_another_case_or_with_blanks(home, name):
    found = rolls()
    (home / name).parent.mkdir(exist_ok=True)
    write_mat(home / name, found)
    splits = load_splits(tiny_source(found), home)
    np.testing.assert_array_equal(splits["train"]["x"][0], found["train"][0])


def test_two_names_that_are_alike_are_not_chosen_between(home):
    for name in ("Tiny.mat", "TINY.mat"):
        (home / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"TINY\.mat and .*Tiny\.mat could both be tiny\.mat"):
        paths.find(["tiny.mat"], home)
    (home / "tiny.mat").write_bytes(b"")
    assert paths.find(["other.mat", "tiny.mat"], home) == home / "tiny.mat"


def test_links_are_followed_and_circles_end(home, tmp_path):
    write(tmp_path / "elsewhere", {"dr1/a.txt": b"a", "b.txt": b"b"})
    (home / "set").mkdir()
    os.symlink(tmp_path / "elsewhere", home / "set" / "train")
    os.symlink(home / "set", tmp_path / "elsewhere" / "back")
    os.symlink("nowhere", home / "set" / "broken.txt")
    found = dict(files.members(home / "set", lambda name: True))
    assert found == {"train/b.txt": b"b", "train/dr1/a.txt": b"a"}
    before = paths.stamp(home / "set")
    (tmp_path / "elsewhere" / "b.txt").write_bytes(b"longer")
    assert paths.stamp(home / "set") != before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_that_cannot_be_read_is_named(home):
    (home / "closed").mkdir(mode=0)
    with pytest.raises(PermissionError, match="closed"):
        tree.files_below(home)


def test_what_a_mac_adds_is_no_data(home):
    write(home / "a.zip", {"x/1.txt": b"1", "__MACOSX/x/._1.txt": b"?", "x/._2.txt": b"?"})
    assert dict(files.members(home / "a.zip", lambda name: True)) == {"x/1.txt": b"1"}


# What is no such file


PAGE = b"\n<!DOCTYPE html><html><body>Sign in</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("name", "content", "cure"),
    [
        ("tiny.mat", PAGE, "it is a web page, not the file"),
        ("tiny.mat", POINTER, "it is a Git LFS pointer, not the file; run git lfs pull"),
        ("tiny.mat", gzip.compress(b"x", mtime=0), r"it is compressed; its name must end in \.gz"),
        ("tiny.mat", b"", "it is empty; fetch it again"),
        ("tiny.mat", b"MATLAB 5.0 " + bytes(200), "fetch it again"),
        ("tiny.pickle", PAGE, "it is a web page, not the file"),
    ],
)
def test_what_lies_there_instead(home, name, content, cure):
    (home / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: .*; {cure}") as caught:
        load_splits(tiny_source(rolls()), home)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ending", "content", "cure"),
    [
        (
            ".gz",
            b"plain text",
            r"it is no \.gz file: if it was unpacked on the way, take the ending",
        ),
        (".gz", PAGE, "it is a web page"),
        (".gz", b"BZh91AY", r"it is compressed; its name must end in \.bz2"),
        (".gz", gzip.compress(b"text", mtime=0)[:-5], "fetch it again"),
        (".xz", POINTER, "it is a Git LFS pointer"),
        (".tar", gzip.compress(b"x", mtime=0), r"it is compressed; its name must end in \.gz"),
        (".zip", PAGE, "it is a web page"),
    ],
)
def test_archives_that_are_none(home, ending, content, cure):
    path = home / f"a.txt{ending}"
    path.write_bytes(content)
    read = files.content
    if ending in (".tar", ".zip"):
        read = lambda path: list(files.members(path, lambda name: True))  # noqa: E731
    with pytest.raises(ValueError, match=f"a.txt{ending}: cut short or damaged .*; {cure}"):
        read(path)


def test_npz_is_read_as_the_zip_that_it_is(home):
    with zipfile.ZipFile(home / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"1")
    assert dict(files.members(home / "a.npz", lambda name: True)) == {"x.npy": b"1"}


# What is there, and is not


@pytest.mark.parametrize("target", ["elsewhere/JSB_Chorales.mat", "JSB_Chorales.mat"])
def test_links_that_lead_nowhere_or_in_a_circle(home, target):
    os.symlink(target, home / "JSB_Chorales.mat")
    with pytest.raises(
        FileNotFoundError, match=rf"JSB_Chorales\.mat: a link to {target}, which is"
    ):
        data.load("jsb", "train", home)


@pytest.mark.parametrize("name", ["timit/TIMIT", "imdb_bytes/aclImdb", "fsdd/recordings"])
def test_a_file_in_place_of_a_folder(home, name):
    name, _, place = name.partition("/")
    (home / place).write_text("hello")
    with pytest.raises(ValueError, match=f"{place}: a file; it should be a folder, or an archive"):
        data.load(name, "train", home)


@pytest.mark.parametrize("name", ["fsdd/recordings", "asterisk_speech/en_US_f_Allison", "aan/."])
def test_a_folder_with_nothing_of_it(home, name):
    name, _, place = name.partition("/")
    (home / place).mkdir(exist_ok=True)
    for part in ("train", "eval", "test"):
        (home / f"new_aan_pairs.{part}.tsv").touch()
    with pytest.raises(ValueError, match=f"no train example of {name} in it; is it the right"):
        data.load(name, "train", home)
    assert not list(home.parent.glob("cache/*/[0-9a-f]*"))
