"""What happened inside a trained model: rates, periods, memory, depth, gradients; pictures."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data.batches import Batch
from experiments.analysis import gates, gradients, plots, style
from experiments.tasks.sequence.config import Config
from experiments.tasks.sequence.data import Prepared
from experiments.tasks.sequence.task import frames, model_of, run_model, switch_of
from surnn_jax import cells, scan
from surnn_jax.layers import mixers
from surnn_jax.train.files import write_json
from surnn_jax.typing import Params

FILE = "inside.json"
_EXAMPLES = 16
_FRACTIONS = (0.0, 0.25, 0.5, 0.75)


def inspect(config: Config, prepared: Prepared, params: Params, workdir: Path) -> dict[str, Any]:
    """Looks at the first test sequences; writes ``inside.json`` and pictures.

    Returns:
        What ``inside.json`` holds: for every selective layer the numbers of
        :func:`.inside.summary`; and ``reach``, |∂L/∂h[t]| relative to the last step at the start,
        a quarter, half and three quarters of the sequence, for models of one bare layer.
    """
    batch = examples_of(next(prepared.feeds["test"].evaluation()))
    model, problem = model_of(config, prepared.problem), prepared.problem
    found: dict[str, Any] = {}
    title = f"{config.unit}, {config.dataset}"
    tables, lengths = {}, batch.get("lengths")
    memory = None
    if problem.kind == "language":
        size = batch["x"].shape[:1]
        memory = model.apply({"params": params}, size, method="initial_carry")

    @jax.jit
    def traces(params, batch, memory):
        return run_model(model, problem, params, batch, memory=memory).traces

    result = traces(params, batch, memory)
    traced = [i for i, name in enumerate(config.names) if mixers.is_traced(name)]
    for layer, trace in zip(traced, result, strict=True):
        if trace.update_mask is None:
            continue
        table = np.asarray(trace.update_mask)
        if not np.isin(table, (0, 1)).all():
            continue  # A soft gate holds nothing.
        table, label = table == 1, f"layer {layer + 1}"
        events = events_of(config.dataset, batch)
        found[label] = gates.summary(table, lengths, events)
        if not tables:
            shown = table if table.ndim == 2 else table[0]
            if table.ndim == 3 and lengths is not None:
                shown = shown[: lengths[0]]
            style.raster(shown, workdir / "switches.png", title=f"{title}, {label}")
        tables[label] = table
    if tables:
        draw(tables, lengths, workdir, title)
    reached = reach_of(config, prepared, params, batch)
    if reached is not None:
        steps = batch["x"].shape[1]
        plots.gradient_reach({config.unit: reached}, workdir / "reach.png", title, steps=steps)
        at = [int(np.abs(reached.times - share * steps).argmin()) for share in _FRACTIONS]
        found["reach"] = {
            str(int(reached.times[i])): float(reached.relative[i])
            for i in at
            if np.isfinite(reached.relative[i])
        }
    if found:
        write_json(workdir / FILE, found)
    return found


def draw(
    tables: dict[str, np.ndarray], lengths: np.ndarray | None, workdir: Path, title: str
) -> None:
    """Draws ``rates.png`` and, where there is something to see, ``periods.png``, ``memory.png``.

    Short sequences may have no neuron that opens twice, or none that opens at all: a trained run
    does not end in an error for want of a picture.

    Args:
        tables: label -> booleans ``[T, H]`` or ``[B, T, H]``, which neurons were updated.
        lengths: valid steps of each example ``[B]``, or None for all.
        workdir: where the pictures go.
        title: what was trained.
    """
    rates = {label: gates.update_rate(table, lengths) for label, table in tables.items()}
    plots.rate_over_time(rates, workdir / "rates.png", title)
    periods = {label: gates.periods(table, lengths).between for label, table in tables.items()}
    if not all(np.isnan(own).all() for own in periods.values()):
        plots.periods(periods, workdir / "periods.png", f"{title}: between openings")
    memories = {label: gates.memory(table, lengths) for label, table in tables.items()}
    if written := {label: own for label, own in memories.items() if own.longest}:
        plots.memory_survival(written, workdir / "memory.png", title)


def examples_of(batch: Batch) -> Batch:
    """The first examples of a batch, at most 16, without the empty rows that fill it up."""
    there = np.ones(len(batch["x"]), bool)
    if "index" in batch:
        there = batch["index"] >= 0
    elif "lengths" in batch:
        there = batch["lengths"] > 0
    return {name: column[there][:_EXAMPLES] for name, column in batch.items()}


def events_of(dataset: str, batch: dict[str, np.ndarray]) -> np.ndarray | None:
    """Which steps ``[B, T]`` tell something, for the tasks where that is known."""
    x = batch["x"]
    if dataset == "adding":
        return x[..., 1] > 0
    if dataset in ("selective_copy", "copy"):
        return (x > 0) & (x < x.max())
    return None


def reach_of(
    config: Config, prepared: Prepared, params: Params, batch: dict[str, np.ndarray]
) -> gradients.Reach | None:
    """The gradient of the loss by the state; None unless the model is one bare recurrent layer."""
    problem, name = prepared.problem, config.names[0]
    cell = name.removeprefix("su") if config.selective else name
    known = cell in cells.CELLS and problem.kind in ("classify", "recall", "regress")
    if len(config.names) > 1 or not config.bare or not known or config.bidirectional:
        return None
    unit = scan.selective(cell, switch_of(config, problem) if config.selective else None)
    x = frames(problem, jnp.asarray(batch["x"]))
    if problem.tokens is not None:
        x = jax.nn.one_hot(x, problem.tokens)
    lengths = batch.get("lengths")
    y = jnp.asarray(batch["y"])
    head = params["head"]

    def loss(outputs, carry):
        del carry
        h = jnp.moveaxis(outputs, 0, 1)
        if problem.kind == "classify":
            count = jnp.full(h.shape[:1], h.shape[1]) if lengths is None else jnp.asarray(lengths)
            if config.pooling == "mean":
                h = h.sum(1) / count[:, None].astype(h.dtype)
            else:
                h = jnp.take_along_axis(h, (count - 1)[:, None, None], axis=1)[:, 0]
        else:
            h = h[:, -problem.ends :]
        answer = jnp.matmul(h, head["kernel"])
        answer = answer + head["bias"].reshape((1,) * (answer.ndim - 1) + (-1,))
        if problem.kind == "regress":
            return jnp.square(answer - y[:, -problem.ends :]).mean()
        labels = y.astype(jnp.int32)
        labels = labels[:, -problem.ends :] if problem.kind == "recall" else labels
        return optax.softmax_cross_entropy_with_integer_labels(answer, labels).mean()

    tree = params["backbone"]["blocks_0"]["mixer"]
    return gradients.gradient_reach(unit, tree, jnp.moveaxis(x, 0, 1), loss, lengths=lengths)
