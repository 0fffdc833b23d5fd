"""Scans: how a unit is run over a sequence. Interchangeable back ends, all exact."""

from surnn_jax.scan.auto import Choice, choose, explain
from surnn_jax.scan.run import BACKENDS, ScanOutput, run, step
from surnn_jax.scan.unit import SelectiveCarry, Unit, selective

__all__ = [
    "BACKENDS",
    "Choice",
    "ScanOutput",
    "SelectiveCarry",
    "Unit",
    "choose",
    "explain",
    "run",
    "selective",
    "step",
]
