"""The two protocols of a search: how hyper-parameters are drawn, and which ones are fixed.

`chung` is that of Chung et al. 2014, sections 4.1 and 4.2. `controlled` asks whether the units
differ if they are treated alike: the same space, budget, draws, seeds and initial values for every
unit. A draw is a function of the protocol, the seed of the search and its own number alone: all
units, data sets and seeds get the same ones.

Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943) drops the worse half of the draws
after n, 2n, 4n … epochs; the last one trains until early stopping. Most of ten learning rates in
e^-12..e^-6 are so low that they learn next to nothing: in the time in which all ten get 50 epochs
on Nottingham, the last one gets 250 this way. After 50, the winners of all units were still
learning, and a ranking would have been one of early speed.

A step whose gradient is not finite is skipped, up to a hundred of them: those of the tanh unit on
Nottingham, at two rates of 0.0006, exceeded the range of float32 in 1 and in 4 of 4,176 steps,
while the loss was an ordinary number.

The paper does not give the batch size, the most epochs and patience; they are ours. The constants
of RMSProp are from code that its authors released later. The batch size is 8, because larger
batches made an epoch no faster (GRU on Nottingham, one core: 1.7 s with 8, 2.0 with 16, 3.3 with
32), with fewer updates. More padded lengths pay off over hundreds of epochs of one program: on
Nottingham 34 % of the computed steps are padding at a growth of 2, and 20 % at 1.41.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from data.paths import own_name
from data.sets import own as own_files
from experiments.runner.config import RecurrentConfig
from experiments.tasks.music import config as music_config
from experiments.tasks.speech import config as speech_config

CONFIGS: dict[str, type[RecurrentConfig]] = {
    "music": music_config.Config,
    "speech": speech_config.Config,
}
"""Experiments that can be searched -> the class of their configurations."""


class Protocol(NamedTuple):
    """How hyper-parameters are chosen.

    Attributes:
        name: its name.
        fixed: fields of the configuration that are the same for all trials.
        drawn: field -> (least, most), drawn log-uniformly.
    """

    name: str
    fixed: dict[str, Any]
    drawn: dict[str, tuple[float, float]]

    def draw(self, number: int, seed: int) -> dict[str, float]:
        """The hyper-parameters of draw `number` of a search with this seed."""
        entropy = [zlib.crc32(self.name.encode()), seed, number]
        random = np.random.Generator(np.random.PCG64(entropy))
        return {
            name: math.exp(random.uniform(math.log(least), math.log(most)))
            for name, (least, most) in sorted(self.drawn.items())
        }


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "chung",
            fixed={
                "optimiser": "rmsprop",
                "schedule": "constant",
                "clip": 1.0,
                "weight_noise": 0.075,
                "skip_nonfinite": 100,
            },
            drawn={"learning_rate": (math.exp(-12), math.exp(-6))},
        ),
        Protocol(
            "controlled",
            fixed={
                "optimiser": "adam",
                "schedule": "constant",
                "clip": 1.0,
                "weight_noise": 0.0,
                "skip_nonfinite": 100,
            },
            drawn={"learning_rate": (3e-4, 3e-2), "weight_decay": (1e-3, 1.0)},
        ),
    )
}

UNITS: dict[str, dict[str, Any]] = {
    "tanh": {"cell": "tanh"},
    # As in the paper: reset before the matrix product.
    "gru": {"cell": "gru_before"},
    "lstm": {"cell": "lstm_peephole"},
    "sugru": {"cell": "gru_before", "switch": "fourier", "rate": 0.8},
}
"""Unit -> fields of the configuration. The sizes are the paper's, of equal parameter count."""

DATASETS: dict[str, dict[str, dict[str, Any]]] = {
    "music": {
        name: {"dataset": name, "batch_size": 8, "growth": 1.41, **plan}
        for name, plan in {
            "jsb": {"max_epochs": 400, "patience": 20, "horizon": 160},
            "nottingham": {"max_epochs": 250, "patience": 15, "horizon": 512},
            "musedata": {"max_epochs": 120, "patience": 10, "horizon": 512},
            "piano_midi": {"max_epochs": 350, "patience": 20, "horizon": 512},
            "bach_chorales": {"max_epochs": 400, "patience": 20, "horizon": 160},
        }.items()
    },
    "speech": {
        # As Ubisoft A: 7,230 sequences of 500 samples.
        **{
            name: {"dataset": name, "batch_size": 8, "max_epochs": 40, "patience": 4}
            for name in speech_config.DATASETS
        },
        # As Ubisoft B: 800 of 8,000.
        "asterisk_speech-8000": {
            "dataset": "asterisk_speech",
            "window": 8000,
            "windows": 800,
            "evaluated": 125,
            "horizon": 798,
            "batch_size": 8,
            "max_epochs": 20,
            "patience": 4,
        },
    },
}
"""Experiment -> data set -> fields of the configuration, the same for every unit."""

