"""Mutation fuzzing of every reader of files: `make test-fuzz`.

    PYTHONPATH=.:tests/support python -m fuzz [--inputs=N] [--seconds=N] [--seed=N] [READER ...]

Each reader gets a file of its own making, broken in many ways. It must give data of the right form
or one line that names the file, within a second or so and a GiB of memory. Half of the inputs are
broken inside of their compression, sums and seals being right again. Readers run in a child:
see ``data/guarded.py``.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from data import guarded

SLOW = 5.0
"""Seconds that no input may take; a busy machine needs some."""

_AT_ONCE = 100


class Case(NamedTuple):
    """A reader with a file for it.

    Attributes:
        raw: what is broken: the content before it is packed.
        read: from the path of a file, a value; ValueError or OSError with one line that names it.
        right: whether a value has the form that it should have.
        pack: makes the file of the content.
        sums: whether packed files have sums of all of their bytes, so that a broken one is refused
            or gives the very same value.
        name: of the file.
    """

    raw: bytes
    read: Callable[[Path], Any]
    right: Callable[[Any], bool]
    pack: Callable[[bytes], bytes] = bytes
    sums: bool = False
    name: str = "original"


_NUMBERS = (0, 1, 127, 128, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_TEXTS = (b"9" * 5000, b"-1", b"1e999", b"NaN", b"[" * 3000, b"{}", b"\n", b"\0", b"\xff\xfe")


def mutated(raw: bytes, draw: random.Random) -> bytes:
    """The bytes, broken in one to four ways."""
    broken = bytearray(raw)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        place = draw.randrange(len(broken) + 1)
        # Headers are small, and most of what matters.
        if draw.random() < 0.4:
            place = min(place, draw.randrange(512))
        size = draw.choice((1, 1, 2, 4, 8, 16, 100))
        end = min(place + size, len(broken))
        match draw.randrange(9):
            case 0 | 1:
                broken[place : place + 1] = bytes([draw.randrange(256)])
            case 2 if place < len(broken):
                broken[place] ^= 1 << draw.randrange(8)
            case 3:
                width, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
                number = draw.choice(_NUMBERS) & (1 << 8 * width) - 1
                broken[place : place + width] = number.to_bytes(width, order)
            case 4:
                del broken[place:end]
            case 5:
                broken[place:place] = broken[place:end]
            case 6:
                del broken[place:]
            case 7:
                broken[place : place + draw.choice((0, 1, 4))] = draw.choice(_TEXTS)
            case 8:
                other = draw.randrange(len(broken) + 1)
                broken[place:end] = broken[other : other + size]
    return bytes(broken)


def batch(name: str, seed: int, start: int, count: int) -> guarded.Answer:
    """Tries some inputs; runs in the child.

    Returns:
        How many inputs gave data, how many were refused, and what went wrong, a line each.
    """
    from fuzz_cases import CASES

    case = CASES[name]()
    figures: dict[str, Any] = {"loaded": 0, "refused": 0, "wrong": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / case.name
        path.write_bytes(case.pack(case.raw))
        whole = repr(case.read(path))
        for number in range(start, start + count):
            draw = random.Random(f"{name} {seed} {number}")
            inside = case.pack is not bytes and number % 2 == 0
            broken = mutated(case.raw if inside else case.pack(case.raw), draw)
            path.write_bytes(case.pack(broken) if inside else broken)
            begin = time.monotonic()
            wrong = _try(case, path, "" if inside or not case.sums else whole, figures)
            if time.monotonic() - begin > SLOW:
                wrong = f"took {time.monotonic() - begin:.0f} s"
            if left := [p.name for p in Path(folder).iterdir() if p != path]:
                wrong = f"left {left}"
            if wrong:
                figures["wrong"].append(f"{name} {seed} {number}: {wrong}")
    return figures, []


def _try(case: Case, path: Path, whole: str, figures: dict[str, Any]) -> str:
    """What went wrong, if anything; `whole`, if given, is all that may come out."""
    try:
        value = case.read(path)
    except (ValueError, OSError) as error:
        figures["refused"] += 1
        text = str(error)
        if not text.startswith(str(path)) or len(text.splitlines()) != 1 or len(text) > 2000:
            return f"not one line that names the file: {type(error).__name__}: {text[:300]!r}"
        return ""
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]!r}"
    figures["loaded"] += 1
    if not case.right(value):
        return "data of another form"
    if not whole or repr(value) == whole:
        return ""
    # Compressed files end to end are one file, with the content of each.
    doubled = isinstance(value, str) and repr(value[: len(value) // 2]) == whole
    return "" if doubled else "loaded other data, though it has sums"


def fuzz(name: str, inputs: int, seconds: float, seed: int) -> dict[str, Any]:
    """Tries a reader until one of the limits is reached; see `batch` for what is returned."""
    total: dict[str, Any] = {"inputs": 0, "loaded": 0, "refused": 0, "wrong": []}
    end = time.monotonic() + seconds
    while total["inputs"] < inputs and time.monotonic() < end:
        count = min(_AT_ONCE, inputs - total["inputs"])
        job = (name, seed, total["inputs"], count)
        with guarded.Reader("fuzz_cases:batch", memory=1 << 30, seconds=120) as child:
            while total["inputs"] < inputs and time.monotonic() < end:
                try:
                    figures, _ = child(f"{job}", *job)
                except ValueError as error:
                    figures = {"loaded": 0, "refused": 0, "wrong": [f"the process: {error}"]}
                for key, value in figures.items():
                    total[key] += value
                total["inputs"] += count
                if figures["wrong"] and figures["wrong"][0].startswith("the process"):
                    break
                count = min(_AT_ONCE, inputs - total["inputs"])
                job = (name, seed, total["inputs"], count)
    return total


def main() -> int:
    """Fuzzes the readers and prints a table."""
    from fuzz_cases import CASES

    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--inputs", type=int, default=3000, help="for each reader")
    words.add_argument("--seconds", type=float, default=600, help="for all together")
    words.add_argument("--seed", type=int, default=int(time.time()), help="printed")
    words.add_argument("readers", nargs="*", metavar="READER", help="default: all")
    given = words.parse_args()
    names, bad, end = given.readers or list(CASES), 0, time.monotonic() + given.seconds
    print(f"seed {given.seed}\n{'reader':<20}{'inputs':>8}{'loaded':>8}{'refused':>9}{'wrong':>7}")
    for number, name in enumerate(names):
        share = (end - time.monotonic()) / (len(names) - number)
        found = fuzz(name, given.inputs, share, given.seed)
        figures = [found["inputs"], found["loaded"], found["refused"], len(found["wrong"])]
        print(f"{name:<20}{figures[0]:>8}{figures[1]:>8}{figures[2]:>9}{figures[3]:>7}", flush=True)
        for line in found["wrong"][:5]:
            print(f"  {line}", flush=True)
        bad += figures[3]
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
