"""Pictures and numbers of a trained sequence model: rates, periods, memory, depth, gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data.batches import Batch
from data.sets.listops import VOCABULARY
from experiments.analysis import gates, gradients, plots
from experiments.tasks.sequence.config import Config
from experiments.tasks.sequence.task import TaskSpec, first_memory, frames, run_model
from surnn_jax import cells, scan
from surnn_jax.layers import mixers
from surnn_jax.train.files import write_json
from surnn_jax.typing import Params

FILE = "inside.json"
_EXAMPLES = 16
_WIDEST = 4
"""The most numbers a frame that are drawn above the raster."""
_FRACTIONS = (0.0, 0.25, 0.5, 0.75)


def inspect(
    config: Config, model: Any, spec: TaskSpec, params: Params, batch: Batch, folder: Path
) -> dict[str, Any]:
    """Looks at how a model reads some sequences; writes ``inside.json`` and pictures.

    Args:
        config: the run's.
        model: the model that it describes.
        spec: the task.
        params: parameters of the model.
        batch: sequences; the first 16 are read.
        folder: where the files go.

    Returns:
        The content of ``inside.json``: for every selective layer the numbers of
        :func:`.gates.summary`; and ``reach``, |∂L/∂h[t]| relative to the last step at the start,
        a quarter, half and three quarters of the sequence, for models of one bare layer.
    """
    batch = examples_of(batch)
    found: dict[str, Any] = {}
    title = f"{config.unit}, {config.dataset}"
    lengths = batch.get("lengths")
    tables = tables_of(config, model, spec, params, batch)
    for label, table in tables.items():
        events = events_of(config.dataset, batch)
        found[label] = gates.summary(table, lengths, events)
    if tables:
        label, table = next(iter(tables.items()))
        shown = table if table.ndim == 2 else table[0]
        if table.ndim == 3 and lengths is not None:
            shown = shown[: lengths[0]]
        plots.raster(
            shown,
            folder / "switches.png",
            title=f"{title}, {label}",
            above=strip_of(spec, config.dataset, batch["x"][0][: len(shown)]),
            above_height=0.25,
        )
        draw(tables, lengths, folder, title)
    reached = reach_of(config, model, spec, params, batch)
    if reached is not None:
        steps = batch["x"].shape[1]
        plots.gradient_reach({config.unit: reached}, folder / "reach.png", title, steps=steps)
        at = [int(np.abs(reached.times - share * steps).argmin()) for share in _FRACTIONS]
        found["reach"] = {
            str(int(reached.times[i])): float(reached.relative[i])
            for i in at
            if np.isfinite(reached.relative[i])
        }
    if found:
        write_json(folder / FILE, found)
    return found


def tables_of(
    config: Config, model: Any, spec: TaskSpec, params: Params, batch: Batch
) -> dict[str, np.ndarray]:
    """``layer N`` -> booleans ``[T, H]`` or ``[B, T, H]``: when its neurons update.

    Layers without an update mask, and those with soft gates, which hold nothing, are left out.
    """
    memory = None
    if spec.kind == "language":
        memory = first_memory(model, params, batch["x"].shape[0])

    @jax.jit
    def traces(params, batch, memory):
        return run_model(model, spec, params, batch, memory=memory).traces

    traced = [i for i, name in enumerate(config.names) if mixers.is_traced(name)]
    found = {}
    for layer, trace in zip(traced, traces(params, batch, memory), strict=True):
        if trace.update_mask is None:
            continue
        table = np.asarray(trace.update_mask)
        if np.isin(table, (0, 1)).all():
            found[f"layer {layer + 1}"] = table == 1
    return found


def agreements(
    config: Config, model: Any, spec: TaskSpec, params: Params, others: Params, batch: Batch
) -> dict[str, float]:
    """``layer N`` -> :func:`.gates.agreement` of two sets of parameters, of two seeds say."""
    batch = examples_of(batch)
    one, two = (tables_of(config, model, spec, own, batch) for own in (params, others))
    return {
        label: gates.agreement(table, two[label], batch.get("lengths"))
        for label, table in one.items()
    }


def draw(
    tables: dict[str, np.ndarray], lengths: np.ndarray | None, folder: Path, title: str
) -> None:
    """Draws ``rates.png``, and ``periods.png`` and ``memory.png`` if there is something to see.

    In short sequences no neuron may open twice, or at all; that is no error.

    Args:
        tables: label -> booleans ``[T, H]`` or ``[B, T, H]``, which neurons were updated.
        lengths: valid steps of each example ``[B]``, or None for all.
        folder: where the pictures go.
        title: of the pictures.
    """
    rates = {label: gates.update_rate(table, lengths) for label, table in tables.items()}
    plots.rate_over_time(rates, folder / "rates.png", title)
    periods = {label: gates.periods(table, lengths).between for label, table in tables.items()}
    if not all(np.isnan(own).all() for own in periods.values()):
        plots.periods(periods, folder / "periods.png", f"{title}: between openings")
    memories = {label: gates.memory(table, lengths) for label, table in tables.items()}
    if written := {label: own for label, own in memories.items() if own.longest}:
        plots.memory_survival(written, folder / "memory.png", title)


def examples_of(batch: Batch) -> Batch:
    """The first examples of a batch, at most 16, without the empty rows that fill it up."""
    valid = np.ones(len(batch["x"]), bool)
    if "index" in batch:
        valid = batch["index"] >= 0
    elif "lengths" in batch:
        valid = batch["lengths"] > 0
    return {name: column[valid][:_EXAMPLES] for name, column in batch.items()}


def events_of(dataset: str, batch: dict[str, np.ndarray]) -> np.ndarray | None:
    """Steps at which something happens, booleans ``[B, T]``; None for tasks where none are known.

    Marked numbers of adding, symbols to be given back of the copying tasks; spaces of Text,
    operators and brackets of ListOps.
    """
    x = batch["x"]
    if dataset == "imdb_bytes":
        return x == ord(" ") + 1  # 0 is padding.
    if dataset in ("listops", "listops_short"):
        return x >= VOCABULARY.index("[MIN")
    if dataset == "adding":
        return x[..., 1] > 0
    if dataset in ("selective_copy", "copy"):
        return (x > 0) & (x < x.max())
    return None


def strip_of(spec: TaskSpec, dataset: str, x: np.ndarray) -> Callable[[Any], None] | None:
    """Draws the input ``[T]`` or ``[T, D]`` of one example; None if there is too much to see."""
    if spec.tokens is None:
        return plots.input_strip(x, None) if x.ndim == 1 or x.shape[1] <= _WIDEST else None
    marked = dataset in ("selective_copy", "copy")
    return plots.input_strip(x, spec.tokens) if marked else None


def reach_of(
    config: Config, model: Any, spec: TaskSpec, params: Params, batch: dict[str, np.ndarray]
) -> gradients.Reach | None:
    """The gradient of the loss by the state; None unless the model is one bare recurrent layer.

    The layer must read the frames or tokens themselves: encoder ``raw`` or ``onehot``.
    """
    name = config.names[0]
    cell = name.removeprefix("su") if config.selective else name
    known = cell in cells.CELLS and spec.kind in ("classify", "recall", "regress")
    known = known and config.encoder in ("raw", "onehot")
    if len(config.names) > 1 or not config.bare or not known or config.bidirectional:
        return None
    unit = scan.selective(cell, model.backbone.options.switch)
    x = frames(spec, jnp.asarray(batch["x"]))
    if spec.tokens is not None:
        x = jax.nn.one_hot(x, spec.tokens)
    lengths = batch.get("lengths")
    y = jnp.asarray(batch["y"])
    head = params["head"]

    def loss(outputs, carry):
        del carry
        h = jnp.moveaxis(outputs, 0, 1)
        if spec.kind == "classify":
            count = jnp.full(h.shape[:1], h.shape[1]) if lengths is None else jnp.asarray(lengths)
            if config.pooling == "mean":
                h = h.sum(1) / count[:, None].astype(h.dtype)
            else:
                h = jnp.take_along_axis(h, (count - 1)[:, None, None], axis=1)[:, 0]
        else:
            h = h[:, -spec.ends :]
        answer = jnp.matmul(h, head["kernel"])
        answer = answer + head["bias"].reshape((1,) * (answer.ndim - 1) + (-1,))
        if spec.kind == "regress":
            return jnp.square(answer - y[:, -spec.ends :]).mean()
        labels = y.astype(jnp.int32)
        labels = labels[:, -spec.ends :] if spec.kind == "recall" else labels
        return optax.softmax_cross_entropy_with_integer_labels(answer, labels).mean()

    tree = params["backbone"]["blocks_0"]["mixer"]
    return gradients.gradient_reach(unit, tree, jnp.moveaxis(x, 0, 1), loss, lengths=lengths)
