"""The Flax face: linen cells, layers and models. NNX users wrap them in `nnx.bridge.ToNNX`."""

from surnn_jax.layers.cells import UnitCell
from surnn_jax.layers.models import FramePredictor
from surnn_jax.layers.recurrent import Recurrent

__all__ = ["FramePredictor", "Recurrent", "UnitCell"]
