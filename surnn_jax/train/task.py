"""The contract between the trainer and a model: pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

from surnn_jax.typing import Array, Params

Metrics = dict[str, tuple[Array, Array]]
"""Name -> (total, weight), two float32 scalars. The trainer reports the sum of the totals over the
sum of the weights, so batches of unequal size are weighted correctly."""


class Task(NamedTuple):
    """A model with its loss, as pure functions that can be jitted.

    Attributes:
        init: ``(key, batch) -> params``.
        loss: ``(params, batch, key) -> (scalar, metrics)``: the scalar to minimise, penalties
            included, and the metrics logged under ``train/``. The names ``loss`` and ``grad_norm``
            are reserved for the trainer. The key is a function of the seed and the step.
        evaluate: ``(params, batch) -> metrics``: logged under ``valid/``, without randomness.
        memory: None, or ``(params, batch) -> memory`` for models that carry a state from batch to
            batch: the memory before the first batch of a run and of every evaluation. Then ``loss``
            takes the memory as its last argument and returns ``(scalar, (metrics, memory))``, and
            ``evaluate`` takes it too and returns ``(metrics, memory)``. No gradient flows through
            it. It is part of a checkpoint.

    Examples:
        >>> from surnn_jax import train
        >>> def error(params, batch):
        ...     return jnp.square(params["w"] - batch)
        >>> task = train.Task(
        ...     init=lambda key, batch: {"w": jnp.zeros(())},
        ...     loss=lambda params, batch, key: (error(params, batch), {}),
        ...     evaluate=lambda params, batch: {"mse": (error(params, batch), jnp.ones(()))},
        ... )
        >>> float(task.loss({"w": jnp.ones(())}, jnp.array(3.0), None)[0])
        4.0
    """

    init: Callable[[Array, Any], Params]
    loss: Callable[..., tuple[Array, Any]]
    evaluate: Callable[..., Any]
    memory: Callable[[Params, Any], Any] | None = None
