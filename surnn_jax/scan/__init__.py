"""Scans: how a unit is run over a sequence. Interchangeable back ends, all exact."""

from surnn_jax.scan.run import BACKENDS, Run, run, step
from surnn_jax.scan.unit import SelectiveCarry, Unit, selective

__all__ = ["BACKENDS", "Run", "SelectiveCarry", "Unit", "run", "selective", "step"]
