"""Two tiers of cases: those that `make test` runs, and those it leaves to `make test-full`."""

from collections.abc import Iterable
from typing import Any

import pytest


def full(*values: Any) -> Any:
    """A case for `make test-full` alone."""
    return pytest.param(*values, marks=pytest.mark.full)


def tiered(cases: Iterable[Any], kept: Iterable[Any]) -> list[Any]:
    """All cases in their order; those that are not kept are for `make test-full` alone."""
    kept = list(kept)
    return [
        case if case in kept else full(*(case if isinstance(case, tuple) else (case,)))
        for case in cases
    ]
