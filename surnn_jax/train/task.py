"""What the trainer is told about the thing it trains: three pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

from surnn_jax.typing import Array, Params

Metrics = dict[str, tuple[Array, Array]]
"""Name -> (total, weight), two float32 scalars. What is reported is the sum of the totals over
the sum of the weights, so batches of unequal size are weighted rightly."""


class Task(NamedTuple):
    """A model with its loss, as pure functions that can be jitted.

    Attributes:
        init: ``(key, batch) -> params``.
        loss: ``(params, batch, key) -> (scalar, metrics)``: what is minimised, penalties
            included, and what is logged under ``train/``. The names ``loss`` and ``grad_norm``
            are the trainer's own. The key is a function of the seed and the step.
        evaluate: ``(params, batch) -> metrics``: logged under ``valid/``, without randomness.
    """

    init: Callable[[Array, Any], Params]
    loss: Callable[[Params, Any, Array], tuple[Array, Metrics]]
    evaluate: Callable[[Params, Any], Metrics]
