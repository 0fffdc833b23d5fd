"""Back end `pallas`: one kernel runs many steps and skips closed blocks of neurons."""

from surnn_jax.scan.pallas.call import cost, scan, scan_for_target, unsupported

__all__ = ["cost", "scan", "scan_for_target", "unsupported"]
