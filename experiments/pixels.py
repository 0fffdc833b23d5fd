"""Images pixel by pixel: sequential MNIST, in order and permuted, and sequential CIFAR-10.

    python -m experiments.pixels --preset=smnist-sugru-cpu
    python -m experiments.pixels --dataset=psmnist --layers=sugru,sugru --workdir=runs/psmnist

Accuracy on the test images; the epoch with the fewest errors on the validation images counts.
Table 5 of the suRNN paper. Presets: ``--list``.
"""

import dataclasses

from experiments.report import listing
from experiments.runner import main
from experiments.tasks import registry
from experiments.tasks.sequence.config import Config
from experiments.tasks.sequence.presets import presets, short, units

_CPU = Config(
    "smnist",
    features=128,
    bare=True,
    encoder="raw",
    pooling="last",
    rate=0.15,
    hold=10.0,
    share=0.125,
    learning_rate=0.01,
    batch_size=64,
    max_epochs=12,
)
# Widths and depths are ours: the paper's are not known.
_FULL = Config(
    "smnist",
    layers="sugru",
    features=256,
    dropout=0.1,
    learning_rate=0.003,
    weight_decay=0.01,
    warmup=1000,
    batch_size=64,
    max_epochs=50,
)
_DENSE = {"learning_rate": 0.003}
_OTHER = {"learning_rate": 0.002, "warmup": 500, "pooling": "mean"}
_EVENT = {"rate": 0.1, "read": "pair"}


_SHORT = Config(
    "smnist",
    features=128,
    bare=True,
    encoder="raw",
    pooling="last",
    rate=0.15,
    warmup=100,
    batch_size=64,
    examples=55000,
    max_epochs=1,
)
_BLOCKS = {"bare": False, "encoder": "", "pooling": "mean"}
_RESTING = {**_BLOCKS, "layers": "sugru,sugru", "features": 56, "expand": 0.75}
_SIZES = {
    "transformer": {**_BLOCKS, "layers": "attention,attention", "features": 56, "expand": 1.3},
    "hybrid": {**_BLOCKS, "features": 56, "expand": 1.0},
    "s4d": {**_BLOCKS, "layers": "s4d,s4d", "features": 56, "expand": 1.2},
    "sugru-block": _RESTING,
    "sugru-event-block": _RESTING,
    "sulstm": {"features": 110},
    "sutanh": {"features": 222},
}


def _on(dataset: str) -> dict[str, dict[str, Config]]:
    cpu = dataclasses.replace(_CPU, dataset=dataset)
    full = dataclasses.replace(_FULL, dataset=dataset)
    return {
        f"{dataset}-cpu": units(cpu, dense=_DENSE, other=_OTHER, event=_EVENT),
        f"{dataset}-short": short(
            dataclasses.replace(_SHORT, dataset=dataset), 1, sizes=_SIZES, event={"read": "pair"}
        ),
        dataset: units(full, 4, dense={"learning_rate": 0.001}, other={"learning_rate": 0.001}),
    }


TASKS = {**_on("smnist"), **_on("psmnist"), **_on("scifar10")}
"""Task -> model -> configuration."""

PRESETS = presets(TASKS)


if __name__ == "__main__":
    main.run("pixels", Config, PRESETS, registry.load, listing.show)
