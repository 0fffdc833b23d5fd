"""The contract of an experiment, and the scoring and writing up that all of them share.

A task module defines an :class:`Experiment`. Training, scoring, search, export and pictures go
through it, and through the :class:`Prepared` that it makes of one configuration.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax

import data
from data.batches import ALL, Batch
from data.storage import Split
from experiments.runner import own, records
from experiments.runner.config import TrainConfig, identity
from experiments.runner.records import Record
from surnn_jax import train
from surnn_jax.typing import Params

BALANCE_RATE = 1.0
"""η of the homeostat: a neuron that is open at a tenth of the steps too few rises by a tenth of its
logit's deviation."""


class Feed(Protocol):
    """Batches of one split: :class:`data.batches.Batches` and its like."""

    steps_per_epoch: int

    def batch(self, step: int, rows: slice = ALL) -> Batch:
        """The batch of a training step, or some rows of it."""

    def evaluation(self, rows: slice = ALL) -> Iterator[Batch]:
        """The whole split once, or some rows of every batch."""


class Prepared(NamedTuple):
    """Everything a run needs; made of its configuration once.

    Attributes:
        task: the functions that are trained.
        feeds: batches by split: ``train``, ``valid``, ``test``.
        model: the model; :attr:`task` applies it.
        metric: the figure that chooses the best epoch; lower is better.
        inputs: example inputs ``[B, T, …]``, as the model takes them.
        inputs_text: how such inputs are made from the data, in words.
        draw: ``(record, params, folder)``: writes pictures and sounds into the folder.
        recurrent: parameters -> those that records count as recurrent.
        scored: the splits whose figures a record holds.
        agree: ``(params, others) -> layer -> agreement``: whether the switches of two sets of
            parameters open at the same steps (:func:`experiments.analysis.gates.agreement`); None
            for an experiment that does not compare them.
        about: a line to print before training; None for none.
        data: what was read, see :class:`.Record`; None for data that are made batch by batch.
    """

    task: train.Task
    feeds: Mapping[str, Feed]
    model: Any
    metric: str
    inputs: jax.Array
    inputs_text: str
    draw: Callable[[Record, Params, Path], None]
    recurrent: Callable[[Params], Any]
    scored: tuple[str, ...] = ("valid", "test")
    agree: Callable[[Params, Params], dict[str, float]] | None = None
    about: Callable[[], str] | None = None
    data: dict[str, str] | None = None


class Experiment(NamedTuple):
    """An experiment.

    Attributes:
        name: as records name it, such as ``music``.
        config: the class of its configurations.
        check: refuses a bad configuration with a ValueError, before anything is read.
        prepare: ``(config, data_dir)``: reads the data and builds the model. Raises ValueError for
            bad data, OSError for missing data, with the command that prepares them.
        outline: ``config``: the model and its parameters as `jax.ShapeDtypeStruct`, without the
            data; None if the model depends on them.
    """

    name: str
    config: type[TrainConfig]
    check: Callable[[Any], None]
    prepare: Callable[[Any, str | None], Prepared]
    outline: Callable[[Any], tuple[Any, Params] | None] = lambda config: None


def what_was_read(splits: Mapping[str, Split]) -> dict[str, str] | None:
    """The entry ``data`` of a record."""
    read = splits["train"].read
    if read and read["kind"] == "own":
        return own.entry(splits)
    return read and {"kind": read["kind"], "name": Path(read["path"]).name}


def identity_of(experiment: str, config: TrainConfig, prepared: Prepared) -> dict[str, Any]:
    """All that a run's folder must agree with to be resumed; of own files their hash.

    What was read of a data set is left out if it is the usual: older runs have no such entry.
    """
    found = {"experiment": experiment, **identity(config)}
    if config.own:
        found["data_sha256"] = prepared.data["sha256"]
    elif prepared.data is not None:
        usual = "made here" if data.source_of(config.dataset).generated else "original"
        if prepared.data["kind"] != usual:
            found["data_read"] = prepared.data["kind"]
    return found


def training_settings(
    config: TrainConfig, metric: str, steps_per_epoch: int
) -> tuple[train.Settings, train.OptimizerConfig]:
    """How long to train, and with which optimizer.

    Args:
        config: the run's.
        metric: the figure that chooses the best epoch.
        steps_per_epoch: of the training batches.

    Raises:
        ValueError: a name that does not exist, or a number out of range.
    """
    settings = train.Settings(
        max_epochs=config.max_epochs,
        monitor=metric,
        patience=config.patience,
        seed=config.seed,
        skip_nonfinite=config.skip_nonfinite,
    )
    updates = config.max_epochs * steps_per_epoch // max(config.accumulate, 1)
    # Fields of the same name mean the same.
    shared = {field.name for field in dataclasses.fields(config)} - {"name"}
    shared &= {field.name for field in dataclasses.fields(train.OptimizerConfig)}
    named = {name: getattr(config, name) for name in (*shared, "warmup")}
    if config.balance == "target" and not config.frozen:
        named["balance_rate"] = BALANCE_RATE
    total_steps = max(updates, config.warmup + 1 if config.warmup else 0)
    optimizer = train.OptimizerConfig(config.optimiser, total_steps=total_steps, **named)
    return settings, optimizer


def scores(prepared: Prepared, params: Params) -> tuple[dict[str, float], float]:
    """Scores parameters on every split that records hold.

    Returns:
        ``SPLIT_NAME`` -> figure; and the update rate on the test split.
    """
    found = {
        split: train.score(prepared.task, params, prepared.feeds[split].evaluation())
        for split in prepared.scored
    }
    metrics = {
        f"{split}_{name}": value
        for split, values in found.items()
        for name, value in values.items()
        if name != "update_rate"
    }
    return metrics, found["test"]["update_rate"]


def record_of(
    experiment: str,
    config: TrainConfig,
    prepared: Prepared,
    params: Params,
    *,
    best_epoch: int,
    steps: int,
    seconds: float,
    command: str,
    search: Mapping[str, Any] | None = None,
) -> Record:
    """Scores parameters and writes up the run that they come from.

    Args:
        experiment: its name.
        config: the run's configuration.
        prepared: its data and model.
        params: the parameters of the best epoch.
        best_epoch: its number, counted from 1.
        steps: training steps done.
        seconds: wall time of the training.
        command: the command line.
        search: how a search found the configuration; None for a single run.
    """
    metrics, update_rate = scores(prepared, params)
    return Record(
        experiment=experiment,
        dataset=config.dataset,
        cell=config.kinds,
        switch=config.switch_name,
        seed=config.seed,
        parameters=count(params),
        recurrent_parameters=count(prepared.recurrent(params)),
        update_rate=update_rate,
        metrics=metrics,
        best_epoch=best_epoch,
        steps=steps,
        seconds=seconds,
        config=dataclasses.asdict(config),
        versions=records.versions(),
        command=command,
        data=prepared.data,
        search=None if search is None else dict(search),
        date=time.strftime("%Y-%m-%d"),
    )


def parameter_shapes(prepared: Prepared) -> Params:
    """The parameters as `jax.ShapeDtypeStruct`, for reading stored ones."""
    init, batch = prepared.task.init, prepared.feeds["train"].batch(0)
    return jax.eval_shape(init, jax.random.key(0), batch)


def count(params: Any) -> int:
    """How many numbers a tree of parameters holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
