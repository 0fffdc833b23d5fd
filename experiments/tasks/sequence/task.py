"""The models, losses and scores of lra, pixels, synthetic and wikitext, as pure functions."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.tasks import recurrent
from experiments.tasks.sequence.config import Config
from surnn_jax import switches
from surnn_jax.layers import (
    Backbone,
    Classifier,
    LanguageModel,
    Options,
    PairClassifier,
    SequenceTagger,
)
from surnn_jax.layers.sequence_models import Result
from surnn_jax.scan import share_clock
from surnn_jax.train import Task
from surnn_jax.train.task import Metrics
from surnn_jax.typing import Array, Params


class TaskSpec(NamedTuple):
    """A task, as far as the model must know it.

    Attributes:
        kind: ``classify`` (one class a sequence), ``match`` (one for two sequences), ``recall``
            (classes at the last steps), ``regress`` (numbers at the last steps), ``language``;
            ``tag`` (a class at every step), ``track`` (numbers at every step) or ``estimate``
            (numbers a sequence).
        outputs: classes or numbers.
        steps: the longest sequence.
        tokens: size of the vocabulary; None for frames.
        inputs: D of a frame; 1 for tokens.
        ends: for ``recall`` and ``regress``, how many last steps have a target.
        bytes: frames are bytes, 0 to 255, and are scaled to 0 to 1.
    """

    kind: str
    outputs: int
    steps: int
    tokens: int | None = None
    inputs: int = 1
    ends: int = 1
    bytes: bool = False


METRIC = {
    "classify": "error",
    "match": "error",
    "recall": "error",
    "regress": "mse",
    "language": "nll",
    "tag": "error",
    "track": "mse",
    "estimate": "mse",
}
"""The figure that chooses the best epoch, by kind; lower is better."""

EVERY_STEP = ("tag", "track")
"""Kinds with a target at every step of a sequence."""


def model_of(config: Config, spec: TaskSpec) -> Any:
    """The model that a configuration describes.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """
    for name, known in (
        ("positions", ("none", "learned", "rotary")),
        ("precision", ("float32", "bfloat16")),
    ):
        value = getattr(config, name)
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}; one of: {', '.join(known)}")
    if spec.kind == "language" and config.positions == "learned":
        raise ValueError("learned positions end where a language model goes on; take rotary")
    encoder = config.encoder or ("dense" if spec.tokens is None else "embed")
    options = Options(
        switch=_switch_of(config, spec, encoder),
        hidden=config.hidden,
        num_heads=config.heads,
        window=config.window or spec.steps,
        rotary=config.positions == "rotary",
        state=config.state,
        backend=config.backend,
        dtype=jnp.bfloat16 if config.precision == "bfloat16" else None,
    )
    backbone = Backbone(
        config.names,
        config.features,
        encoder=encoder,
        vocabulary=spec.tokens,
        max_positions=spec.steps if config.positions == "learned" else None,
        options=options,
        no_residual=config.bare,
        expand=config.expand,
        dropout=config.dropout,
        bidirectional=config.bidirectional,
        skip=config.skip,
    )
    if spec.kind in ("classify", "estimate"):
        return Classifier(backbone, spec.outputs, config.pooling)
    if spec.kind == "match":
        return PairClassifier(backbone, spec.outputs, config.pooling)
    if spec.kind == "language":
        cutoffs = tuple(int(c) for c in config.cutoffs.split(",") if c.strip())
        return LanguageModel(backbone, cutoffs, dropout=config.dropout)
    return SequenceTagger(backbone, spec.outputs)


def _switch_of(config: Config, spec: TaskSpec, encoder: str) -> switches.Switch | None:
    """The switch of the selective layers; None if there are none.

    An event switch gets weights of a size that makes its logit about 1.
    """
    if not config.selective:
        return None
    width = {"raw": spec.inputs, "onehot": 1}.get(encoder, config.features)
    init_std = 1.0 if config.read == "counts" else width**-0.5
    surrogate = switches.get_surrogate(config.gate)
    surrogate = dataclasses.replace(surrogate, gradient_fraction=config.share)
    features = {"event_features": config.read, "init_std": init_std}
    return recurrent.switch_of(config, config.horizon or spec.steps, features, surrogate)


def frames(spec: TaskSpec, x: Array) -> Array:
    """The input as the model takes it: int32 tokens, or float32 frames ``[B, T, D]``."""
    if spec.tokens is not None:
        return x.astype(jnp.int32)
    x = x.astype(jnp.float32)
    if spec.bytes:
        x = x / 255
    return x if x.ndim == 3 else x[..., None]


def run_model(
    model: Any,
    spec: TaskSpec,
    params: Params,
    batch: Mapping[str, Array],
    key: Array | None = None,
    memory: Any = None,
) -> Result:
    """Applies the model to a batch; with a key, as in training, with dropout."""
    rngs = None if key is None else {"dropout": key}
    train, x, lengths = key is not None, frames(spec, batch["x"]), batch.get("lengths")
    more: dict[str, Any] = {"train": train}
    if spec.kind == "match":
        arguments = (x, lengths, frames(spec, batch["x2"]), batch["lengths_x2"])
    elif spec.kind == "language":
        # Only the end of a stream is short, and nothing follows it. With lengths, every row would
        # have a clock of its own, and its switches a table of their own.
        arguments, more = (x, batch["y"]), {**more, "carry": memory}
    elif spec.kind in ("recall", "regress"):
        arguments, more = (x, lengths), {**more, "last": spec.ends}
    else:
        # Images have one length: their batches have no lengths, which would cost a mask a step.
        arguments = (x, lengths)
    return model.apply({"params": params}, *arguments, rngs=rngs, **more)


def first_memory(model: Any, params: Params, rows: int) -> Any:
    """The carry from which a stream of `rows` rows begins.

    All rows are always at the same step, so they share a clock, and their switches a table.
    """
    return share_clock(model.apply({"params": params}, (rows,), method="initial_carry"))


def measure(spec: TaskSpec, batch: Mapping[str, Array], result: Result) -> Metrics:
    """Totals of the task's figures and of the update rate.

    Classes: ``nll`` (nats) and ``error`` (share that is wrong); numbers: ``mse`` and ``power``
    (mean square of the target); language: ``nll`` (nats a token).
    """
    y, outputs = batch["y"], result.outputs
    valid = batch["index"] >= 0 if "index" in batch else jnp.ones(y.shape[:1], bool)
    if spec.kind in EVERY_STEP and "lengths" in batch:
        valid = valid[:, None] & (jnp.arange(y.shape[1])[None] < batch["lengths"][:, None])
    if spec.kind == "language":
        counts = jnp.arange(y.shape[1])[None] < batch["lengths"][:, None]
        totals, weight = {"nll": jnp.where(counts, -outputs, 0).sum()}, counts.sum()
    elif METRIC[spec.kind] == "mse":
        counts = _over(valid, y.shape[:-1])
        wrong, size = jnp.square(outputs - y).sum(-1), jnp.square(y).sum(-1)
        weight = counts.sum() * y.shape[-1]
        totals = {
            "mse": jnp.where(counts, wrong, 0).sum(),
            "power": jnp.where(counts, size, 0).sum(),
        }
    else:
        y = y.astype(jnp.int32)
        if spec.kind == "recall":
            y = y[:, -spec.ends :]
        counts = _over(valid, y.shape)
        nats = optax.softmax_cross_entropy_with_integer_labels(outputs, y)
        wrong, weight = outputs.argmax(-1) != y, counts.sum()
        totals = {
            "nll": jnp.where(counts, nats, 0).sum(),
            "error": (counts & wrong).sum().astype(jnp.float32),
        }
    weight = weight.astype(jnp.float32)
    measured = {name: (total, weight) for name, total in totals.items()}
    one = jnp.ones((), jnp.float32)
    rates = [trace.rate.astype(jnp.float32) for trace in result.traces] or [one]
    for i, rate in enumerate(rates):
        measured[f"update_rate_{i}"] = (rate * weight, weight)
    measured["update_rate"] = (sum(rates) / len(rates) * weight, weight)
    return measured


def _over(valid: Array, shape: tuple[int, ...]) -> Array:
    """``[B]`` or ``[B, T]``, repeated over the axes that follow in `shape`."""
    return jnp.broadcast_to(valid.reshape(valid.shape + (1,) * (len(shape) - valid.ndim)), shape)


def task_of(config: Config, model: Any, spec: TaskSpec) -> Task:
    """The functions that the trainer wants."""

    def init(key, batch):
        x, lengths = frames(spec, batch["x"]), batch.get("lengths")
        if spec.kind == "match":
            # Both sequences go through the same layers.
            inputs = (x, lengths, frames(spec, batch["x2"]), batch["lengths_x2"])
        elif spec.kind == "language":
            inputs = (x, batch["y"])
        else:
            inputs = (x, lengths)
        return model.init(key, *inputs)["params"]

    def judge(measured, result):
        total, weight = measured["mse" if METRIC[spec.kind] == "mse" else "nll"]
        penalty = balance = jnp.zeros((), jnp.float32)
        for trace in result.traces:
            penalty = penalty + switches.rate_penalty(trace.rate.astype(jnp.float32), config.rate)
            balance = balance + jnp.asarray(trace.balance, jnp.float32)
        return total / jnp.maximum(weight, 1) + config.hold * penalty + balance

    def loss(params, batch, key):
        result = run_model(model, spec, params, batch, key)
        measured = measure(spec, batch, result)
        return judge(measured, result), measured

    def evaluate(params, batch):
        return measure(spec, batch, run_model(model, spec, params, batch))

    if spec.kind != "language":
        return Task(init, loss, evaluate)

    def memory(params, batch):
        return first_memory(model, params, batch["x"].shape[0])

    def begun(params, batch, carry):
        # All rows of a stream begin together, see data.streams.
        fresh, start = batch["fresh"].all(), memory(params, batch)
        return jax.tree.map(lambda new, old: jnp.where(fresh, new, old), start, carry)

    def loss_on(params, batch, key, carry):
        carry = begun(params, batch, jax.lax.stop_gradient(carry))
        result = run_model(model, spec, params, batch, key, carry)
        measured = measure(spec, batch, result)
        return judge(measured, result), (measured, jax.lax.stop_gradient(result.carry))

    def evaluate_on(params, batch, carry):
        carry = begun(params, batch, carry)
        result = run_model(model, spec, params, batch, memory=carry)
        return measure(spec, batch, result), result.carry

    return Task(init, loss_on, evaluate_on, memory)
