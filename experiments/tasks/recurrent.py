"""The recurrent unit that a configuration describes, and the noise on its matrices."""

from collections.abc import Mapping

import jax

from experiments.runner.config import RecurrentConfig
from surnn_jax import cells, switches
from surnn_jax.typing import Array, Params


def layer_of(
    config: RecurrentConfig, sizes: Mapping[str, int]
) -> tuple[cells.Cell, int, switches.Switch | None]:
    """Cell, neurons and switch of the one recurrent layer.

    Args:
        config: what is asked for.
        sizes: cell -> neurons where the configuration names none.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """
    cell = cells.get(config.cell)
    features = sizes.get(config.cell) if config.features is None else config.features
    if features is None:
        raise ValueError(f"{config.cell} has no usual size here: give features, its neurons")
    if features < 1:
        raise ValueError(f"features must be at least 1, got {features}")
    return cell, features, switch_of(config)


def switch_of(config: RecurrentConfig) -> switches.Switch | None:
    """The switch that a configuration describes.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """
    if config.switch == "none":
        return None
    if config.switch not in switches.SWITCHES:
        there = ", ".join(["none", *switches.SWITCHES])
        raise ValueError(f"unknown switch {config.switch!r}; one of: {there}")
    own = {"read": config.read, "spread": config.spread} if config.switch == "event" else {}
    return switches.SWITCHES[config.switch](
        config.horizon,
        harmonics=config.harmonics,
        rate=config.rate,
        gate=switches.get_gate(config.gate),
        frozen=config.frozen,
        **own,
    )


def noisy(params: Params, key: Array, deviation: float) -> Params:
    """Parameters with Gaussian noise on the cell's matrices, biases left alone.

    The regulariser of Chung et al. 2014, section 4.2, there with a deviation of 0.075: one draw a
    step, gradients taken at the noisy weights and applied to the clean ones.
    """
    leaves, form = jax.tree.flatten(params["recurrent"]["cell"])
    keys = jax.random.split(key, len(leaves))
    leaves = [
        w + deviation * jax.random.normal(k, w.shape, w.dtype) if w.ndim == 2 else w
        for w, k in zip(leaves, keys, strict=True)
    ]
    cell = jax.tree.unflatten(form, leaves)
    return {**params, "recurrent": {**params["recurrent"], "cell": cell}}
