"""Looks things up by name; a name that does not exist gets the nearest one that does."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def unknown(kind: str, name: Any, known: Iterable[str]) -> ValueError:
    """The error for a name that does not exist.

    Args:
        kind: what was asked for, such as ``"cell"``.
        name: what was given.
        known: every name that exists.

    Examples:
        >>> print(unknown("cell", "grru", ["tanh", "gru", "lstm"]))
        unknown cell 'grru'; did you mean 'gru'? One of: tanh, gru, lstm
    """
    known = list(known)
    if not isinstance(name, str):
        return ValueError(
            f"no {kind}: an object of type {type(name).__name__}; one of: {', '.join(known)}"
        )
    near = difflib.get_close_matches(name.lower(), known, n=5)
    if near:
        hint = (
            f"did you mean {max(near, key=lambda other: _likeness(name.lower(), other))!r}? One of"
        )
    else:
        hint = "one of"
    return ValueError(f"unknown {kind} {name!r}; {hint}: {', '.join(known)}")


def lookup(kind: str, name: Any, table: Mapping[str, Any]) -> Any:
    """``table[name]``.

    Raises:
        ValueError: if there is no such name; see :func:`unknown`.
    """
    if not isinstance(name, str) or name not in table:
        raise unknown(kind, name, table)
    return table[name]


def _likeness(typed: str, name: str) -> float:
    """How alike two names are; letters are swapped more often than the first one is wrong."""
    ratio = difflib.SequenceMatcher(None, typed, name).ratio()
    return ratio + 0.1 * (sorted(typed) == sorted(name)) + 0.05 * (typed[:1] == name[:1])
