"""What a music run is: its configuration."""

import dataclasses

from experiments.config import Common, field

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


@dataclasses.dataclass(frozen=True)
class Config(Common):
    """All that decides the numbers of a run; every field is a flag."""

    dataset: str = field("bach_chorales", "bach_chorales, jsb, nottingham, musedata, piano_midi")
    cell: str = field("gru", ", ".join(FEATURES))
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
