"""The state of a run: `TrainState` on the device, `Progress` on the host.

Together with the seed and the batch function they determine every later number, so a checkpoint of
both is enough to resume bit for bit.
"""

from typing import Any, NamedTuple

import jax
import optax

from surnn_jax.typing import Array, Params


class TrainState(NamedTuple):
    """The input and output of a training step.

    Attributes:
        step: int32 scalar, steps done.
        params: the parameters after `step` steps.
        opt_state: the optimizer's state, its own step count included.
        memory: the state a model carries to the next batch, see `Task`; empty without one.
    """

    step: Array
    params: Params
    opt_state: optax.OptState
    memory: Any = ()


class Progress(NamedTuple):
    """The bookkeeping of a run, in plain Python numbers that JSON keeps exactly.

    Its size does not grow with the run: every checkpoint holds all of it. The records of finished
    epochs stand in the run's logs, see `files.JsonLog`.

    Attributes:
        totals: name -> (total, weight) of the training metrics of the unfinished epoch.
        epochs: finished epochs, validation included.
        best_value: lowest value of the monitored metric, None before the first validation.
        best_epoch: the epoch of `best_value`, counted from 1; 0 before the first.
        stale: epochs since `best_epoch`.
        seconds: wall time so far over all resumptions, without work that was lost and redone.
        epoch_seconds: `seconds` at the end of the last epoch.
        num_skipped: steps skipped because a number was not finite.
    """

    totals: dict[str, Any]
    epochs: int = 0
    best_value: float | None = None
    best_epoch: int = 0
    stale: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    num_skipped: int = 0


def make_keys(seed: int) -> tuple[Array, Array]:
    """The key of `Task.init`, and the key that is folded with the step for `Task.loss`."""
    init_key, step_key = jax.random.split(jax.random.key(seed))
    return init_key, step_key
