"""Presets of the sequence experiments: every model of the suRNN paper's tables on every task."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.tasks.sequence.config import Config

Units = Mapping[str, Mapping[str, Any]]
"""Name of a model -> its changes to the configuration of a task."""

SELECTIVE: Units = {
    "sugru": {"switch": "fourier"},
    "sugru-frozen": {"switch": "fourier", "frozen": True},
    "sugru-soft": {"switch": "fourier", "gate": "soft"},
    "sugru-event": {"switch": "event"},
    "sugru-event-frozen": {"switch": "event", "frozen": True},
    "sugru-event-gradient": {"switch": "event"},
    "sugru-threshold": {"switch": "threshold"},
    "sugru-every3": {"switch": "every", "rate": 1 / 3},
    "sulstm": {"layers": "sulstm", "switch": "fourier"},
    "sutanh": {"layers": "sutanh", "switch": "fourier"},
    "sugru-block": {"switch": "fourier", "skip": "block", "bare": False, "encoder": ""},
    "sugru-event-block": {"switch": "event", "skip": "block", "bare": False, "encoder": ""},
}
"""suRNNs: the paper's, the cells of its ablation, the event switch with its controls (not trained,
and trained by the gradient alone), and blocks that rest as a whole."""

NEIGHBOURS: Units = {
    "gru": {"layers": "gru"},
    "gru-carry": {"layers": "gru_carry"},
    "lstm": {"layers": "lstm"},
    "tanh": {"layers": "tanh"},
    "clockwork": {"layers": "suclockwork", "switch": "clockwork"},
    "phased-lstm": {"layers": "sulstm_peephole", "switch": "phased"},
    "zoneout": {"layers": "sugru", "switch": "zoneout", "rate": 0.9},
    "skip-gru": {"layers": "skip_gru"},
    "sa-gru": {"layers": "sa_gru"},
    "min-gru": {"layers": "min_gru"},
    "min-lstm": {"layers": "min_lstm"},
}
"""Units that one step at a time: dense, and those that skip in another way."""

OTHERS: Units = {
    "transformer": {"layers": "attention", "positions": "learned"},
    "transformer-rotary": {"layers": "attention", "positions": "rotary"},
    "s4d": {"layers": "s4d"},
    "lru": {"layers": "lru"},
    "mamba": {"layers": "mamba"},
    "mamba2": {"layers": "mamba2"},
    "hybrid": {"layers": "sugru,s4d", "switch": "fourier"},
}
"""Attention and state spaces; and suGRU mixed with a state space."""

HELD = {"hold": 1.0, "switch_scale": 3.0}
"""Settings of an event switch that the gradient alone trains, beside its rate: the first recipe."""

BALANCED: Units = {
    "target": {"share": 1.0, "balance": "target", "hold": 0.0},
    "floor": {"share": 1.0, "balance": "floor"},
}
"""What the recipe of ``sugru-event`` changes in it: `target`, or `floor` for tasks where few steps
matter and neurons want rates of their own. `experiments/README.md` has the comparison."""

EVERYTHING: Units = {**SELECTIVE, **NEIGHBOURS, **OTHERS}


def units(
    task: Config,
    depth: int = 1,
    *,
    dense: Mapping[str, Any] | None = None,
    other: Mapping[str, Any] | None = None,
    event: Mapping[str, Any] | None = None,
    balance: str = "target",
) -> dict[str, Config]:
    """A task's configuration for every model.

    Args:
        task: the selective units' own.
        depth: layers; a mixed stack repeats its pattern that often, halved.
        dense: changes for the neighbours beside their layer, such as the learning rate.
        other: changes for attention and state spaces.
        event: changes for the event switch.
        balance: the recipe of ``sugru-event``, see :data:`BALANCED`.
    """
    runs = {}
    for group, own in ((SELECTIVE, {}), (NEIGHBOURS, dense or {}), (OTHERS, other or {})):
        for name, changes in group.items():
            more = {**own, **changes}
            more = _with_events(name, more, event, balance)
            pattern = str(more.get("layers", task.layers)).split(",")
            times = max(1, depth // len(pattern))
            more["layers"] = ",".join(pattern * times)
            if not more["layers"].startswith(("su", "attention")) and task.bare and group is OTHERS:
                more |= {"bare": False, "encoder": ""}
            runs[name] = dataclasses.replace(task, **more)
    for name in ("transformer", "transformer-rotary", "hybrid"):
        runs[name] = dataclasses.replace(runs[name], bare=False, encoder="")
    return runs


def _with_events(
    name: str, changes: Mapping[str, Any], event: Mapping[str, Any] | None, balance: str
) -> dict[str, Any]:
    """A model's changes, with those that its event switch needs."""
    if changes.get("switch") not in ("event", "threshold"):
        return dict(changes)
    found = {**HELD, **(event or {}), **changes}
    if name in ("sugru-event", "sugru-event-block"):
        found |= BALANCED[balance]
    if name == "sugru-threshold":  # nothing in it is learned
        found |= {"hold": 0.0}
    return found


