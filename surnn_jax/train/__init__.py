"""Training: a resumable loop, independent of the model and the data.

`fit` trains a `Task` and keeps its checkpoints, metrics and bookkeeping in one folder.
`fit_population` trains several members at once that differ in rates and seeds.

The modules, lowest floor first; each imports only from floors below its own:

1. task, state, settings, signals, distributed, optimizers
2. files
3. checkpoint, step, monitoring
4. sharding, population_step
5. evaluation, train_loop
6. trainer, population
7. fitting
"""

from surnn_jax.train.checkpoint import CorruptCheckpointError
from surnn_jax.train.distributed import initialize_distributed
from surnn_jax.train.evaluation import score
from surnn_jax.train.fitting import FitResult, fit
from surnn_jax.train.optimizers import OptimizerConfig
from surnn_jax.train.optimizers import make as make_optimizer
from surnn_jax.train.population import (
    HyperParameters,
    PopulationResult,
    TrialResult,
    fit_population,
)
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
    "PopulationResult",
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
