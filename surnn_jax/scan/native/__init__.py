"""CPU back end: a compiled kernel, called through XLA, whose time falls with the update rate.

It reads the logits itself. Forward and backward, each step computes only the rows of open neurons,
and the candidates near the threshold that the surrogate asks for. Without the compiled library, and
for what the kernel does not know, the dense back end :mod:`.masked` runs instead.
"""

from surnn_jax.scan.native.call import cost, scan, unsupported
from surnn_jax.scan.native.library import available, kernels, select, threads

__all__ = ["available", "cost", "kernels", "scan", "select", "threads", "unsupported"]
