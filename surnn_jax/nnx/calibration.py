"""Thresholds of event switches in NNX models, set by real data."""

from typing import Any

from flax import nnx

from surnn_jax.nnx.recurrent import Recurrent


def calibrate(model: nnx.Module, *args: Any, **kwargs: Any) -> None:
    """Sets the thresholds of a model's event switches by a batch of real data, in place.

    Every neuron of every event and threshold switch then opens at the switch's rate in this batch;
    all other parameters stay as they are. It is what :func:`surnn_jax.layers.calibrate` is for
    linen, with the same numbers.

    Args:
        model: any NNX module that contains a :class:`.Recurrent` layer, or is one.
        args: what the model is called with: a batch, lengths and so on.
        kwargs: keyword arguments of that call.

    Raises:
        ValueError: if no event or threshold switch was called. A :class:`.UnitCell` sees one step
            at a time and cannot be calibrated; take a `Recurrent`, whose parameters are the same.

    Examples:
        >>> from flax import nnx
        >>> import surnn_jax.nnx
        >>> from surnn_jax.switches import event
        >>> layer = surnn_jax.nnx.Recurrent(3, 4, "gru", event(50, rate=0.1), rngs=nnx.Rngs(0))
        >>> x = 5 + jax.random.normal(jax.random.key(1), (2, 50, 3))  # real data
        >>> surnn_jax.nnx.calibrate(layer, x)
        >>> round(float(layer(x, return_run=True).rate), 2)
        0.1
    """
    found = [
        module
        for _, module in nnx.iter_modules(model)
        if isinstance(module, Recurrent) and module.has_thresholds
    ]
    for module in found:
        module.calibrating = True
    try:
        model(*args, **kwargs)
    finally:
        missed = [module for module in found if module.calibrating]
        for module in missed:
            module.calibrating = False
    if len(missed) == len(found):
        raise ValueError(
            "calibrate: found no event or threshold switch in a Recurrent layer of "
            f"{type(model).__name__}; other switches have no thresholds to set, and a UnitCell "
            "sees too little to set them"
        )
