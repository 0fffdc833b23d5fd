"""The models, losses and scores of lra, pixels, synthetic and wikitext, as pure functions."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

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
from surnn_jax.train import Task
from surnn_jax.train.task import Metrics
from surnn_jax.typing import Array, Params


class TaskSpec(NamedTuple):
    """What a model must know of its data.

    Attributes:
        kind: ``classify`` (one class a sequence), ``match`` (one for two sequences), ``recall``
            (classes at the last steps), ``regress`` (numbers at the last steps) or ``language``.
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
}
"""The figure that chooses the best epoch, by kind; lower is better."""


def encoder_of(config: Config, problem: TaskSpec) -> str:
    """The encoder that a configuration asks for or, where it does not, the usual one."""
    if config.encoder:
        return config.encoder
    return "dense" if problem.tokens is None else "embed"


def switch_of(config: Config, problem: TaskSpec) -> switches.Switch | None:
    """The switch that a configuration describes; None where no layer has one.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """
    if not config.selective:
        return None
    if config.switch not in switches.SWITCHES:
        there = ", ".join(switches.SWITCHES)
        raise ValueError(f"unknown switch {config.switch!r}; one of: {there}")
    own = {
        "every": {"n": max(1, round(1 / config.rate))},
        "clockwork": {},
        "phased": {"frozen": config.frozen},
        "zoneout": {"hold": 1 - config.rate},
        "threshold": {"rate": config.rate, "groups": config.groups, **_reading(config, problem)},
    }
    options = own.get(config.switch)
    if options is None:
        gate = dataclasses.replace(switches.get_gate(config.gate), gradient_fraction=config.share)
        options = {
            "harmonics": config.harmonics,
            "rate": config.rate,
            "shortest": config.shortest,
            "groups": config.groups,
            "gate": gate,
            "frozen": config.frozen,
        }
        if config.switch == "event":
            options |= _reading(config, problem)
    return switches.SWITCHES[config.switch](config.horizon or problem.steps, **options)


def _reading(config: Config, problem: TaskSpec) -> dict[str, Any]:
    """What a switch reads of its input, with weights that make its logit about 1 in size."""
    width = {"raw": problem.inputs, "onehot": 1}.get(encoder_of(config, problem), config.features)
    one = 1.0 if config.read == "counts" else width**-0.5
    return {"read": config.read, "spread": config.spread or one}


def model_of(config: Config, problem: TaskSpec) -> Any:
    """The model that a configuration describes.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """
    for name, there in (
        ("positions", ("none", "learned", "rotary")),
        ("precision", ("float32", "bfloat16")),
    ):
        if getattr(config, name) not in there:
            value = getattr(config, name)
            raise ValueError(f"unknown {name} {value!r}; one of: {', '.join(there)}")
    if problem.kind == "language" and config.positions == "learned":
        raise ValueError("learned positions end where a language model goes on; take rotary")
    options = Options(
        switch=switch_of(config, problem),
        hidden=config.hidden,
        heads=config.heads,
        window=config.window or problem.steps,
        rotary=config.positions == "rotary",
        state=config.state,
        backend=config.backend,
        dtype=jnp.bfloat16 if config.precision == "bfloat16" else None,
    )
    backbone = Backbone(
        config.names,
        config.features,
        encoder=encoder_of(config, problem),
        vocabulary=problem.tokens,
        positions=problem.steps if config.positions == "learned" else None,
        options=options,
        bare=config.bare,
        expand=config.expand,
        dropout=config.dropout,
        bidirectional=config.bidirectional,
    )
    if problem.kind == "classify":
        return Classifier(backbone, problem.outputs, config.pooling)
    if problem.kind == "match":
        return PairClassifier(backbone, problem.outputs, config.pooling)
    if problem.kind == "language":
        cutoffs = tuple(int(c) for c in config.cutoffs.split(",") if c.strip())
        return LanguageModel(backbone, cutoffs, config.tied, config.dropout)
    return SequenceTagger(backbone, problem.outputs)


def frames(problem: TaskSpec, x: Array) -> Array:
    """The input as the model takes it: int32 tokens, or float32 frames ``[B, T, D]``."""
    if problem.tokens is not None:
        return x.astype(jnp.int32)
    x = x.astype(jnp.float32)
    if problem.bytes:
        x = x / 255
    return x if x.ndim == 3 else x[..., None]


