"""What the tests of the benchmarks share."""

import subprocess
import sys
from pathlib import Path

from benchmarks import timing
from benchmarks.case import Case

ROOT = Path(timing.__file__).parents[1]
TINY = Case(features=8, batch=8, steps=24, inputs=3)


def python(*arguments):
    """Runs Python at the root."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def record(**changes):
    """A record of `native` at 10 %, per neuron, at the size of the targets."""
    fields = {
        "benchmark": "skip_scan",
        "backend": "native",
        "schedule": "neuron",
        "switch": "frozen",
        "rate": 0.101,
        "computed": 0.101,
        "asked": 0.1,
        "features": 256,
        "batch": 16,
        "steps": 1024,
        "inputs": 64,
        "milliseconds": 40.0,
        "spread": [38.0, 39.0, 42.0],
        "rounds": 7,
        "baseline": "masked lax.scan",
        "speedup": 10.0,
        "cpu": "A Fast One",
        "threads": 2,
        "kernel": "avx2",
        "freed_memory": "kept",
        "versions": {"python": "3.11.7", "jax": "0.10.2", "flax": "0.12.8"},
    }
    return {**fields, **changes}
