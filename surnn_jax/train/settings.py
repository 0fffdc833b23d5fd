"""How long to train, how to recover, and which values identify a run."""

import dataclasses
import json
import os
from typing import Any

RESTORE = ("latest", "latest_good")
"""What to do with a damaged latest checkpoint: refuse it, or skip it."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long to train, and how to recover.

    Attributes:
        max_epochs: the most epochs.
        monitor: the metric of `Task.evaluate` that chooses the best epoch; lower is better.
        patience: epochs without a new best after which training stops; None for no early stopping.
        seed: seed of the initial parameters and of every random key.
        save_seconds: least pause between two checkpoints, in seconds.
        restore: what to do if a file of the latest checkpoint is damaged. ``latest`` raises an
            error; ``latest_good`` resumes from the newest good checkpoint.
        skip_nonfinite: how many steps with a non-finite loss or gradient a run may skip and log,
            as if their batches had not been there; the next one stops the run.
        profile: whether to trace ten steps into the run's folder ``profile``.
        tensorboard: whether to write events into the run's folder ``tensorboard``; needs the
            package tensorboardX.

    Raises:
        ValueError: a value out of range.

    Examples:
        >>> from surnn_jax import train
        >>> train.Settings(max_epochs=10, monitor="mse", patience=3).restore
        'latest'
    """

    max_epochs: int
    monitor: str
    patience: int | None = None
    seed: int = 0
    save_seconds: float = 10.0
    restore: str = "latest"
    skip_nonfinite: int = 0
    profile: bool = False
    tensorboard: bool = False

    def __post_init__(self):
        if self.max_epochs < 1:
            raise ValueError(f"max_epochs must be at least 1, got {self.max_epochs}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1, or None, got {self.patience}")
        if not self.save_seconds >= 0:
            raise ValueError(f"save_seconds must not be negative, got {self.save_seconds}")
        if self.skip_nonfinite < 0:
            raise ValueError(f"skip_nonfinite must not be negative, got {self.skip_nonfinite}")
        if self.restore not in RESTORE:
            raise ValueError(f"restore: no {self.restore!r}; there are {', '.join(RESTORE)}")


def identity(settings: Settings, steps_per_epoch: int, config: dict[str, Any]) -> dict[str, Any]:
    """All values that determine a run's numbers, as they come back from JSON."""
    names = ("max_epochs", "monitor", "patience", "seed", "skip_nonfinite")
    values = {name: getattr(settings, name) for name in names}
    whole = {"config": config, "settings": {**values, "steps_per_epoch": steps_per_epoch}}
    return json.loads(json.dumps(whole, allow_nan=False))


def check_same(
    stored: dict[str, Any],
    current: dict[str, Any],
    workdir: str | os.PathLike,
    *,
    extends: bool = False,
) -> None:
    """Compares the identity in a checkpoint with the current one.

    Args:
        stored: the checkpoint's.
        current: the one of this call.
        workdir: the run's folder, for the error.
        extends: whether `max_epochs` may have grown.

    Raises:
        ValueError: naming the fields that differ and both their values.
    """
    if extends and stored["settings"]["max_epochs"] < current["settings"]["max_epochs"]:
        epochs = current["settings"]["max_epochs"]
        stored = {**stored, "settings": {**stored["settings"], "max_epochs": epochs}}
    for part in ("config", "settings"):
        if fields := differences(stored[part], current[part]):
            raise ValueError(
                f"{workdir} holds a run with {'; '.join(fields)}: "
                "give another workdir, or the old values"
            )


def differences(stored: Any, current: Any, name: str = "") -> list[str]:
    """The fields in which two nested dicts differ, in words, with both their values."""
    if not (isinstance(stored, dict) and isinstance(current, dict)):
        return [] if stored == current else [f"{name}={stored!r}, not {current!r}"]
    words = []
    for key in sorted(stored.keys() | current.keys()):
        field = f"{name}.{key}" if name else key
        if key not in current:
            words.append(f"{field}={stored[key]!r}, which is not given now")
        elif key not in stored:
            words.append(f"no {field}, which is {current[key]!r} now")
        else:
            words += differences(stored[key], current[key], field)
    return words
