"""The data of lra, pixels, synthetic and wikitext, as batches and as a :class:`.TaskSpec`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import data
from data import synthetic
from data.batches import Batch, Batches
from data.sets.own import arrays
from data.streams import Streams
from experiments.runner import own
from experiments.runner.experiment import Feed, what_was_read
from experiments.tasks.datasets import refusal
from experiments.tasks.sequence.config import DATASETS, Config
from experiments.tasks.sequence.task import EVERY_STEP, TaskSpec

_EXAMPLES, _EVALUATED = 12800, 1024
_CHOICE = 20140
_MANY = 10**6
"""Tokens enough for the cutoffs of any vocabulary."""


class Loaded(NamedTuple):
    """The data of a run.

    Attributes:
        spec: their task.
        feeds: batches by split.
        read: see :attr:`.Prepared.data`.
    """

    spec: TaskSpec
    feeds: dict[str, Feed]
    read: dict[str, str] | None = None


def kind_of(dataset: str) -> str:
    """The kind of task that a data set poses, see :class:`.TaskSpec`."""
    for kinds in DATASETS.values():
        if dataset in kinds:
            return kinds[dataset]
    return "classify"


def check(experiment: str, config: Config) -> None:
    """Refuses a data set of another experiment, and sequences without a length.

    Raises:
        ValueError: what is wrong and what would be right.
    """
    known = DATASETS[experiment]
    if config.own:
        if (config.own_kind == "text") != (experiment == "wikitext"):
            wanted = "a text" if experiment == "wikitext" else "arrays, whose name ends in .npz"
            other = "lra" if experiment == "wikitext" else "wikitext (texts), music or speech"
            raise ValueError(
                f"{experiment}: --data={config.own} should name {wanted}; for others there is "
                f"experiments.{other}"
            )
        own.check(config)
    elif config.dataset not in known:
        raise ValueError(refusal(experiment, config.dataset))
    made = experiment == "synthetic" and not config.own
    if config.steps == 0 and (made or experiment == "wikitext"):
        raise ValueError(f"{experiment}: max_length must be given, the length of a sequence")
    least = 2 * config.data + (config.dataset == "copy")
    if config.dataset in ("copy", "selective_copy") and config.steps < least:
        raise ValueError(
            f"{config.dataset}: max_length must be at least {least} for copy_tokens of "
            f"{config.data}, got {config.steps}"
        )


def load(config: Config, data_dir: str | None) -> Loaded:
    """Loads the data that a configuration names.

    Raises:
        ValueError: a number out of range, or data that are damaged.
        OSError: data that are missing; the message names the command that prepares them.
    """
    if not config.own and config.dataset in DATASETS["synthetic"]:
        return _synthetic(config)
    splits = own.load_splits(config, data_dir)
    # Not by what the data say of themselves: ListOps has a vocabulary, too.
    text = config.own_kind == "text" if config.own else kind_of(config.dataset) == "language"
    make = _language if text else _examples
    return make(config, splits)._replace(read=what_was_read(splits))


def dummy_spec(config: Config) -> TaskSpec:
    """The task as far as the configuration gives it, the rest made up: to check a model with."""
    if config.own:
        return _own_spec(config)
    if config.dataset in DATASETS["synthetic"]:
        return _spec(config)
    kind = kind_of(config.dataset)
    if kind == "language":
        return TaskSpec(kind, _MANY, config.steps, _MANY)
    column = data.source_of(config.dataset).columns["x"]
    if column.ragged:
        return TaskSpec(kind, 2, config.steps or 64, _MANY)
    steps, *frame = column.shape
    steps = min(steps, config.steps or steps)
    return TaskSpec(kind, 2, steps, inputs=frame[0] if frame else 1, bytes=True)


def _own_spec(config: Config) -> TaskSpec:
    """The task of own files, as far as they say it without being counted."""
    if config.own_kind == "text":
        return TaskSpec("language", _MANY, config.steps, _MANY)
    form = arrays.form(Path(config.own))
    column = form.columns["x"]
    steps = config.steps or column.shape[0] or 64
    if form.tokens:
        return TaskSpec(form.task, 2, steps, _MANY)
    frame = column.shape[1:]
    inputs, pixels = frame[0] if frame else 1, column.dtype == "uint8"
    return TaskSpec(form.task, 2, steps, inputs=inputs, bytes=pixels)


def dummy_batch(config: Config, spec: TaskSpec) -> Batch:
    """A batch of zeros of the right shapes."""
    size, steps = config.batch_size, spec.steps
    frames = () if spec.tokens is not None or spec.inputs == 1 else (spec.inputs,)
    x = np.zeros((size, steps, *frames), np.uint8)
    batch: Batch = {"x": x, "x2": x, "y": np.zeros((size, steps), np.int32)}
    lengths = np.full(size, steps, np.int32)
    return {**batch, "lengths": lengths, "lengths_x2": lengths, "fresh": np.ones(size, bool)}


def _synthetic(config: Config) -> Loaded:
    steps, name = config.steps, config.dataset
    if name == "selective_copy":
        task = synthetic.SelectiveCopy(steps, config.data, config.tokens)
    elif name == "copy":
        task = synthetic.Copy(steps - 2 * config.data, config.data, config.tokens - 2)
    elif name == "adding":
        task = synthetic.Adding(steps)
    else:
        task = synthetic.MackeyGlass(steps)
    counts = {"train": config.examples or _EXAMPLES}
    feeds = {
        split: synthetic.OnTheFly(
            task,
            config.batch_size,
            config.seed,
            split,
            counts.get(split, config.evaluated or _EVALUATED),
        )
        for split in data.SPLITS
    }
    return Loaded(_spec(config), feeds)


def _spec(config: Config) -> TaskSpec:
    """The task of synthetic data."""
    kind, steps = kind_of(config.dataset), config.steps
    if kind == "recall":
        return TaskSpec(kind, config.tokens, steps, config.tokens, ends=config.data)
    if config.dataset == "adding":
        return TaskSpec(kind, 1, steps, inputs=2)
    return TaskSpec(kind, 1, steps, ends=steps)


def _language(config: Config, splits: Mapping[str, data.Split]) -> Loaded:
    tokens = len(splits["train"].facts["vocabulary"])
    feeds: dict[str, Feed] = {}
    for name, split in splits.items():
        count = config.examples if name == "train" else config.evaluated
        stream = _cut(split["x"][0], count)
        try:
            feeds[name] = Streams(stream, config.batch_size, config.steps, config.seed)
        except ValueError as error:
            if not config.own:
                raise
            raise ValueError(
                f"{config.own}: {name}: {error}: take a longer text, or a smaller --batch_size or "
                "--max_length"
            ) from error
    return Loaded(TaskSpec("language", tokens, config.steps, tokens), feeds)


def _cut(stream: np.ndarray, tokens: int) -> np.ndarray:
    return stream[:tokens] if tokens else stream


def _examples(config: Config, splits: Mapping[str, data.Split]) -> Loaded:
    facts = splits["train"].facts
    kind = facts.get("task") or kind_of(config.dataset)
    # Of what is to be predicted, only what there is at every step is cut with the steps.
    steps = {"x": config.steps, "x2": config.steps, "y": config.steps * (kind in EVERY_STEP)}
    feeds, max_length = {}, 1
    for name, split in splits.items():
        count = config.examples if name == "train" else config.evaluated
        keep = _draw(_short(split, config.longest), count)
        if not len(keep):
            raise ValueError(
                f"{config.dataset}: no {name} example has at most {config.longest} steps"
            )
        columns: dict[str, Any] = {
            key: _rows(split[key], keep, longest)
            for key, longest in steps.items()
            if key in split.columns
        }
        x = columns["x"]
        length = x.shape[1] if isinstance(x, np.ndarray) else max(map(len, x))
        if "x2" in columns:
            length = max(length, *map(len, columns["x2"]))
        max_length = max(max_length, length)
        feeds[name] = Batches(columns, config.batch_size, config.seed, bucket_growth=2.0)
    first = splits["train"]["x"][0]
    tokens = facts.get("tokens")
    return Loaded(
        TaskSpec(
            kind,
            facts["classes"],
            max_length,
            tokens,
            first.shape[1] if first.ndim == 2 else 1,
            bytes=tokens is None and first.dtype == np.uint8,
        ),
        feeds,
    )


def _short(split: data.Split, max_length: int) -> np.ndarray:
    """The examples with at most so many steps in every sequence; all of them for 0."""
    short = np.ones(len(split), bool)
    for column in split.columns.values():
        if max_length and not isinstance(column, np.ndarray):
            short &= np.asarray(column.lengths) <= max_length
    return np.flatnonzero(short)


def _draw(which: np.ndarray, count: int) -> np.ndarray:
    """A fixed draw of so many examples, in the order of the data; all of them for 0."""
    if not count or count >= len(which):
        return which
    random = np.random.Generator(np.random.PCG64(_CHOICE))
    return np.sort(random.permutation(which)[:count])


def _rows(column: Any, keep: np.ndarray, steps: int) -> Any:
    """The examples of a column; if it has steps, cut after so many."""
    cut: Callable = (lambda x: x[:steps]) if steps else (lambda x: x)
    if isinstance(column, np.ndarray):
        # All examples stay memory-mapped.
        column = column if len(keep) == len(column) else column[keep]
        return column[:, :steps] if steps and column.ndim > 1 else column
    return [cut(column[int(i)]) for i in keep]
