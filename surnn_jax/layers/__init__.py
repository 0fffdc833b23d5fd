"""The Flax face: linen cells, layers and models. NNX users wrap them in `nnx.bridge.ToNNX`."""

from surnn_jax.layers.adaptive import AdaptiveSoftmax
from surnn_jax.layers.attention import Attention
from surnn_jax.layers.backbone import Backbone
from surnn_jax.layers.block import Block, GatedFeedForward
from surnn_jax.layers.cells import UnitCell
from surnn_jax.layers.heads import Heads
from surnn_jax.layers.lru import LRU
from surnn_jax.layers.mamba import Mamba
from surnn_jax.layers.mamba2 import Mamba2
from surnn_jax.layers.mixers import Options
from surnn_jax.layers.mixture import GaussianMixture
from surnn_jax.layers.models import FramePredictor, WaveformPredictor
from surnn_jax.layers.recurrent import Recurrent
from surnn_jax.layers.s4d import S4D
from surnn_jax.layers.sequence import Classifier, LanguageModel, Matcher, Tagger

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
    "Heads",
    "LanguageModel",
    "Mamba",
    "Mamba2",
    "Matcher",
    "Options",
    "Recurrent",
    "Tagger",
    "UnitCell",
    "WaveformPredictor",
]
