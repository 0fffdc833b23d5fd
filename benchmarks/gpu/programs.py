"""The programs that are compiled for absent GPUs: layers by every back end, and preset families."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax import layers, scan, selective, switches, train
from surnn_jax.scan.cuda import library

FEATURES, BATCH, STEPS, INPUTS = 256, 64, 4096, 64
"""Sizes of the layers."""

FULL = ("lra", "pixels", "wikitext", "speech")
"""Experiments whose full presets have to fit into a device."""


@dataclasses.dataclass(frozen=True)
class Program:
    """Something to compile.

    Attributes:
        name: of the program.
        make: gives the function and its arguments, as arrays or their shapes.
        steps: T.
        donate: arguments whose memory the result takes.
    """

    name: str
    make: Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]]
    steps: int
    donate: tuple[int, ...] = ()


def _layer(cell: str, kind: str, backend: str, forward: bool):
    horizon, chosen = STEPS, None
    if kind == "event":
        chosen = switches.event(horizon, rate=0.1)
    elif kind != "none":
        chosen = switches.fourier(horizon, rate=0.1, groups=1 if kind == "group" else None)
    unit = selective(cell, chosen)

    def loss(params, x):
        return jnp.sum(jnp.square(scan.run(unit, params, x, backend=backend).outputs))

    x = jax.ShapeDtypeStruct((STEPS, BATCH, INPUTS), jnp.float32)
    params = jax.eval_shape(lambda key, x: unit.init(key, x, FEATURES), jax.random.key(0), x)
    return loss if forward else jax.value_and_grad(loss, argnums=(0, 1)), (params, x)


def _heads(backend: str):
    own = layers.Recurrent(
        "gru", FEATURES // 4, switches.fourier(STEPS, rate=0.1, groups=1), backend=backend
    )
    model = layers.MultiHeadRecurrent(own, 4)
    x = jax.ShapeDtypeStruct((BATCH, STEPS, INPUTS), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)

    def loss(params, x):
        return sum(jnp.sum(jnp.square(o)) for o in jax.tree.leaves(model.apply(params, x)))

    return jax.value_and_grad(loss), (params, x)


_LAYERS = (
    ("gru", "none", "masked"),
    ("gru", "neuron", "masked"),
    ("gru", "event", "masked"),
    ("lstm", "none", "masked"),
    ("gru", "group", "compact"),
    ("gru", "neuron", "rows"),
    ("min_gru", "neuron", "parallel"),
    ("gru", "neuron", "cuda"),
    ("gru", "event", "cuda"),
)


def layer_programs() -> list[Program]:
    """A layer's training step by every back end that differs on a GPU, and forward passes.

    Without those of the CUDA kernel if it is not built: `masked` would answer for it.
    """
    found = []
    for cell, kind, backend in _LAYERS:
        if backend == "cuda" and not library.available():
            continue
        name = f"{backend}: {cell}, {kind}"
        found.append(Program(name, functools.partial(_layer, cell, kind, backend, False), STEPS))
    found.append(
        Program(
            "masked: gru, neuron, forward",
            functools.partial(_layer, "gru", "neuron", "masked", True),
            STEPS,
        )
    )
    found.append(Program("compact: four heads", functools.partial(_heads, "compact"), STEPS))
    return found


_PIECE = 160  # frames of a piece of music

# What a configuration cannot say without the data: longest sequence, vocabulary, classes.
_FACTS = {
    "listops": (1999, 19, 10),
    "imdb_bytes": (4096, 257, 2),
    "aan": (4000, 257, 2),
    "wikitext2": (512, 33_278, 33_278),
    "wikitext103": (512, 267_735, 267_735),
}


def _spec(config):
    from experiments.tasks.sequence import data

    spec = data.dummy_spec(config)
    if config.dataset in _FACTS:
        steps, tokens, outputs = _FACTS[config.dataset]
        steps = min(steps, config.steps or steps)
        return spec._replace(steps=steps, tokens=tokens, outputs=outputs)
    return spec._replace(outputs=10) if spec.kind == "classify" else spec


def _sequence_batch(config, spec):
    """Shapes of a batch, with the columns that the data have."""
    from experiments.tasks.sequence import data
    from experiments.tasks.sequence.config import DATASETS

    if config.dataset in DATASETS["synthetic"]:
        return data.load(config, None).feeds["train"].batch(0)
    rows, steps = config.batch_size, spec.steps
    frames = () if spec.tokens is not None or spec.inputs == 1 else (spec.inputs,)
    # As data.batches gives them: whole sequences in the narrowest type.
    kind = np.uint8 if spec.bytes else np.int32
    x = np.zeros((rows, steps, *frames), kind)
    batch = {"x": x, "index": np.zeros(rows, np.int32), "y": np.zeros(rows, np.int32)}
    lengths = np.full(rows, steps, np.int32)
    if spec.kind == "language":
        return {"x": x, "y": x, "lengths": lengths, "fresh": np.ones(rows, bool)}
    if spec.kind == "match":
        return {**batch, "lengths": lengths, "x2": x, "lengths_x2": lengths}
    return batch if spec.bytes else {**batch, "lengths": lengths}


def _sequence(config):
    from experiments.tasks.sequence.task import METRIC, model_of, task_of

    spec = _spec(config)
    task = task_of(config, model_of(config, spec), spec)
    return task, _sequence_batch(config, spec), METRIC[spec.kind]


def _speech(config):
    from experiments.tasks.speech.data import Normalization
    from experiments.tasks.speech.task import model_of, task_of

    task = task_of(config, model_of(config), Normalization(0.0, 1.0))
    rows = config.batch_size
    return (
        task,
        {"x": np.zeros((rows, config.window), np.int16), "index": np.zeros(rows, np.int32)},
        "nll",
    )


def _music(config):
    from experiments.tasks.music.task import KEYS, TrainingStats, model_of, task_of

    task = task_of(config, model_of(config), TrainingStats(-3.0, 60.0))
    rows, steps = config.batch_size, _PIECE
    return (
        task,
        {"x": np.zeros((rows, steps, KEYS), np.uint8), "lengths": np.full(rows, steps, np.int32)},
        "nll",
    )


def _training(experiment: str, config: Any):
    from experiments.runner.experiment import training_settings
    from surnn_jax.train import step

    # Event switches set their thresholds by the first batch; shapes do not need it.
    make = {"speech": _speech, "music": _music}.get(experiment, _sequence)
    task, batch, metric = make(config)
    optimizer = train.make_optimizer(training_settings(config, metric, 100)[1])
    key = jax.random.key(0)
    state = jax.eval_shape(
        lambda key, batch: step.init_state(task, optimizer, key, batch), key, batch
    )

    def update(key, state, batch):
        return step.update(task, optimizer, key, state, batch)

    return update, (jax.eval_shape(lambda: key), state, batch)


def preset_program(experiment: str, name: str) -> Program:
    """The training step of a run: of a preset of one, or of one of a preset, as ``jsb/gru``."""
    preset, _, run = name.partition("/")
    config = importlib.import_module(f"experiments.{experiment}").PRESETS[preset][run]
    if experiment == "music":
        steps = _PIECE - 1
    elif experiment == "speech":
        steps = config.window // 10 - 2
    else:
        steps = _spec(config).steps
    return Program(
        f"{experiment}: {name}", functools.partial(_training, experiment, config), steps, (1,)
    )


FAMILIES = (
    ("music", "jsb/gru"),
    ("synthetic", "adding-sugru-event"),
    ("synthetic", "selective-copy-sugru-event"),
    ("pixels", "smnist-sugru"),
    ("pixels", "scifar10-gru"),
    ("lra", "image-sugru-event"),
    ("lra", "listops-transformer"),
    ("lra", "text-sulstm"),
    ("lra", "pathfinder-s4d"),
    ("lra", "retrieval-mamba2"),
    ("lra", "path-x-sugru"),
    ("wikitext", "wikitext2-hybrid"),
    ("wikitext", "wikitext103-transformer"),
    ("speech", "fsdd-sugru"),
)
"""One preset of every family, and every kind of layer."""


def full_presets(parts: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Full presets of one run, of :data:`FULL`, as pairs of an experiment and a name.

    Args:
        parts: whole names, ``lra: path-x-mamba``, or parts of them; none for all.
    """
    found = []
    for experiment in FULL:
        presets = importlib.import_module(f"experiments.{experiment}").PRESETS
        for name, runs in presets.items():
            small = name.endswith(("-cpu", "-short")) or name == "smoke"
            if list(runs) == [""] and not small:
                found.append((experiment, name))
    names = [f"{experiment}: {name}" for experiment, name in found]
    if not parts:
        return found
    chosen: list[tuple[str, str]] = []
    for part in parts:
        exact = part in names
        chosen += [
            pair
            for pair, name in zip(found, names, strict=True)
            if (name == part if exact else part in name)
        ]
    return list(dict.fromkeys(chosen))
