"""Scans: how a unit is run over a sequence. Interchangeable back ends, all exact."""

from surnn_jax.scan.api import ScanOutput, run, step
from surnn_jax.scan.auto import Choice, choose, explain
from surnn_jax.scan.backends import BACKENDS
from surnn_jax.scan.prepared import Prepared, prepare
from surnn_jax.scan.spec import Backend, ScanInputs, ScanSpec
from surnn_jax.scan.unit import SELECTIVE, SelectiveCarry, Unit, parts, selective, share_clock

__all__ = [
    "BACKENDS",
    "SELECTIVE",
    "Backend",
    "Choice",
    "Prepared",
    "ScanInputs",
    "ScanOutput",
    "ScanSpec",
    "SelectiveCarry",
    "Unit",
    "choose",
    "explain",
    "parts",
    "prepare",
    "run",
    "selective",
    "share_clock",
    "step",
]
