"""The Flax linen face: cells, layers and models. That of NNX is :mod:`surnn_jax.nnx`."""

from surnn_jax.layers.adaptive_softmax import AdaptiveSoftmax
from surnn_jax.layers.attention import Attention
from surnn_jax.layers.backbone import Backbone
from surnn_jax.layers.block import Block
from surnn_jax.layers.branch_run import BlockCarry
from surnn_jax.layers.calibration import calibrate
from surnn_jax.layers.feed_forward import GatedFeedForward
from surnn_jax.layers.gaussian_mixture import GaussianMixture
from surnn_jax.layers.lru import LRU
from surnn_jax.layers.mamba import Mamba
from surnn_jax.layers.mamba2 import Mamba2
from surnn_jax.layers.mixers import Options
from surnn_jax.layers.multi_head import MultiHeadRecurrent
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
    "BlockCarry",
    "Classifier",
    "FramePredictor",
    "GatedFeedForward",
    "GaussianMixture",
    "LanguageModel",
    "Mamba",
    "Mamba2",
    "MultiHeadRecurrent",
    "Options",
    "PairClassifier",
    "Recurrent",
    "SequenceTagger",
    "UnitCell",
    "WaveformPredictor",
    "calibrate",
]
