"""The Flax face: linen cells, layers and models. NNX users wrap them in `nnx.bridge.ToNNX`."""

from surnn_jax.layers.adaptive_softmax import AdaptiveSoftmax
from surnn_jax.layers.attention import Attention
from surnn_jax.layers.backbone import Backbone
from surnn_jax.layers.block import Block, GatedFeedForward
from surnn_jax.layers.calibration import calibrate
from surnn_jax.layers.gaussian_mixture import GaussianMixture
from surnn_jax.layers.lru import LRU
from surnn_jax.layers.mamba import Mamba
from surnn_jax.layers.mamba2 import Mamba2
from surnn_jax.layers.mixers import Options
from surnn_jax.layers.multi_head import MultiHeadRecurrent
from surnn_jax.layers.nnx_cell import NNXUnitCell
from surnn_jax.layers.predictors import FramePredictor, WaveformPredictor
from surnn_jax.layers.recurrent import Recurrent
from surnn_jax.layers.s4d import S4D
from surnn_jax.layers.sequence_models import (
    Classifier,
    LanguageModel,
    PairClassifier,
    SequenceTagger,
)
from surnn_jax.layers.unit_cell import UnitCell

__all__ = [
    "LRU",
    "S4D",
    "AdaptiveSoftmax",
    "Attention",
    "Backbone",
    "Block",
    "Classifier",
    "FramePredictor",
    "GatedFeedForward",
    "GaussianMixture",
    "LanguageModel",
    "Mamba",
    "Mamba2",
    "MultiHeadRecurrent",
    "NNXUnitCell",
    "Options",
    "PairClassifier",
    "Recurrent",
    "SequenceTagger",
    "UnitCell",
    "WaveformPredictor",
    "calibrate",
]
