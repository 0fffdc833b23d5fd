"""Training: a loop that knows neither the model nor the data, and loses nothing.

`fit` trains a `Task` and keeps its checkpoints, metrics and bookkeeping in one folder;
`fit_population` trains several at once that differ in rates and seeds.
"""

from surnn_jax.train.checkpoint import CorruptCheckpointError
from surnn_jax.train.distributed import initialize_distributed
from surnn_jax.train.evaluation import score
from surnn_jax.train.fitting import FitResult, fit
from surnn_jax.train.optimizers import OptimizerConfig
from surnn_jax.train.optimizers import make as make_optimizer
from surnn_jax.train.population import HyperParameters, Population, TrialResult, fit_population
from surnn_jax.train.settings import Settings
from surnn_jax.train.sharding import make_mesh
from surnn_jax.train.signals import Interrupted
from surnn_jax.train.task import Task

__all__ = [
    "CorruptCheckpointError",
    "FitResult",
    "HyperParameters",
    "Interrupted",
    "OptimizerConfig",
    "Population",
    "Settings",
    "Task",
    "TrialResult",
    "fit",
    "fit_population",
    "initialize_distributed",
    "make_mesh",
    "make_optimizer",
    "score",
]
