"""The switch and the recurrent layer that a configuration describes, and noise on its matrices."""

from collections.abc import Mapping
from typing import Any

import jax

from experiments.runner.config import RecurrentConfig, TrainConfig
from surnn_jax import cells, switches
from surnn_jax.typing import Array, Params


def layer_of(
    config: RecurrentConfig, sizes: Mapping[str, int]
) -> tuple[cells.Cell, int, switches.Switch | None]:
    """Cell, neurons and switch of a single recurrent layer.

    Args:
        config: the run's.
        sizes: cell -> neurons, for a configuration that names none.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """
    cell = cells.get(config.cell)
    features = sizes.get(config.cell) if config.features is None else config.features
    if features is None:
        raise ValueError(f"{config.cell} has no usual size here: give features, its neurons")
    if features < 1:
        raise ValueError(f"features must be at least 1, got {features}")
    if config.switch == "none":
        return cell, features, None
    reads = {"event_features": "counts", "init_std": config.spread}
    return cell, features, switch_of(config, config.horizon, reads)


def switch_of(
    config: TrainConfig,
    horizon: int,
    reads: Mapping[str, Any],
    surrogate: switches.Surrogate | None = None,
) -> switches.Switch:
    """The switch that a configuration names.

    Args:
        config: its switch, update rate, and whether it is frozen.
        horizon: the longest period, in steps.
        reads: options of switches that read the input.
        surrogate: of learned switches; None for a window.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """
    name, rate = config.switch, config.rate
    if name not in switches.SWITCHES:
        none = ["none"] if isinstance(config, RecurrentConfig) else []
        known = ", ".join([*none, *switches.SWITCHES])
        raise ValueError(f"unknown switch {name!r}; one of: {known}")
    learned = {
        "rate": rate,
        "frozen": config.frozen,
        "gate": switches.triangular() if surrogate is None else surrogate,
        "balance": config.balance,
    }
    options: dict[str, Mapping[str, Any]] = {
        "fourier": learned,
        "event": {**learned, **reads},
        "every": {"n": max(1, round(1 / rate)) if rate > 0 else 1},
        "clockwork": {},
        "phased": {"frozen": config.frozen},
        "zoneout": {"hold": 1 - rate},
        "threshold": {"rate": rate, **reads},
    }
    return switches.SWITCHES[name](horizon, **options[name])


def noisy(params: Params, key: Array, deviation: float) -> Params:
    """Parameters with Gaussian noise on the matrices of the cell, not on its biases.

    The regulariser of Chung et al. 2014, section 4.2, where the deviation is 0.075: one draw a
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
