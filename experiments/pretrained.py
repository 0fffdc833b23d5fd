"""Trained models that are committed with their records: a list, a card each, and how to load one.

    python -m experiments.pretrained                                 # names and figures
    python -m experiments.pretrained --name=adding-sugru-event       # the card

In a program of your own, run from the clone::

    from experiments.pretrained import load_pretrained
    model, params = load_pretrained("adding-sugru-event")

Each is a ``params.npz`` beside the ``result.json`` of its run; `experiments.evaluate` scores it
again. The names are those of the folders in `experiments/results`, without the seed. `make report`
writes the table in the documentation anew, by ``--page=FILE``.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from data import cli
from experiments.runner import records
from surnn_jax.names import lookup

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]

ELSEWHERE = {"selective_copy-sugru-event": ROOT / "docs" / "pictures" / "selective_copy"}
"""Models that are not among the results."""

UNDATED = "by 2026-11-28"
"""When the models were trained whose records have no date."""

INPUTS = {
    "music": "piano rolls, 0 or 1, [B, T, 88]; the answer of a step is 88 logits of the next frame",
    "speech": "20 samples of 16 bits a step, 10 on from step to step, less the mean and over the "
    "deviation of the training recordings, [B, T, 20]",
    "adding": "float32 [B, T, 2]: a value in [0, 1] and a mark, 1 at two steps; the answer is the "
    "sum of the two, at the last step",
    "selective_copy": "int32 tokens [B, T]: 0 is noise, the largest asks for an answer, and those "
    "between are to be given back",
}
"""Experiment or data set -> what a model reads."""

HOLE = re.compile(r"(?<=<!-- table -->\n).*(?=\n<!-- end -->)", re.S)
"""The part of a page that is the table."""

_PAGE = cli.define_path("page", None, "A page whose table is written anew.")
_NAME = flags.DEFINE_string("name", None, "The model whose card is printed; without it, a list.")


class Card(NamedTuple):
    """What is to be known of a trained model.

    Attributes:
        name: by which :func:`load_pretrained` finds it.
        data: the data set that it was trained on, and what was read of it.
        figure: its unit and value on the test split.
        update_rate: share of neurons that update in a step of the test split.
        parameters: how many numbers it has.
        inputs: what it reads.
        command: by which it was trained.
        licence: of the data; the parameters have that of this repository.
        date: the day on which the training ended.
        folder: with ``params.npz`` and ``result.json``.
    """

    name: str
    data: str
    figure: tuple[str, float]
    update_rate: float
    parameters: int
    inputs: str
    command: str
    licence: str
    date: str
    folder: Path


def folders() -> dict[str, Path]:
    """Every trained model that is committed: name -> folder."""
    found = dict(ELSEWHERE)
    for path in sorted(RESULTS.rglob(records.PARAMETERS)):
        *_, last = parts = path.parent.relative_to(RESULTS).parts
        if last.startswith("seed-"):  # SUITE/short/TASK/MODEL/seed-0
            _, budget, task, model, _ = parts
            found[f"{task}-{model}-{budget}"] = path.parent
        else:
            found[last.removesuffix("-0")] = path.parent
    return dict(sorted(found.items()))


def card(name: str) -> Card:
    """The card of a trained model.

    Raises:
        ValueError: there is no model of this name; the nearest is named.
    """
    folder = lookup("pretrained model", name, folders())
    record = records.read(folder / records.FILE)
    return Card(
        name=name,
        data=", ".join([record.dataset, *(record.data or {}).values()]),
        figure=records.headline(record),
        update_rate=record.update_rate,
        parameters=record.parameters,
        inputs=INPUTS.get(record.dataset) or INPUTS.get(record.experiment) or "see the command",
        command=record.command,
        licence=_licence(record.dataset),
        date=record.date or UNDATED,
        folder=folder,
    )


def load_pretrained(name: str, data_dir: str | None = None) -> tuple[Any, dict[str, Any]]:
    """A trained model.

    Args:
        name: see :func:`folders`.
        data_dir: folder of the originals. They are needed only if the size of the model is that of
            its data set, as that of a classifier is.

    Returns:
        The linen module and its variables: ``model.apply(params, x)``.

    Raises:
        ValueError: there is no model of this name (the nearest is named), or a file is damaged.
        OSError: data that are needed are missing; the message names the command that prepares them.
    """
    from experiments.runner import parameters
    from experiments.runner.config import from_record
    from experiments.tasks import registry

    folder = lookup("pretrained model", name, folders())
    record = records.read(folder / records.FILE)
    experiment = registry.load(record.experiment)
    config = from_record(experiment.config, record.config, folder / records.FILE)
    made = experiment.outline(config)
    if made is None:
        run = registry.restore(folder, data_dir)
        return run.prepared.model, {"params": run.params}
    model, shapes = made
    return model, {"params": parameters.read(folder, shapes)}


def table() -> str:
    """All cards as a table in Markdown, for `docs/howto/pretrained.md`."""
    lines = [
        "| name | data | test | unit | updated, % | parameters | trained |",
        "| --- | --- | ---: | --- | ---: | ---: | --- |",
    ]
    for found in map(card, folders()):
        unit, value = found.figure
        lines.append(
            f"| `{found.name}` | {found.data} | {value:.5g} | {unit} | "
            f"{100 * found.update_rate:.1f} | {found.parameters:,} | "
            f"{'–' if found.date == UNDATED else found.date} |"
        )
    return "\n".join(lines)


def _licence(dataset: str) -> str:
    import data
    from experiments.tasks.sequence.config import DATASETS

    if dataset in DATASETS["synthetic"]:
        return "none needed: made here"
    return data.source_of(dataset).licence


def main() -> None:
    """Prints the list, or one card."""
    if _PAGE.value is not None:
        page = Path(_PAGE.value)
        page.write_text(HOLE.sub(lambda _: table(), page.read_text()))
        return
    if _NAME.value is None:
        print(table())
        return
    found = card(_NAME.value)
    unit, value = found.figure
    rows = {
        "data": found.data,
        "licence of the data": found.licence,
        "licence of the parameters": "Apache-2.0, as this repository",
        "test": f"{value:.5g} {unit}",
        "neurons that update": f"{found.update_rate:.1%}",
        "parameters": f"{found.parameters:,}",
        "inputs": found.inputs,
        "trained by": found.command,
        "trained": found.date,
        "score again": f"python -m experiments.evaluate --checkpoint={_shown(found.folder)}",
    }
    print(found.name)
    print("\n".join(f"  {what + ':':<27}{text}" for what, text in rows.items()))


def _shown(folder: Path) -> str:
    return str(folder.relative_to(ROOT))


if __name__ == "__main__":
    cli.run(main)