def presets(tasks: Mapping[str, Mapping[str, Config]]) -> dict[str, dict[str, Config]]:
    """Preset -> runs: ``TASK`` runs every model, ``TASK-MODEL`` one, each also with ``-cpu``."""
    found: dict[str, dict[str, Config]] = {}
    for task, runs in tasks.items():
        found[task] = dict(runs)
        base, dash, size = task.rpartition("-")
        base, end = (base, dash + size) if size in ("cpu", "short") else (task, "")
        for name, config in runs.items():
            found[f"{base}-{name}{end}"] = {"": config}
    return found


SHORT: Units = {
    "sugru": {"switch": "fourier"},
    "sugru-frozen": {"switch": "fourier", "frozen": True},
    "sugru-event": {"switch": "event"},
    "sugru-event-frozen": {"switch": "event", "frozen": True},
    "sugru-event-gradient": {"switch": "event"},
    "gru": {"layers": "gru"},
    "transformer": {"layers": "attention", "positions": "rotary"},
    "sugru-soft": {"switch": "fourier", "gate": "soft"},
    "sugru-threshold": {"switch": "threshold"},
    "sugru-every3": {"switch": "every", "rate": 1 / 3},
    "sulstm": {"layers": "sulstm", "switch": "fourier"},
    "sutanh": {"layers": "sutanh", "switch": "fourier"},
    "hybrid": {"layers": "sugru,s4d", "switch": "fourier"},
    "s4d": {"layers": "s4d"},
    "sugru-block": SELECTIVE["sugru-block"],
    "sugru-event-block": SELECTIVE["sugru-event-block"],
}
"""The models of the short presets: see :mod:`experiments.tuning.matrix`."""

TWO_BLOCKS: Units = {
    "sugru": {"expand": 1.15},
    "sugru-frozen": {"expand": 1.15},
    "sugru-soft": {"expand": 1.15},
    "sugru-every3": {"expand": 1.2},
    "gru": {"expand": 1.2},
    "transformer": {"expand": 1.8},
    "sulstm": {"hidden": 52},
    "sutanh": {"expand": 2.4},
    "hybrid": {"expand": 1.5},
    "s4d": {"expand": 1.8},
    "sugru-block": {"expand": 1.2},
    "sugru-event-block": {"expand": 1.2},
}
"""Widths of the feed-forward layers that give two blocks of 64 like numbers of parameters."""


def short(
    task: Config,
    depth: int,
    *,
    sizes: Units,
    event: Mapping[str, Any] | None = None,
    balance: str = "target",
) -> dict[str, Config]:
    """A task's configuration for every model of :data:`SHORT`, for two cores.

    All have the same data, epochs, batches, schedule and clipping; learning rate and weight decay
    are drawn for each alike (:mod:`experiments.tuning.effort`). Parameter counts lie within 10 %.

    Args:
        task: what all have in common.
        depth: layers; a mixed stack repeats its pattern that often, halved.
        sizes: what a model changes to have as many parameters as the others.
        event: what the event switch changes: its rate, and the weight of the rate penalty.
        balance: the recipe of ``sugru-event``, see :data:`BALANCED`.
    """
    runs = {}
    for name, changes in SHORT.items():
        more = {**changes, **sizes.get(name, {})}
        more = _with_events(name, more, event, balance)
        pattern = str(more.get("layers", task.layers)).split(",")
        more["layers"] = ",".join(pattern * max(1, depth // len(pattern)))
        runs[name] = dataclasses.replace(task, **more)
    return runs