def run_model(
    model: Any,
    problem: TaskSpec,
    params: Params,
    batch: Mapping[str, Array],
    key: Array | None = None,
    memory: Any = None,
) -> Result:
    """Runs the model on a batch; with a key it drops, as in training."""
    rngs = None if key is None else {"dropout": key}
    train, x, lengths = key is not None, frames(problem, batch["x"]), batch.get("lengths")
    more: dict[str, Any] = {"train": train}
    if problem.kind == "match":
        arguments = (x, lengths, frames(problem, batch["x2"]), batch["lengths_x2"])
    elif problem.kind == "language":
        # Of a stream only its end is short, which nothing follows. With lengths, every row would
        # have a clock of its own, and its switches a table of their own.
        arguments, more = (x, batch["y"]), {**more, "carry": memory}
    elif problem.kind in ("recall", "regress"):
        arguments, more = (x, lengths), {**more, "last": problem.ends}
    else:
        # Images have one length, and lengths that say so cost a mask at every step.
        arguments = (x, lengths)
    return model.apply({"params": params}, *arguments, rngs=rngs, **more)


def measure(problem: TaskSpec, batch: Mapping[str, Array], result: Result) -> Metrics:
    """Totals of the task's figures and of the update rate.

    Classes: ``nll`` (nats) and ``error`` (share that is wrong); numbers: ``mse`` and ``power``
    (mean square of the target); language: ``nll`` (nats a token).
    """
    y, outputs = batch["y"], result.outputs
    there = batch["index"] >= 0 if "index" in batch else jnp.ones(y.shape[:1], bool)
    if problem.kind == "language":
        inside = jnp.arange(y.shape[1])[None] < batch["lengths"][:, None]
        totals, weight = {"nll": jnp.where(inside, -outputs, 0).sum()}, inside.sum()
    elif problem.kind == "regress":
        counts = jnp.broadcast_to(there[:, None], y.shape[:2])
        wrong, size = jnp.square(outputs - y).sum(-1), jnp.square(y).sum(-1)
        weight = counts.sum() * y.shape[-1]
        totals = {
            "mse": jnp.where(counts, wrong, 0).sum(),
            "power": jnp.where(counts, size, 0).sum(),
        }
    else:
        y = y.astype(jnp.int32)
        if problem.kind == "recall":
            y = y[:, -problem.ends :]
        counts = jnp.broadcast_to(there.reshape(there.shape + (1,) * (y.ndim - 1)), y.shape)
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


def task_of(config: Config, problem: TaskSpec) -> Task:
    """The functions that the trainer wants."""
    model = model_of(config, problem)

    def init(key, batch):
        x, lengths = frames(problem, batch["x"]), batch.get("lengths")
        if problem.kind == "match":
            # The second sequence is only shown its shape: the towers are one.
            inputs = (x, lengths, frames(problem, batch["x2"]), batch["lengths_x2"])
        elif problem.kind == "language":
            inputs = (x, batch["y"])
        else:
            inputs = (x, lengths)
        return model.init(key, *inputs)["params"]

    def judge(measured, result):
        total, weight = measured["mse" if problem.kind == "regress" else "nll"]
        penalty = jnp.zeros((), jnp.float32)
        for trace in result.traces:
            penalty = penalty + switches.rate_penalty(trace.rate.astype(jnp.float32), config.rate)
        return total / jnp.maximum(weight, 1) + config.hold * penalty

    def loss(params, batch, key):
        result = run_model(model, problem, params, batch, key)
        measured = measure(problem, batch, result)
        return judge(measured, result), measured

    def evaluate(params, batch):
        return measure(problem, batch, run_model(model, problem, params, batch))

    if problem.kind != "language":
        return Task(init, loss, evaluate)

    def memory(params, batch):
        size = batch["x"].shape[:1]
        return model.apply({"params": params}, size, method="initial_carry")

    def begun(params, batch, carry):
        # All rows of a stream begin together, see data.streams.
        fresh, start = batch["fresh"].all(), memory(params, batch)
        return jax.tree.map(lambda new, old: jnp.where(fresh, new, old), start, carry)

    def loss_on(params, batch, key, carry):
        carry = begun(params, batch, jax.lax.stop_gradient(carry))
        result = run_model(model, problem, params, batch, key, carry)
        measured = measure(problem, batch, result)
        return judge(measured, result), (measured, jax.lax.stop_gradient(result.carry))

    def evaluate_on(params, batch, carry):
        carry = begun(params, batch, carry)
        result = run_model(model, problem, params, batch, memory=carry)
        return measure(problem, batch, result), result.carry

    return Task(init, loss_on, evaluate_on, memory)
