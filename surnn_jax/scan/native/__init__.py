"""CPU back end: a compiled kernel, called through XLA, whose time falls with the update rate.

It reads the logits themselves: at every step only the rows of open neurons are computed, forward
and backward, and near the threshold the candidates that the surrogate asks for. Without the
compiled library, and for what it does not know, the dense back end :mod:`.masked` runs instead.
"""

from surnn_jax.scan.native.call import scan, supports
from surnn_jax.scan.native.library import available, kernels, select, threads

__all__ = ["available", "kernels", "scan", "select", "supports", "threads"]
