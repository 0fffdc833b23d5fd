"""All that a run is at one moment: on the device `TrainState`, on the host `Progress`.

Together with the seed and the batch function these two decide every later number, so a
checkpoint of them is enough to go on bit for bit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax

from surnn_jax.typing import Array, Params


class TrainState(NamedTuple):
    """What one training step maps to the next.

    Attributes:
        step: int32 scalar, steps done.
        params: the parameters after `step` steps.
        opt_state: the optimizer's state, its own step count included.
        memory: what the model carries to the next batch, see `Task`; else empty.
    """

    step: Array
    params: Params
    opt_state: optax.OptState
    memory: Any = ()


class Progress(NamedTuple):
    """The bookkeeping of a run, in plain Python numbers that JSON keeps exactly.

    Attributes:
        totals: name -> (total, weight) of the training metrics of the unfinished epoch.
        history: one record for every finished epoch, as in ``metrics.jsonl``.
        best_value: lowest value of the monitored metric, None before the first validation.
        best_epoch: the epoch of `best_value`, counted from 1; 0 before the first.
        stale: epochs since `best_epoch`.
        seconds: wall time so far over all resumptions, without work that was lost and redone.
        speed: one record for every finished epoch, as in ``speed.jsonl``.
        skipped: one record for every step that was skipped, as in ``nonfinite.jsonl``.
    """

    totals: dict[str, Any]
    history: list[dict[str, Any]]
    best_value: float | None = None
    best_epoch: int = 0
    stale: int = 0
    seconds: float = 0.0
    speed: Sequence[dict[str, Any]] = ()
    skipped: Sequence[dict[str, Any]] = ()


def keys(seed: int) -> tuple[Array, Array]:
    """The key of `Task.init`, and the key that is folded with the step for `Task.loss`."""
    init_key, step_key = jax.random.split(jax.random.key(seed))
    return init_key, step_key
