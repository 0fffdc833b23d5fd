"""Scans: how a unit is run over a sequence. Interchangeable back ends, all exact."""

from surnn_jax.scan.auto import Choice, choose, explain
from surnn_jax.scan.backends import BACKENDS
from surnn_jax.scan.run import ScanOutput, run, step
from surnn_jax.scan.spec import Backend, ScanInputs, ScanSpec
from surnn_jax.scan.unit import SelectiveCarry, Unit, selective, share_clock

__all__ = [
    "BACKENDS",
    "Backend",
    "Choice",
    "ScanInputs",
    "ScanOutput",
    "ScanSpec",
    "SelectiveCarry",
    "Unit",
    "choose",
    "explain",
    "run",
    "selective",
    "share_clock",
    "step",
]
