"""Originals as they lie: every form gives the same bytes, and no damage goes unseen."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import files

TEXT = "Wörter, 言葉\n" * 50
COMPRESS = {"": bytes, ".xz": lzma.compress, ".gz": gzip.compress, ".bz2": bz2.compress}
LONG = "a/" + "long" * 40  # More than fits into the name of a tar head.
CONTENTS = {"a/one.txt": b"hello " * 90, LONG: bytes(range(256)), "b": b"", "z.txt": b"the end"}


def tar(mode="w:", contents=CONTENTS):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped(compression=zipfile.ZIP_DEFLATED, contents=CONTENTS):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("a/", b"")
        for name, content in contents.items():
            archive.writestr(name, content)
    return stream.getvalue()


ARCHIVES = {
    ".tar": tar(),
    ".tar.gz": tar("w:gz"),
    ".tgz": tar("w:gz"),
    ".tar.xz": tar("w:xz"),
    ".tar.bz2": tar("w:bz2"),
    ".zip": zipped(),
    ".stored.zip": zipped(zipfile.ZIP_STORED),
}


def everything(path):
    return dict(files.members(path, lambda name: True))


@pytest.mark.parametrize("ending", COMPRESS)
def test_content_and_text(tmp_path, ending):
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(COMPRESS[ending](TEXT.encode()))
    assert files.content(path) == TEXT.encode()
    assert files.text(path) == TEXT
    assert path.name in files.either("a.txt")


def test_names_that_are_looked_for():
    assert files.either("a") == ["a", "a.xz", "a.gz", "a.bz2"]
    assert files.archived("a") == ["a", *("a" + ending for ending in files.ARCHIVES)]
    assert set(ARCHIVES) - {".stored.zip"} == set(files.ARCHIVES)


@pytest.mark.parametrize("ending", [".xz", ".gz", ".bz2"])
def test_no_flip_or_cut_of_a_compressed_file_goes_unseen(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    raw = COMPRESS[ending](TEXT.encode())
    for damaged in [*flips(raw), *(raw[:end] for end in range(len(raw)))]:
        path.write_bytes(damaged)
        # Nobody reads the time and the name in the head of a gz file, which may differ.
        assert same_or_named(files.content, path, TEXT.encode())
    path.write_bytes(raw[:-1])
    with pytest.raises(ValueError, match=rf"cut short or damaged \(.+; {len(raw) - 1} bytes\)"):
        files.content(path)


def flips(raw):
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        yield bytes(damaged)


def same_or_named(read, path, wanted):
    try:
        return read(path) == wanted
    except ValueError as error:
        message = str(error)
        return "\n" not in message and message.startswith(f"{path}: cut short or damaged (")


@pytest.mark.parametrize(
    ("raw", "place", "byte"),
    [
        (b"\xff", 0, "0xff"),
        ("Wörter".encode("latin1"), 1, "0xf6"),
        ("Wort 言".encode()[:-1], 5, "0xe8"),
        (b"good\nbad \xc0\x80", 9, "0xc0"),
    ],
)
def test_other_than_utf8(tmp_path, raw, place, byte):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(raw))
    words = rf"a\.txt\.gz: byte {place} is not UTF-8 \({byte}\); save it as UTF-8, or fetch it"
    with pytest.raises(ValueError, match=words):
        files.text(path)


@pytest.mark.parametrize("name", ["a.txt", "a.xz", "a.tar", "a.tar.gz", "a.zip"])
def test_missing_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        files.content(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=name):
        everything(tmp_path / name)


@pytest.mark.parametrize("ending", ARCHIVES)
def test_members_of_an_archive(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(ARCHIVES[ending])
    assert list(files.members(path, lambda name: True)) == list(CONTENTS.items())
    found = dict(files.members(path, lambda name: name.endswith(".txt")))
    assert found == {name: CONTENTS[name] for name in ("a/one.txt", "z.txt")}
    assert list(tmp_path.iterdir()) == [path]


def test_members_of_a_folder(tmp_path):
    for name, content in reversed(CONTENTS.items()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert list(files.members(tmp_path, lambda name: True)) == sorted(CONTENTS.items())
    assert [name for name, _ in files.members(tmp_path, lambda name: "." in name)] == [
        "a/one.txt",
        "z.txt",
    ]


@pytest.mark.parametrize("ending", ARCHIVES)
def test_no_damage_of_an_archive_goes_unseen(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    raw = ARCHIVES[ending]
    # A plain tar file has no checksums but those of the heads of its members, of which the next
    # test tells, and ends in blocks of zeros, of which one is enough.
    damages = [] if ending == ".tar" else [*flips(raw)]
    whole = raw.rindex(b"the end") + 512 if ending == ".tar" else len(raw)
    damages += [raw[:end] for end in range(0, whole, 5)]
    for damaged in damages:
        path.write_bytes(damaged)
        assert same_or_named(everything, path, CONTENTS)


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 511), bit=st.integers(0, 7), head=st.integers(0, 10**6))
def test_damaged_head_does_not_end_a_tar_archive(tmp_path_factory, place, bit, head):
    """Python's tarfile takes it for the end and says nothing."""
    raw = bytearray(ARCHIVES[".tar"])
    heads = [i for i in range(0, len(raw), 512) if raw[i + 257 : i + 262] == b"ustar"]
    raw[heads[head % len(heads)] + place] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes(raw)
    assert same_or_named(everything, path, CONTENTS)


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/out", "a/.."])
@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_member_outside_is_refused(tmp_path, ending, name):
    contents = {"a/one.txt": b"1", name: b"2"}
    path = tmp_path / f"a{ending}"
    raw = zipped(contents=contents) if ending == ".zip" else tar("w:gz", contents)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"a member named '.*' would lie outside; not to trust"):
        list(files.members(path, lambda name: name == "a/one.txt"))
    assert list(tmp_path.iterdir()) == [path]


def test_links_out_of_a_tar_archive_are_not_followed(tmp_path):
    (tmp_path / "secret").write_text("secret")
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(f"link{kind}")
            link.type, link.linkname = kind, str(tmp_path / "secret")
            archive.addfile(link)
    assert everything(path) == {}


@pytest.mark.parametrize("raw", [b"", b"x", b"no archive" * 100, bytes(100)])
@pytest.mark.parametrize("ending", ARCHIVES)
def test_foreign_bytes(tmp_path, ending, raw):
    path = tmp_path / f"a{ending}"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"cut short or damaged") as caught:
        everything(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_encrypted_zip_is_named(tmp_path):
    raw = bytearray(zipped(contents={"a": b"1"}))
    for start in (raw.index(b"PK\3\4") + 6, raw.index(b"PK\1\2") + 8):
        raw[start] |= 1
    path = tmp_path / "a.zip"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.zip: cut short or damaged \(.*encrypted"):
        everything(path)
