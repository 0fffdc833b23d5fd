"""Back end `pallas`: one kernel runs many steps; closed blocks of neurons are skipped."""

from surnn_jax.scan.pallas.call import refusal, scan, scan_for_target

__all__ = ["refusal", "scan", "scan_for_target"]
