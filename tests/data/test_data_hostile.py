"""Files made to fill the memory, to take for ever, or to reach what is not theirs."""

import io
import lzma
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from tiers import full

from data import arrays, files, pickles
from data.sets import music
from data.source import SPLITS

ZEROS = bytes(1 << 26)


def everything(path):
    return list(files.members(path, lambda name: True))


def with_member(path, content=b"", **facts):
    with tarfile.open(path, "w:xz", format=facts.pop("format", tarfile.PAX_FORMAT)) as archive:
        member = tarfile.TarInfo("a")
        member.size = len(content)
        for name, value in facts.items():
            setattr(member, name, value)
        archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "read", [full(files.content), full(files.text), lambda path: list(files.lines(path))]
)
def test_bomb_in_a_compressed_file(tmp_path, read):
    path = tmp_path / "a.xz"
    path.write_bytes(lzma.compress(ZEROS))
    with pytest.raises(ValueError, match=r"a\.xz: holds (more than|a line of more).*not to trust$"):
        read(path)


def test_bomb_in_an_archive(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tar\.xz: holds more than .*not to trust"):
        everything(with_member(tmp_path / "a.tar.xz", ZEROS))
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8):  # Each is small enough.
            archive.writestr(str(number), ZEROS[: 1 << 23])
    with pytest.raises(ValueError, match=r"a\.zip: holds more than .*not to trust"):
        everything(path)


def test_bomb_in_a_members_name(tmp_path):
    path = with_member(tmp_path / "a.tar.xz", pax_headers={"comment": "x" * (1 << 22)})
    with pytest.raises(ValueError, match=r"a\.tar\.xz: cut short or damaged .*bytes of facts"):
        everything(path)


@pytest.mark.parametrize(
    "kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
)
def test_links_and_devices_are_passed_over(tmp_path, kind):
    assert everything(with_member(tmp_path / "a.tar.xz", type=kind, linkname="/dev/zero")) == []


def test_holes_of_a_sparse_member_are_not_filled(tmp_path):
    """The header of GNU's old form states 4 GB, of which none is in the file."""
    path = tmp_path / "a.tar"
    head = bytearray(tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT))
    head[156:157] = tarfile.GNUTYPE_SPARSE
    head[483:495] = b"%011o\0" % (1 << 32)
    head[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(head))[0]
    path.write_bytes(bytes(head) + bytes(1024))
    with tarfile.open(path) as archive:
        assert archive.getmembers()[0].size == 1 << 32
    assert everything(path) == []


def test_name_of_two_lines_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a\nb", b"")
    with pytest.raises(ValueError, match=r"a member named 'a\\nb'; not to trust$"):
        everything(path)


def nested(depth):
    """A pickle of tuples of one tuple twice, and so on: few bytes, 2^depth leaves."""
    return b"\x80\x02K\x01" + b"".join(b"q%c0h%ch%c\x86" % (n, n, n) for n in range(depth))


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"\x80\x02}" + nested(60)[2:] + b"K\1s.", "a key of type tuple"),
        (b"\x80\x04\x8f(" + nested(60)[2:] + b"\x90.", "143"),
        (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".", "150"),
        (b"\x80\x02K\1r\xff\xff\xff\x7f\x85", "EOFError|Ran out"),
    ],
    ids=["key", "set", "buffer", "memo"],
)
def test_pickles_that_ask_for_time_or_memory(raw, says):
    with pytest.raises(ValueError, match=says):
        pickles.load(raw)


@pytest.mark.parametrize("what", [full("pieces"), full("steps"), "notes", "note"])
def test_pickle_that_holds_one_list_many_times(tmp_path, what):
    step = (60,) * (1 << 12 if what == "notes" else 1)
    if what == "note":
        for _ in range(60):
            step = (step, step)
    piece = [step] * (1 << (23 if what == "steps" else 4))
    path = tmp_path / "a.pickle"
    pieces = [piece] * (1 << 19 if what == "pieces" else 1)
    path.write_bytes(pickle.dumps(dict.fromkeys(SPLITS, pieces), 2))
    with pytest.raises(ValueError, match=r"too many steps|MIDI note a tuple") as caught:
        music.read_pickle(path)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("dtype", ["|u11", "<f3", "|O", "|S8", ">V16"])
def test_npy_of_other_than_numbers(dtype):
    stream = io.BytesIO()
    np.save(stream, np.zeros(8, np.uint8))
    raw = stream.getvalue().replace(b"'|u1'", f"'{dtype}'".encode())
    with pytest.raises(ValueError, match=r"header is damaged|unknown type"):
        arrays.head(raw)
