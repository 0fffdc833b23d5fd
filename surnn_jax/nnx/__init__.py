"""The Flax NNX face: a recurrent layer, and a cell for `nnx.RNN`.

Both have the options and the parameters of their namesakes in :mod:`surnn_jax.layers`, whose other
layers go into NNX models by ``nnx.bridge.ToNNX(layer, rngs=rngs).lazy_init(x)``.
"""

from surnn_jax.nnx.calibration import calibrate
from surnn_jax.nnx.recurrent import Recurrent
from surnn_jax.nnx.unit_cell import UnitCell

__all__ = ["Recurrent", "UnitCell", "calibrate"]
