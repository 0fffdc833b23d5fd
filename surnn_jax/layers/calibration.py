"""Thresholds of event switches, set by real data after a model has been made."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax.cells.cell import state_dtype
from surnn_jax.scan.unit import inputs_before
from surnn_jax.switches import Switch, SwitchInputs
from surnn_jax.typing import Array, Params

COLLECTION = "calibration"
"""The collection of variables in which layers report new thresholds to :func:`calibrate`."""


def calibrate(model: nn.Module, variables: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Sets the thresholds of a model's event switches by a batch of real data.

    Every neuron of every event and threshold switch then opens at the switch's rate in this batch;
    all other parameters stay as they are. It is for models whose `init` saw a dummy input::

        variables = model.init(key, jnp.ones((1, 100, 8)))
        variables = calibrate(model, variables, batch)

    Layers are set from the input up, each by what it sees of those below once they are set. The
    batch is taken to begin at step 0. A batch without variation changes nothing. A layer that is
    called twice is set by its first call.

    Args:
        model: any linen module that contains a :class:`.Recurrent` layer, or is one.
        variables: as its `init` returned them.
        args: what the model is called with: a batch, lengths and so on.
        kwargs: keyword arguments of that call, and `rngs` or `method`, as for ``model.apply``.

    Returns:
        The variables with new thresholds.

    Raises:
        ValueError: if no event or threshold switch was found. A :class:`.UnitCell` inside
            `nn.RNN` sees one step at a time and cannot be calibrated; take a `Recurrent`, whose
            parameters are the same.

    Examples:
        >>> from surnn_jax.layers import Recurrent, calibrate
        >>> from surnn_jax.switches import event
        >>> layer = Recurrent("gru", 4, event(horizon=50, rate=0.1), return_run=True)
        >>> variables = layer.init(jax.random.key(0), jnp.ones((2, 50, 3)))
        >>> x = 5 + jax.random.normal(jax.random.key(1), (2, 50, 3))  # real data
        >>> variables = calibrate(layer, variables, x)
        >>> round(float(layer.apply(variables, x).rate), 2)
        0.1
    """
    _, state = model.apply(variables, *args, mutable=[COLLECTION], **kwargs)
    if not state.get(COLLECTION):
        raise ValueError(
            "calibrate: found no event or threshold switch in a Recurrent layer of "
            f"{type(model).__name__}; other switches have no thresholds to set, and a UnitCell "
            "sees too little to set them"
        )
    return {**variables, "params": _merged(variables["params"], state[COLLECTION])}


def _merged(tree: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _merged(leaf, found.get(name, {}))
        if isinstance(leaf, Mapping)
        else found.get(name, leaf)
        for name, leaf in tree.items()
    }


def is_calibrating(module: nn.Module) -> bool:
    """Whether :func:`calibrate` runs the model, rather than `init` or an `apply` of all."""
    return module.is_mutable_collection(COLLECTION) and not module.is_mutable_collection("params")


def calibrated_params(module: nn.Module, params: Params, seen: SwitchInputs) -> Params:
    """The switch's parameters by what it has `seen`, or by what an earlier call of `module` set."""
    if module.has_variable(COLLECTION, "switch"):
        return {**params, **module.get_variable(COLLECTION, "switch")}
    found = module.switch.calibrated(params, seen)
    changed = {name: leaf for name, leaf in found.items() if leaf is not params[name]}
    if changed:
        module.put_variable(COLLECTION, "switch", changed)
    return found


def shown(
    switch: Switch,
    x: Array,
    lengths: Array | None,
    mask: Array | None,
    resets: Array | None,
    reverse: bool,
) -> SwitchInputs:
    """What a switch is shown of inputs ``[T, *batch, D]``.

    The other arguments are those of `scan.run`.
    """
    steps, width = x.shape[0], x.shape[-1]
    x = x.reshape(steps, math.prod(x.shape[1:-1]), width)
    t = jnp.broadcast_to(jnp.arange(steps, dtype=jnp.int32)[:, None], x.shape[:2])
    valid = jnp.ones(x.shape[:2], bool)
    mask, resets = (None if m is None else m.reshape(x.shape[:2]) for m in (mask, resets))
    if lengths is not None:
        valid = t < jnp.asarray(lengths).astype(jnp.int32).reshape(1, -1)
        resets = None if resets is None else resets & valid
    inside = valid
    if mask is not None:
        valid = valid & mask
    if reverse:  # padding comes first then, and time begins behind it
        if resets is not None:  # a sequence ends where the next begins
            resets = jnp.concatenate([resets[1:], resets[:1] & False])[::-1]
        x, valid, inside = x[::-1], valid[::-1], inside[::-1]
        t = jnp.maximum(t - jnp.sum(~inside, axis=0, dtype=jnp.int32)[None], 0)
    x = jnp.where(valid[..., None], x, 0)
    if resets is not None:
        last = jax.lax.cummax(jnp.where(resets, t, -1), axis=0)
        t = jnp.where(last >= 0, t - last, t)
    previous = inputs_before(switch, x, t, state_dtype(x.dtype))
    if resets is not None:
        previous = jnp.where(resets[..., None], 0, previous)
    return SwitchInputs(x, previous, t, valid)
