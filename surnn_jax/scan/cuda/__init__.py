"""GPU back end: a CUDA kernel, called through XLA, that computes what opens."""

from surnn_jax.scan.cuda.call import cost, scan, unsupported

__all__ = ["cost", "scan", "unsupported"]
