"""How long to train, how to be safe, and what makes a run the same run."""

import dataclasses
import json
import os
from typing import Any

from surnn_jax.train import checkpoint


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long to train, and how to be safe.

    Attributes:
        max_epochs: the most epochs.
        monitor: the metric of `Task.evaluate` that chooses the best epoch; lower is better.
        patience: epochs without a new best after which training stops; None for never.
        seed: of the initial parameters and of every random key.
        save_seconds: least pause between two checkpoints, in seconds.
        restore: what a damaged latest checkpoint means: ``latest``, an error; ``latest_good``,
            the run goes on from the newest good one.
        skip_nonfinite: how many steps of a run whose loss or gradient is not finite are left out
            and written down, as if their batch had not been; the next one stops the run.
        profile: whether to trace ten steps, into the folder ``profile`` of the run.
        tensorboard: whether to write events, into the folder ``tensorboard`` of the run; needs the
            package tensorboardX.

    Raises:
        ValueError: a value out of range.
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
        if self.restore not in checkpoint.RESTORE:
            there = ", ".join(checkpoint.RESTORE)
            raise ValueError(f"restore: no {self.restore!r}; there are {there}")


def identity(settings: Settings, steps_per_epoch: int, config: dict[str, Any]) -> dict[str, Any]:
    """All that decides a run's numbers, as JSON gives it back."""
    names = ("max_epochs", "monitor", "patience", "seed", "skip_nonfinite")
    decides = {name: getattr(settings, name) for name in names}
    whole = {"config": config, "settings": {**decides, "steps_per_epoch": steps_per_epoch}}
    return json.loads(json.dumps(whole, allow_nan=False))


def check_same(stored: dict[str, Any], given: dict[str, Any], workdir: str | os.PathLike) -> None:
    """Compares two identities.

    Raises:
        ValueError: naming the fields that differ and both their values.
    """
    for part in ("config", "settings"):
        if found := differences(stored[part], given[part]):
            raise ValueError(
                f"{workdir} holds a run with {'; '.join(found)}: "
                "give another workdir, or the old values"
            )


def differences(stored: Any, given: Any, name: str = "") -> list[str]:
    """The fields in which two nested dicts differ, in words, with both their values."""
    if not (isinstance(stored, dict) and isinstance(given, dict)):
        return [] if stored == given else [f"{name}={stored!r}, not {given!r}"]
    found = []
    for key in sorted(stored.keys() | given.keys()):
        field = f"{name}.{key}" if name else key
        if key not in given:
            found.append(f"{field}={stored[key]!r}, which is not given now")
        elif key not in stored:
            found.append(f"no {field}, which is {given[key]!r} now")
        else:
            found += differences(stored[key], given[key], field)
    return found
