"""Training: a loop that knows neither the model nor the data, and loses nothing.

`fit` trains a `Task` and keeps its checkpoints, metrics and bookkeeping in one folder;
`fit_population` trains several at once that differ in rates and seeds.
"""

from surnn_jax.train.checkpoint import DamagedError
from surnn_jax.train.interrupt import Interrupted
from surnn_jax.train.loop import Fit, fit
from surnn_jax.train.optimisers import OptimiserConfig
from surnn_jax.train.optimisers import make as make_optimiser
from surnn_jax.train.parallel import make_mesh
from surnn_jax.train.peers import join
from surnn_jax.train.population import Member, Outcome, Population, fit_population
from surnn_jax.train.score import score
from surnn_jax.train.settings import Settings
from surnn_jax.train.task import Task

__all__ = [
    "DamagedError",
    "Fit",
    "Interrupted",
    "Member",
    "OptimiserConfig",
    "Outcome",
    "Population",
    "Settings",
    "Task",
    "fit",
    "fit_population",
    "join",
    "make_mesh",
    "make_optimiser",
    "score",
]
