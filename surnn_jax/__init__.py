"""Recurrent sequence models in JAX and Flax whose units cost only what they update.

Four words: a *cell* is what one step computes (:mod:`surnn_jax.cells`), a *switch* says when each
neuron updates (:mod:`surnn_jax.switches`), a *scan* runs a sequence (:mod:`surnn_jax.scan`), a
*layer* is the Flax face (:mod:`surnn_jax.layers`).
"""

from surnn_jax.scan import ScanOutput, SelectiveCarry, Unit, run, selective, step

__version__ = "0.1.0"

__all__ = ["ScanOutput", "SelectiveCarry", "Unit", "__version__", "run", "selective", "step"]
