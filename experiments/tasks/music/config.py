"""The configuration of a music run."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from experiments.runner.config import RecurrentConfig, field

FEATURES = {
    "tanh": 100,
    "gru": 46,
    "gru_before": 46,
    "lstm": 36,
    "lstm_peephole": 36,
    "min_gru": 105,
    "min_lstm": 70,
}
"""Layer sizes of equal parameter count: Chung et al. 2014, table 1; the minimal ones are ours."""

DATASETS = ("bach_chorales", "jsb", "nottingham", "musedata", "piano_midi", "jsb_16th")
"""The data sets that hold piano rolls."""


@dataclasses.dataclass(frozen=True)
class Config(RecurrentConfig):
    """Everything that decides the numbers of a run; every field is a flag."""

    added: ClassVar[Mapping[str, Any]] = {**RecurrentConfig.added, "frames_per_quarter": 4}
    own_kind = "midi"

    dataset: str = field("bach_chorales", ", ".join(DATASETS))
    cell: str = field("gru", ", ".join(FEATURES))
    growth: float = field(
        2.0,
        "Factor between padded lengths: less pads less and compiles more",
        flag="bucket_growth",
    )
    frames_per_quarter: int = field(4, "Of own MIDI files: frames of a quarter note", least=1)
