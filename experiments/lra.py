"""Long Range Arena: ListOps, Text, Retrieval, Image, Pathfinder, Path-X.

    python -m experiments.lra --preset=listops-sugru-cpu
    python -m experiments.lra --dataset=imdb_bytes --layers=sugru,s4d --workdir=runs/text

Test accuracy at the epoch with the fewest errors on the validation split; every model reads from
left to right, without ``--bidirectional``. Table 2 of the suRNN paper. Presets: ``--list``.
"""

from experiments.report import listing
from experiments.runner import main
from experiments.tasks import registry
from experiments.tasks.sequence.config import Config
from experiments.tasks.sequence.presets import TWO_BLOCKS, presets, short, units

_DENSE = {"learning_rate": 0.001}
_OTHER = {"learning_rate": 0.001}
_EVENT = {"rate": 0.1}


def _full(dataset: str, **own) -> dict[str, Config]:
    """Widths, depths and learning rates are ours: the paper's are not known."""
    task = Config(
        dataset,
        features=128,
        dropout=0.1,
        learning_rate=0.003,
        weight_decay=0.05,
        warmup=1000,
        **{"batch_size": 32, "max_epochs": 40, **own},
    )
    return units(task, 4, dense=_DENSE, other=_OTHER, event=_EVENT)


def _cpu(dataset: str, **own) -> dict[str, Config]:
    """Two small layers, for two cores and half an hour."""
    task = Config(
        dataset,
        features=64,
        expand=1.0,
        learning_rate=0.003,
        warmup=100,
        share=0.125,
        batch_size=32,
        heads=2,
        **{"evaluated": 2000, **own},
    )
    return units(task, 2, dense=_DENSE, other=_OTHER, event=_EVENT)


def _short(dataset: str, **own) -> dict[str, Config]:
    """Two blocks of 64 for `experiments.reproduce`: suGRU takes at most eight minutes of a core."""
    task = Config(
        dataset,
        features=64,
        expand=1.0,
        heads=2,
        rate=0.15,
        warmup=100,
        batch_size=32,
        **{"evaluated": 2000, **own},
    )
    return short(task, 2, sizes=TWO_BLOCKS)


TASKS = {
    "listops": _full("listops"),
    "listops-cpu": _cpu("listops", longest=640, max_epochs=4, evaluated=0),
    "text": _full("imdb_bytes"),
    "text-cpu": _cpu("imdb_bytes", steps=512, max_epochs=4),
    "retrieval": _full("aan"),
    "retrieval-cpu": _cpu("wikipairs", steps=512, max_epochs=4, examples=8000),
    "image": _full("cifar10_gray"),
    "image-cpu": _cpu("cifar10_gray", max_epochs=3),
    "pathfinder": _full("pathfinder32"),
    "pathfinder-cpu": _cpu("pathfinder32", max_epochs=2, examples=48000),
    "listops-short": _short("listops_short", examples=40000, max_epochs=1),
    "text-short": _short("imdb_bytes", steps=512, examples=16000, max_epochs=2),
    "image-short": _short("cifar10_gray", examples=20000, max_epochs=1),
    "pathfinder-short": _short("pathfinder32", examples=20000, max_epochs=1),
    "retrieval-short": _short("wikipairs", steps=512, examples=8000, max_epochs=2),
    "path-x": _full("pathfinder128", batch_size=8),
}
"""Task -> model -> configuration."""

PRESETS = presets(TASKS)


if __name__ == "__main__":
    main.run("lra", Config, PRESETS, registry.load, listing.show)
