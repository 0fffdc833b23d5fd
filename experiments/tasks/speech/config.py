"""The configuration of a speech run."""

import dataclasses

from experiments.runner.config import RecurrentConfig, field

DATASETS = ("fsdd", "asterisk_speech", "ljspeech", "timit")

FEATURES = {
    "tanh": 400,
    "gru": 227,
    "gru_before": 227,
    "lstm": 195,
    "lstm_peephole": 195,
}
"""Layer sizes of equal parameter count, about 169,000: Chung et al. 2014, table 1."""


@dataclasses.dataclass(frozen=True)
class Config(RecurrentConfig):
    """Everything that decides the numbers of a run; every field is a flag."""

    own_kind = "wav"

    dataset: str = field("fsdd", ", ".join(DATASETS))
    cell: str = field("gru", ", ".join(FEATURES))
    window: int = field(500, "Samples a sequence; a multiple of 10")
    windows: int = field(
        7230, "Training windows, a fixed draw; 0: all", flag="train_windows", least=0
    )
    evaluated: int = field(
        2000,
        "Validation and test windows, each a fixed draw; 0: all",
        flag="eval_windows",
        least=0,
    )
    floor: float = field(
        0.01,
        "Least deviation of a Gaussian; 1 is that of the training samples",
        flag="min_std",
    )
    horizon: int = field(
        48, "Longest period of a switch, in steps of 10 samples", flag="max_period"
    )
    learning_rate: float = field(0.002, "Learning rate of the weights")
    batch_size: int = field(8, "Windows a step", least=1)
    max_epochs: int = field(30, "The most epochs")
    patience: int = field(5, "Epochs without a better validation figure before it stops")
