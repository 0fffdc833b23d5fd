"""What a suite is made of: which model is trained on which task, in order of worth."""

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """One line of a table: a model on a task.

    Attributes:
        program: the script, such as ``lra``.
        task: as its presets name it, such as ``text``.
        model: such as ``sugru-event``.
    """

    program: str
    task: str
    model: str

    @property
    def name(self) -> str:
        """Such as ``text/sugru-event``: also the folder."""
        return f"{self.task}/{self.model}"

    def preset(self, device: str) -> str:
        """The preset of the program: the short form of the task for CPUs, the full one for GPUs."""
        return f"{self.task}-{self.model}" + ("-short" if device == "cpu" else "")

    def config(self, device: str) -> Any:
        """The configuration of the whole budget."""
        presets = importlib.import_module(f"experiments.{self.program}").PRESETS
        return presets[self.preset(device)][""]


TASKS = {
    "listops": "lra",
    "text": "lra",
    "image": "lra",
    "pathfinder": "lra",
    "smnist": "pixels",
    "selective-copy": "synthetic",
    "adding": "synthetic",
    "wikitext2": "wikitext",
    "retrieval": "lra",
    "psmnist": "pixels",
    "scifar10": "pixels",
    "mackey-glass": "synthetic",
}
"""Task -> script."""

_MAIN = tuple(list(TASKS)[:8])
_ABLATED = ("text", "image", "smnist")
_CORE = ("sugru", "sugru-frozen", "gru", "transformer")
_EVENTS = ("sugru-event", "sugru-event-frozen")
_ABLATIONS = ("sugru-soft", "sugru-every3", "sulstm", "sutanh", "hybrid")

ROWS: Sequence[tuple[Sequence[str], Sequence[str]]] = (
    (_MAIN, _CORE),
    (_MAIN, _EVENTS),
    (_ABLATED, _ABLATIONS),
    (_ABLATED, ("sugru-threshold",)),
    (_MAIN, ("s4d",)),
    (("text", "image", "selective-copy", "smnist"), ("sugru-block", "sugru-event-block")),
    (("retrieval", "psmnist", "scifar10", "mackey-glass"), (*_CORE, *_EVENTS, "s4d")),
)
"""(tasks, models), the most wanted first."""


def surnn() -> list[Entry]:
    """The entries of the suRNN paper's tables, each once, in order of worth."""
    found = [
        Entry(TASKS[task], task, model)
        for tasks, models in ROWS
        for task in tasks
        for model in models
    ]
    return list(dict.fromkeys(found))


def select(entries: Sequence[Entry], tasks: Sequence[str], models: Sequence[str]) -> list[Entry]:
    """The entries of some tasks and models; an empty list stands for all.

    Raises:
        ValueError: a name that no entry has.
    """
    for what, wanted, there in (
        ("task", tasks, {entry.task for entry in entries}),
        ("model", models, {entry.model for entry in entries}),
    ):
        if unknown := sorted(set(wanted) - there):
            raise ValueError(f"no {what} {unknown[0]!r}; there are: {', '.join(sorted(there))}")
    return [
        entry
        for entry in entries
        if (not tasks or entry.task in tasks) and (not models or entry.model in models)
    ]
