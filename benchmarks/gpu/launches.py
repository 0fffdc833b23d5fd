"""Counts what a compiled program launches, from XLA's own list of it.

XLA writes the list of a program's thunks: kernels, copies, calls of libraries, loops and branches,
indented by nesting. A loop whose number of turns is known runs without its condition; any other
asks the device after every turn, and the host waits for the answer.
"""

import dataclasses
import re
from collections.abc import Iterator

_LINE = re.compile(r"^(\s*)(\d+): k(\w+)\s")
_LABEL = re.compile(r"^\s*(\w+):\s*$")
# What only orders or groups others.
_FREE = {"AsyncStart", "AsyncDone", "DynamicSliceFusion", "CommandBuffer", "Sequential"}
_COPIES = {"Copy", "Memset", "Memset32BitValue", "MemzeroThunk", "Memzero"}


@dataclasses.dataclass(frozen=True)
class Loop:
    """One turn of a loop.

    Attributes:
        turns: how many, None if that depends on numbers.
        kernels: kernels and library calls of a turn, loops within not counted.
        copies: copies of a turn.
        syncs: how often the host waits in a turn.
        inner: loops within.
    """

    turns: int | None
    kernels: int
    copies: int
    syncs: int
    inner: tuple["Loop", ...] = ()

    @property
    def launches(self) -> int:
        """Kernels and copies of a turn, with loops within that have a known number of turns."""
        return self.kernels + self.copies + sum((i.turns or 0) * i.launches for i in self.inner)


@dataclasses.dataclass(frozen=True)
class Counts(Loop):
    """A program: a loop of one turn."""

    def loops(self) -> Iterator[Loop]:
        """All loops, outer ones first."""
        waiting = list(self.inner)
        while waiting:
            loop = waiting.pop(0)
            yield loop
            waiting[:0] = loop.inner


@dataclasses.dataclass
class _Item:
    kind: str
    number: int
    label: str
    children: list["_Item"]


def count(sequence: str, metadata: str, hlo: str) -> Counts:
    """Counts a program.

    Args:
        sequence: XLA's list of thunks.
        metadata: its list of their names.
        hlo: the optimised module, which knows the turns of loops.
    """
    items = _parse(sequence)
    names = dict(_names(metadata))
    turns = {}
    for line in hlo.splitlines():
        if " while(" in line:
            name = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) =", line)
            known = re.search(r'known_trip_count"?:\s*\{"n":"(\d+)"', line)
            if name and known:
                turns[name[1]] = int(known[1])
    return Counts(1, *_total(items, names, turns))


def _parse(text: str) -> list[_Item]:
    """The tree of thunks. Labels (condition, body, branches) are kept with what they head."""
    top: list[_Item] = []
    stack: list[tuple[int, _Item]] = []
    label = ""
    for line in text.splitlines():
        if found := _LABEL.match(line):
            label = found[1]
            continue
        found = _LINE.match(line)
        if not found:
            continue
        indent, item = len(found[1]), _Item(found[3], int(found[2]), label, [])
        while stack and stack[-1][0] >= indent:
            stack.pop()
        # A label holds for all items at its depth: those that follow the first inherit it.
        siblings = stack[-1][1].children if stack else top
        if siblings and not label:
            item.label = siblings[-1].label
        label = ""
        siblings.append(item)
        stack.append((indent, item))
    return top


def _names(text: str) -> Iterator[tuple[int, str]]:
    for block in text.split("thunk_metadata {")[1:]:
        name = re.search(r'profile_annotation: "([^"]*)"', block)
        number = re.search(r"thunk_id: (\d+)", block)
        if name and number:
            yield int(number[1]), name[1]


def _total(
    items: list[_Item], names: dict[int, str], turns: dict[str, int]
) -> tuple[int, int, int, tuple[Loop, ...]]:
    """Kernels, copies, waits and loops of a list of thunks."""
    kernels = copies = syncs = 0
    loops: list[Loop] = []
    for item in items:
        if item.kind == "While":
            known = turns.get(names.get(item.number, ""))
            body = [c for c in item.children if c.label == "body"]
            asked = [c for c in item.children if c.label == "condition"]
            k, c, s, inner = _total(body, names, turns)
            if known is None:
                more = _total(asked, names, turns)
                k, c, s = k + more[0], c + more[1], s + 1 + more[2]
            loops.append(Loop(known, k, c, s, inner))
        elif item.kind == "Conditional":
            found = [
                _total([c for c in item.children if c.label == branch], names, turns)
                for branch in dict.fromkeys(c.label for c in item.children)
            ]
            # The dearest branch; the host waits to know which.
            worst = max(found, key=lambda f: f[0] + f[1], default=(0, 0, 0, ()))
            kernels, copies, syncs = kernels + worst[0], copies + worst[1], syncs + 1 + worst[2]
            loops.extend(worst[3])
        elif item.kind in _FREE or item.children:
            k, c, s, inner = _total(item.children, names, turns)
            kernels, copies, syncs = kernels + k, copies + c, syncs + s
            loops.extend(inner)
        elif item.kind in _COPIES:
            copies += 1
        else:
            kernels += 1
    return kernels, copies, syncs, tuple(loops)
