"""The sequence experiments lra, pixels, synthetic and wikitext: data, model and pictures."""

import functools
from pathlib import Path
from typing import Any

import jax

from data.batches import Batch
from experiments.runner import config as base
from experiments.runner.experiment import Experiment, Prepared, count, training_settings
from experiments.runner.records import Record
from experiments.tasks.sequence import data, figures
from experiments.tasks.sequence.config import DATASETS, Config
from experiments.tasks.sequence.task import METRIC, TaskSpec, frames, model_of, task_of
from surnn_jax import cells, scan, train
from surnn_jax.layers import backbone
from surnn_jax.typing import Params


def check(experiment: str, config: Config, *, shapes: bool = True) -> None:
    """Refuses a configuration before anything is read or compiled.

    Args:
        experiment: whose it is.
        config: the configuration.
        shapes: whether to trace the model, on made-up data; takes about a second.

    Raises:
        ValueError: what is wrong and what would be right.
    """
    data.check(experiment, config)
    base.check(config)
    training_settings(config, "nll", max(config.warmup, 0) + 1)
    spec = data.dummy_spec(config)
    model = model_of(config, spec)
    if shapes:
        init = task_of(config, model, spec).init
        jax.eval_shape(init, jax.random.key(0), data.dummy_batch(config, spec))
    else:
        backbone.check(model.backbone)


def prepare(config: Config, data_dir: str | None) -> Prepared:
    """Reads the data that a configuration names, and builds its model.

    Raises:
        ValueError: bad configuration or data.
        OSError: data that are missing; the message names the command that prepares them.
    """
    spec, feeds, read = data.load(config, data_dir)
    model = model_of(config, spec)
    task, first = task_of(config, model, spec), feeds["train"].batch(0)

    def draw(record: Record, params: Params, folder: Path) -> None:
        del record
        test = next(feeds["test"].evaluation())
        figures.inspect(config, model, spec, params, test, folder)

    def agree(params: Params, others: Params) -> dict[str, float]:
        test = next(feeds["test"].evaluation())
        return figures.agreements(config, model, spec, params, others, test)

    return Prepared(
        task=task,
        feeds=feeds,
        model=model,
        metric=METRIC[spec.kind],
        inputs=frames(spec, first["x"]),
        inputs_text=_inputs_text(spec),
        draw=draw,
        agree=agree,
        recurrent=_blocks,
        about=lambda: _about(config, model, task, first),
        data=read,
    )


def outline(config: Config) -> tuple[Any, Params] | None:
    """The model and the shapes of its parameters; None if its sizes are those of a data set."""
    if config.dataset not in DATASETS["synthetic"]:
        return None
    spec = data.dummy_spec(config)
    model = model_of(config, spec)
    init, batch = task_of(config, model, spec).init, data.dummy_batch(config, spec)
    return model, jax.eval_shape(init, jax.random.key(0), batch)


def _inputs_text(spec: TaskSpec) -> str:
    if spec.tokens is not None:
        return f"tokens, 0 to {spec.tokens - 1}"
    return "bytes / 255" if spec.bytes else "numbers as they are"


def _blocks(params: Params) -> Any:
    """The parameters of all blocks, without encoder and head."""
    own = params["backbone"]
    return {name: part for name, part in own.items() if name.startswith("blocks_")}


def _about(config: Config, model: Any, task: train.Task, batch: Batch) -> str:
    """One line: the model and its size, and the back end of each recurrent layer."""
    params = jax.eval_shape(task.init, jax.random.key(0), batch)
    parts = [f"{config.unit} on {config.dataset}", f"{count(params):,} parameters"]
    kinds = [name for name in config.names if name.removeprefix("su") in cells.CELLS]
    for name in dict.fromkeys(kinds):
        switch = None if name in cells.CELLS else model.backbone.options.switch
        unit = scan.selective(name if switch is None else name.removeprefix("su"), switch)
        size = config.hidden or config.features
        backend = config.backend
        if backend == "auto":
            steps, dtype = batch["x"].shape[1], config.precision
            backend = scan.auto.choose(unit, size, steps, config.batch_size, dtype=dtype).backend
        parts.append(f"{name}: back end {backend}")
    return "; ".join(parts)


EXPERIMENTS = {
    name: Experiment(name, Config, functools.partial(check, name), prepare, outline)
    for name in DATASETS
}
