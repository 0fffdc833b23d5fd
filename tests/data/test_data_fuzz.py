"""A small sample of `make test-fuzz`, of one seed: every reader, in one child."""

import pytest
from fuzz import batch, mutated
from fuzz_cases import CASES

from data import guarded


@pytest.fixture(scope="module")
def child():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ".:tests/support")
        with guarded.Reader("fuzz_cases:batch", memory=2 << 30, seconds=300) as reader:
            yield reader


@pytest.mark.parametrize("name", CASES)
def test_broken_files_are_data_or_one_line(child, name):
    found, _ = child(name, name, 0, 0, 12)
    assert found["wrong"] == []
    assert found["loaded"] + found["refused"] == 12


@pytest.mark.parametrize(
    ("name", "number"), [("zip", 1457), ("gz", 1023), ("export facts.json", 49)]
)
def test_what_the_fuzzer_found(child, name, number):
    """A name that is no UTF-8, a file twice end to end, a column without a file."""
    assert child(name, name, 1795887026, number, 1)[0]["wrong"] == []


@pytest.mark.full
def test_fuzzer_tells_what_is_wrong(monkeypatch):
    """Readers that believe, stumble, stay silent about the file, or leave something behind."""
    import random

    from fuzz import Case

    def with_file(path):
        (path.parent / "left").write_text("")
        return path.read_bytes()

    def stumbling(path):
        if path.read_bytes() != b"good" * 9:
            raise KeyError("no such thing")

    def nameless(path):
        if path.read_bytes() != b"good" * 9:
            raise ValueError("damaged")

    readers = {
        "believes": (lambda path: path.read_bytes(), "other data, though it has sums"),
        "left": (with_file, "left ['left']"),
        "stumbles": (stumbling, "KeyError"),
        "nameless": (nameless, "not one line that names the file"),
    }
    for name, (read, says) in readers.items():
        case = Case(b"good" * 9, read, lambda value: True, sums=True)
        monkeypatch.setitem(CASES, name, lambda case=case: case)
        found, _ = batch(name, 0, 0, 5)
        assert found["wrong"], name
        assert all(says in line for line in found["wrong"]), found
    assert mutated(b"abc", random.Random(0)) == mutated(b"abc", random.Random(0))