OWN: dict[str, dict[str, Any]] = {
    "music": {
        **{"batch_size": 8, "growth": 1.41, "horizon": 160},
        **{"max_epochs": 250, "patience": 20},
    },
    "speech": {"batch_size": 8, "max_epochs": 40, "patience": 4},
}
"""Experiment -> fields of the configuration for own files."""

FIRST_HALVING = {
    "jsb": 20,
    "nottingham": 6,
    "musedata": 5,
    "piano_midi": 25,
    "bach_chorales": 20,
    **dict.fromkeys(speech_config.DATASETS, 1),
}
"""Epochs before the first halving, 2 for other data sets: some hundreds of updates."""

SMALLER = ("batch_size", "max_epochs", "patience", "features", "windows", "evaluated")
"""Fields of the configuration that flags of a search change for all of its data sets."""


class Group(NamedTuple):
    """The trials among which one winner is chosen: one a draw."""

    dataset: str
    unit: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.dataset}-{self.unit}-{self.seed}"


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """The whole search space.

    Attributes:
        experiment: one of :data:`CONFIGS`.
        protocol: one of :data:`PROTOCOLS`.
        budget: draws a group.
        seed: of the draws.
        changes: fields of the configuration that are not as in :data:`DATASETS`.
        own: the path of own files, which then are the only data set; empty for none.

    Raises:
        ValueError: a name that does not exist, or a number out of range.
    """

    experiment: str
    protocol: str
    budget: int
    seed: int
    changes: Mapping[str, Any]
    own: str = ""

    def __post_init__(self):
        check_known("experiment", self.experiment, CONFIGS)
        check_known("protocol", self.protocol, PROTOCOLS)
        for name, value, least in (("num_trials", self.budget, 1), ("search_seed", self.seed, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        fields = {field.name for field in dataclasses.fields(CONFIGS[self.experiment])}
        if strange := sorted(self.changes.keys() - fields):
            raise ValueError(f"{', '.join(strange)}: {self.experiment} has no such setting")

    @property
    def datasets(self) -> dict[str, dict[str, Any]]:
        """Data set -> fields of the configuration, the same for every unit."""
        if not self.own:
            return DATASETS[self.experiment]
        return {own_name(self.own): {"own": self.own, **OWN[self.experiment]}}

    @property
    def draws(self) -> list[dict[str, float]]:
        """The hyper-parameters of every trial of a group."""
        protocol = PROTOCOLS[self.protocol]
        return [protocol.draw(number, self.seed) for number in range(self.budget)]

    def halvings(self, dataset: str) -> list[int]:
        """Epochs after which the worse half of the draws is taken out, until one is left."""
        first = FIRST_HALVING.get(dataset, 2)
        return [first * 2**number for number in range(math.ceil(math.log2(self.budget)))]

    def config(self, group: Group) -> RecurrentConfig:
        """The configuration that the trials of a group share.

        Raises:
            ValueError: a name that does not exist.
        """
        check_known("dataset", group.dataset, self.datasets)
        check_known("unit", group.unit, UNITS)
        return CONFIGS[self.experiment](
            **{
                **self.datasets[group.dataset],
                **UNITS[group.unit],
                **PROTOCOLS[self.protocol].fixed,
                **self.changes,
                "seed": group.seed,
            }
        )

    def header(self) -> dict[str, Any]:
        """Everything that decides the trials, as JSON can hold it; own files by their hash."""
        datasets = self.datasets
        if self.own:
            found = own_files.find(CONFIGS[self.experiment]().own_kind, self.own)
            datasets = {name: {**plan, "own": found.sha256} for name, plan in datasets.items()}
        return {
            "experiment": self.experiment,
            "protocol": self.protocol,
            "budget": self.budget,
            "search_seed": self.seed,
            "draws": {str(number): draw for number, draw in enumerate(self.draws)},
            "units": UNITS,
            "datasets": datasets,
            "changes": dict(self.changes),
            "fixed": PROTOCOLS[self.protocol].fixed,
            "drawn": PROTOCOLS[self.protocol].drawn,
            "halvings": {name: self.halvings(name) for name in datasets},
        }


def check_known(kind: str, name: str, known: Mapping[str, Any]) -> None:
    """Refuses an unknown name.

    Raises:
        ValueError: listing the known ones.
    """
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}; one of: {', '.join(known)}")
