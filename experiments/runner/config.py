"""What configurations of experiments share: the switch, the training, one recurrent layer."""

import dataclasses
from typing import Any


def field(default: Any, text: str) -> Any:
    """A field of a configuration; `text` becomes the help of its flag."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Data, switch, training; every field is a flag."""

    dataset: str = field("", "Name of the data")
    switch: str = field("none", "none, fourier (a learned rhythm) or event (reads the input)")
    gate: str = field("window", "Surrogate: window, sigmoid, identity; or soft, no step at all")
    frozen: bool = field(False, "Keep the random switch it starts with: the control")
    rate: float = field(0.5, "Share of open switches at the start")
    hold: float = field(0.0, "Weight of the penalty (rate now - rate)^2 in the loss")
    harmonics: int = field(4, "Sines a switch")
    horizon: int = field(160, "Longest period of a switch, in steps")
    read: str = field("counts", "What an event switch reads: input, pair, counts")
    spread: float = field(0.5, "Standard deviation of the event weights at the start")
    optimiser: str = field("adam", "adam, rmsprop, adagrad")
    learning_rate: float = field(0.003, "Of the weights")
    schedule: str = field("constant", "constant, or cosine: down to 5 % at max_epochs")
    switch_scale: float = field(1.0, "Factor on it for the parameters of switches")
    clip: float = field(1.0, "Largest norm of the gradient of the weights")
    weight_decay: float = field(0.0, "AdamW's: share of the weights taken off, times the rate")
    batch_size: int = field(8, "Sequences a step")
    accumulate: int = field(1, "Steps an update, which takes the mean of their gradients")
    max_epochs: int = field(200, "The most epochs")
    patience: int = field(15, "Epochs without a better validation figure before it stops")
    skip_nonfinite: int = field(0, "Steps that may be left out because a number is not finite")
    seed: int = field(0, "Of everything random")


@dataclasses.dataclass(frozen=True)
class RecurrentConfig(TrainConfig):
    """One recurrent layer below a read-out: music and speech."""

    cell: str = field("gru", "A cell of surnn_jax.cells")
    features: int | None = field(None, "Neurons; by default the paper's size for the cell")
    weight_noise: float = field(0.0, "Standard deviation of noise on the cell's matrices")

    @property
    def kinds(self) -> str:
        """The cell, as records name it."""
        return self.cell

    @property
    def switch_name(self) -> str:
        """The switch, as records name it."""
        return self.switch + "-frozen" * self.frozen

    @property
    def unit(self) -> str:
        """A short name for the unit, such as ``gru`` or ``gru-fourier-frozen``."""
        parts = [self.cell] if self.switch == "none" else [self.cell, self.switch]
        return "-".join([*parts, "frozen"] if self.frozen else parts)
