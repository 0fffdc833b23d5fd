"""What the music experiment does with its configurations: train, score, draw, play, record."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import data
from data.batches import Batches
from experiments import figures, launch, records, sound
from experiments.music_config import Config
from experiments.music_task import carry_on, look_inside, look_through, model_of, task_of
from surnn_jax import train

EXPERIMENT = "music"
_PRIME, _MORE = 16, 64


def go(
    runs: Mapping[str, Config],
    preset: str | None,
    workdir: str | None,
    data_dir: str | None,
    command: str,
) -> None:
    """Runs every configuration in a folder of its own, then compares them.

    Args:
        runs: name -> configuration; the name ``""`` stands for `workdir` itself.
        preset: its name, for the default of `workdir`.
        workdir: the folder; by default below ``runs/music``, named by what is run.
        data_dir: folder of the originals, or None.
        command: for the record.

    Raises:
        ValueError: bad configuration or data, or a folder of another run.
        OSError: a folder or file is missing or cannot be read or written.
    """
    # All of them, before any of them trains for minutes.
    for config in runs.values():
        data.source_of(config.dataset)
        launch.plans(config, "nll", 1)
        model_of(config)
        for field, least in (("batch_size", 1), ("seed", 0), ("weight_noise", 0)):
            if getattr(config, field) < least:
                raise ValueError(f"{field} must be at least {least}, got {getattr(config, field)}")
    (first, *_) = runs.values()
    launch.go(
        EXPERIMENT,
        runs,
        lambda config, folder: run(config, folder, data_dir, command),
        name=preset or f"{first.dataset}-{first.unit}-{first.seed}",
        workdir=workdir,
        metric="nll",
        summary=summary,
    )


def run(config: Config, workdir: Path, data_dir: str | None, command: str) -> records.Record:
    """Trains one configuration in `workdir`, or finishes it, and leaves all its results there."""
    splits = {name: data.load(config.dataset, name, data_dir) for name in data.SPLITS}
    task = task_of(config, look_through(splits["train"]["x"], config.batch_size))
    batches = batches_of(config, splits)
    settings, optimiser = launch.plans(config, "nll", batches["train"].steps_per_epoch)
    fit = train.fit(
        task,
        train.make_optimiser(optimiser),
        batches=batches["train"].batch,
        steps_per_epoch=batches["train"].steps_per_epoch,
        evaluation=batches["valid"].evaluation,
        settings=settings,
        workdir=workdir,
        config={"experiment": EXPERIMENT, **dataclasses.asdict(config)},
    )
    scores = scores_of(task, fit.params, batches)
    record = records.Record(
        experiment=EXPERIMENT,
        dataset=config.dataset,
        cell=config.cell,
        switch=config.switch_name,
        parameters=launch.count(fit.params),
        recurrent_parameters=launch.count(fit.params["recurrent"]),
        update_rate=scores["test"]["update_rate"],
        metrics=_recorded(scores),
        best_epoch=fit.best_epoch,
        steps=fit.steps,
        seconds=fit.seconds,
        seed=config.seed,
        config=dataclasses.asdict(config),
        versions=records.versions(),
        command=command,
    )
    records.write(record, workdir)
    _show(config, fit, splits["test"], workdir)
    return record


def batches_of(config: Config, splits: Mapping[str, data.Split]) -> dict[str, Batches]:
    """Batches of every split; few padded lengths, since each is compiled for."""
    size, seed = config.batch_size, config.seed
    return {name: Batches(split.columns, size, seed, growth=2.0) for name, split in splits.items()}


def scores_of(task, params, batches: Mapping[str, Batches]) -> dict[str, dict[str, float]]:
    """The metrics of every split."""
    return {name: train.score(task, params, b.evaluation()) for name, b in batches.items()}


class Again:
    """A finished run, to be scored again.

    Attributes:
        task: what was trained.
        first: a batch, for the shapes.
    """

    def __init__(self, config: Mapping[str, Any], data_dir: str | None):
        config = Config(**config)
        splits = {name: data.load(config.dataset, name, data_dir) for name in data.SPLITS}
        self.task = task_of(config, look_through(splits["train"]["x"], config.batch_size))
        self._batches = batches_of(config, splits)
        self.first = self._batches["train"].batch(0)

    def metrics(self, params: Any) -> dict[str, float]:
        """What the record holds."""
        return _recorded(scores_of(self.task, params, self._batches))


def _recorded(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{split}_nll": values["nll"] for split, values in scores.items()}


def summary(done: Mapping[str, records.Record]) -> str:
    """A table of finished runs, for the terminal."""
    head = f"{'run':<14}{'test':>8}{'valid':>8}{'train':>8}{'rate':>7}{'parameters':>12}{'s':>7}"
    lines = [f"nats a frame, lower is better ({next(iter(done.values())).dataset})", head]
    for name, r in done.items():
        test, valid, fitted = (r.metrics[f"{split}_nll"] for split in ("test", "valid", "train"))
        lines.append(
            f"{name or r.cell:<14}{test:8.3f}{valid:8.3f}{fitted:8.3f}{r.update_rate:7.2f}"
            f"{r.recurrent_parameters:12,d}{r.seconds:7.1f}"
        )
    return "\n".join(lines)


def _show(config: Config, fit: train.Fit, test: data.Split, workdir: Path) -> None:
    """Pictures and sound of the best epoch, on the test piece of median length."""
    model = model_of(config)
    which = np.argsort([len(x) for x in test["x"]], kind="stable")[len(test) // 2]
    piece, name = test["x"][which], test.ids[which]
    unit = config.unit
    figures.learning_curves(fit.history, workdir / "curves.png", title=f"{unit}, {config.dataset}")
    inside = look_inside(model, fit.params, piece)
    figures.piano_roll(piece, inside.probability, workdir / "roll.png", title=f"{name}, {unit}")
    if inside.table is not None:
        figures.raster(
            inside.table, workdir / "switches.png", title=f"{name}, {unit}", inputs=piece[:-1]
        )
    more = carry_on(model, fit.params, piece[:_PRIME], _MORE, config.seed)
    sound.write_midi(more, workdir / "continuation.mid")
    sound.write_midi(piece, workdir / "original.mid")
