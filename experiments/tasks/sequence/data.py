"""The data of lra, pixels, synthetic and wikitext, as batches and as a :class:`.Problem`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

import data
from data import synthetic
from data.batches import ALL, Batch, Batches
from data.streams import Streams
from experiments.tasks.sequence.config import Config
from experiments.tasks.sequence.task import TaskSpec

EXPERIMENTS = {
    "lra": (
        "listops", "imdb_bytes", "aan", "wikipairs", "cifar10_gray", "pathfinder32",
        "pathfinder128",
    ),
    "pixels": ("smnist", "psmnist", "scifar10", "digits"),
    "synthetic": ("selective_copy", "copy", "adding", "mackey_glass"),
    "wikitext": ("wikitext2", "wikitext103"),
}  # fmt: skip
"""The data sets of each experiment."""

_KINDS = {"aan": "match", "wikipairs": "match", "selective_copy": "recall", "copy": "recall"}

_EXAMPLES, _EVALUATED = 12800, 1024
_CHOICE = 20140
_MANY = 10**6
"""Tokens enough for the cutoffs of any vocabulary."""


class Feed(Protocol):
    """Batches of one split: :class:`.Batches`, :class:`.Streams` or :class:`.OnTheFly`."""

    steps_per_epoch: int

    def batch(self, step: int, rows: slice = ALL) -> Batch:
        """The batch of a training step, or some rows of it."""

    def evaluation(self, rows: slice = ALL) -> Iterator[Batch]:
        """The whole split once, or some rows of every batch."""


class Prepared(NamedTuple):
    """What a run reads.

    Attributes:
        problem: what the model must know.
        feeds: batches by split.
    """

    problem: TaskSpec
    feeds: dict[str, Feed]


def kind_of(dataset: str) -> str:
    """The kind of problem that a data set poses, see :class:`.Problem`."""
    if dataset in EXPERIMENTS["wikitext"]:
        return "language"
    return _KINDS.get(dataset, "regress" if dataset in EXPERIMENTS["synthetic"] else "classify")


def check(experiment: str, config: Config) -> None:
    """Refuses what cannot be, before anything is read.

    Raises:
        ValueError: a data set of another experiment, or a number out of range.
    """
    there = EXPERIMENTS[experiment]
    if config.dataset not in there:
        raise ValueError(f"{experiment}: no data {config.dataset!r}; one of: {', '.join(there)}")
    for name, least in (("batch_size", 1), ("seed", 0), ("steps", 0), ("examples", 0)):
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")
    if config.steps == 0 and experiment in ("wikitext", "synthetic"):
        raise ValueError(f"{experiment}: steps must be given, the length of a sequence")


def prepare(config: Config, data_dir: str | None) -> Prepared:
    """Loads the data that a configuration names.

    Raises:
        ValueError: a number out of range, or data that are damaged.
        OSError: data that are missing; the message names the command that prepares them.
    """
    if config.dataset in EXPERIMENTS["synthetic"]:
        return _synthetic(config)
    splits = {name: data.load(config.dataset, name, data_dir) for name in data.SPLITS}
    if config.dataset in EXPERIMENTS["wikitext"]:
        return _language(config, splits)
    return _examples(config, splits)


def dummy_spec(config: Config) -> TaskSpec:
    """The problem as far as the configuration tells it, the rest made up: to try a model on."""
    if config.dataset in EXPERIMENTS["synthetic"]:
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


def dummy_batch(config: Config, problem: TaskSpec) -> Batch:
    """A batch of zeros of the right shapes."""
    size, steps = config.batch_size, problem.steps
    frames = () if problem.tokens is not None or problem.inputs == 1 else (problem.inputs,)
    x = np.zeros((size, steps, *frames), np.uint8)
    batch: Batch = {"x": x, "x2": x, "y": np.zeros((size, steps), np.int32)}
    lengths = np.full(size, steps, np.int32)
    return {**batch, "lengths": lengths, "lengths_x2": lengths, "fresh": np.ones(size, bool)}


def _synthetic(config: Config) -> Prepared:
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
    return Prepared(_spec(config), feeds)


def _spec(config: Config) -> TaskSpec:
    """The problem that a made-up task poses."""
    kind, steps = kind_of(config.dataset), config.steps
    if kind == "recall":
        return TaskSpec(kind, config.tokens, steps, config.tokens, ends=config.data)
    if config.dataset == "adding":
        return TaskSpec(kind, 1, steps, inputs=2)
    return TaskSpec(kind, 1, steps, ends=steps)


def _language(config: Config, splits: Mapping[str, data.Split]) -> Prepared:
    tokens = len(splits["train"].facts["vocabulary"])
    feeds = {
        name: Streams(
            _cut(split["x"][0], config.examples if name == "train" else config.evaluated),
            config.batch_size,
            config.steps,
            config.seed,
        )
        for name, split in splits.items()
    }
    return Prepared(TaskSpec(kind_of(config.dataset), tokens, config.steps, tokens), feeds)


def _cut(stream: np.ndarray, tokens: int) -> np.ndarray:
    return stream[:tokens] if tokens else stream


def _examples(config: Config, splits: Mapping[str, data.Split]) -> Prepared:
    facts = splits["train"].facts
    feeds, longest = {}, 1
    for name, split in splits.items():
        wanted = config.examples if name == "train" else config.evaluated
        keep = _chosen(_short(split, config.longest), wanted)
        if not len(keep):
            raise ValueError(
                f"{config.dataset}: no {name} example has at most {config.longest} steps"
            )
        columns: dict[str, Any] = {
            key: _rows(split[key], keep, config.steps)
            for key in ("x", "x2", "y")
            if key in split.columns
        }
        x = columns["x"]
        length = x.shape[1] if isinstance(x, np.ndarray) else max(map(len, x))
        if "x2" in columns:
            length = max(length, *map(len, columns["x2"]))
        longest = max(longest, length)
        feeds[name] = Batches(columns, config.batch_size, config.seed, bucket_growth=2.0)
    first = splits["train"]["x"][0]
    tokens = facts.get("tokens")
    return Prepared(
        TaskSpec(
            kind_of(config.dataset),
            facts["classes"],
            longest,
            tokens,
            first.shape[1] if first.ndim == 2 else 1,
            bytes=tokens is None and first.dtype == np.uint8,
        ),
        feeds,
    )


def _short(split: data.Split, longest: int) -> np.ndarray:
    """Which examples have at most so many steps in every sequence; all where 0."""
    short = np.ones(len(split), bool)
    for column in split.columns.values():
        if longest and not isinstance(column, np.ndarray):
            short &= np.asarray(column.lengths) <= longest
    return np.flatnonzero(short)


def _chosen(which: np.ndarray, wanted: int) -> np.ndarray:
    """A fixed draw of so many examples, in the order of the data; all where 0."""
    if not wanted or wanted >= len(which):
        return which
    random = np.random.Generator(np.random.PCG64(_CHOICE))
    return np.sort(random.permutation(which)[:wanted])


def _rows(column: Any, keep: np.ndarray, steps: int) -> Any:
    """The examples of a column, cut after so many steps where it has steps."""
    cut: Callable = (lambda x: x[:steps]) if steps else (lambda x: x)
    if isinstance(column, np.ndarray):
        # All of them stay on the disk.
        column = column if len(keep) == len(column) else column[keep]
        return column[:, :steps] if steps and column.ndim > 1 else column
    return [cut(column[int(i)]) for i in keep]
