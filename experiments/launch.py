"""Runs the configurations that a command line asks for, each in a folder of its own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from experiments import figures
from experiments.config import Common
from experiments.records import Record
from surnn_jax import train


def plans(
    config: Common, metric: str, steps_per_epoch: int, warmup: int = 0
) -> tuple[train.Settings, train.OptimiserConfig]:
    """How long to train, and with what.

    Args:
        config: what is asked for.
        metric: the figure that chooses the best epoch.
        steps_per_epoch: of the training batches.
        warmup: steps in which the learning rate rises.

    Raises:
        ValueError: a name that does not exist, or a number out of range.
    """
    settings = train.Settings(
        max_epochs=config.max_epochs, monitor=metric, patience=config.patience, seed=config.seed
    )
    optimiser = train.OptimiserConfig(
        config.optimiser,
        config.learning_rate,
        schedule=config.schedule,
        total_steps=max(config.max_epochs * steps_per_epoch, warmup + 1 if warmup else 0),
        warmup=warmup,
        clip=config.clip,
        weight_decay=config.weight_decay,
        switch_scale=config.switch_scale,
    )
    return settings, optimiser


def count(params: Any) -> int:
    """How many numbers a tree of parameters holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def go(
    experiment: str,
    runs: Mapping[str, Any],
    run: Callable[[Any, Path], Record],
    *,
    name: str,
    workdir: str | None,
    metric: str,
    summary: Callable[[Mapping[str, Record]], str],
) -> None:
    """Runs them one after another, then compares them.

    Args:
        experiment: its name.
        runs: name -> configuration; the name ``""`` stands for `workdir` itself.
        run: trains one configuration in a folder, or finishes it.
        name: of the folder below ``runs/EXPERIMENT`` where `workdir` is None.
        workdir: the folder.
        metric: whose curves are compared.
        summary: a table of finished runs, for the terminal.

    Raises:
        ValueError: bad configuration or data, or a folder of another run.
        OSError: a folder or file is missing or cannot be read or written.
    """
    home = Path(workdir or f"runs/{experiment}/{name}")
    done = {}
    for number, (part, config) in enumerate(runs.items(), 1):
        if part:
            print(f"[{number}/{len(runs)}] {part}", flush=True)
        done[part] = run(config, home / part)
    if len(done) > 1:
        histories = {part: train.metrics.read_lines(home / part / "metrics.jsonl") for part in done}
        figures.compare_curves(histories, home / "curves.png", metric=metric, title=name)
    print(summary(done))
    print(f"pictures and result.json: {home}")
