"""Configurations of experiments: the fields that all of them have, and how records name them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from data.paths import own_name

C = TypeVar("C")

_READ_BY = {
    "frozen": ("fourier", "event", "phased"),
    "rate": ("fourier", "event", "every", "zoneout", "threshold"),
    "hold": ("fourier", "event", "phased"),
    "switch_scale": ("fourier", "event", "phased"),
    "balance": ("fourier", "event"),
    "read": ("event", "threshold"),
    "spread": ("event", "threshold"),
    "gate": ("fourier", "event"),
    "share": ("fourier", "event"),
}
"""Field -> the switches that it changes. The longest period is left out: it stands in commands of
records for every model alike."""

OF_SWITCHES = ("switch", *_READ_BY)
"""Fields that change nothing in a model without a switch."""


def field(
    default: Any, text: str, *, flag: str = "", least: float | None = None, path: bool = False
) -> Any:
    """A field of a configuration.

    Args:
        default: its default.
        text: help of its flag.
        flag: name of the flag, if it is not that of the field: records keep the field's name, which
            also stays an alias of the flag.
        least: the smallest value that :func:`check` accepts.
        path: whether it is a local path.
    """
    metadata = {"help": text, "flag": flag, "least": least, "path": path}
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(field: dataclasses.Field) -> str:
    """The name of a field's flag."""
    return field.metadata["flag"] or field.name


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Data, switch, training; every field is a flag."""

    retired: ClassVar[Mapping[str, Any]] = {"harmonics": 4}
    """Fields that older records have -> the value that is always used now."""

    added: ClassVar[Mapping[str, Any]] = {"balance": "none", "own": "", "split_seed": 0}
    """Fields that came later -> the value of runs begun before: those resume, see `identity`."""

    # No annotation: no field, but experiments may have a field of this name.
    warmup = 0
    """Updates in which the learning rate rises."""

    dataset: str = field("", "Name of the data")
    switch: str = field("none", "none, fourier (a learned rhythm) or event (reads the input)")
    frozen: bool = field(False, "Keep the random switch it starts with: the control")
    rate: float = field(0.5, "Share of open switches at the start", flag="update_rate")
    hold: float = field(
        0.0,
        "Weight of the penalty (update rate - update_rate)^2 in the loss",
        flag="rate_penalty",
        least=0,
    )
    balance: str = field(
        "none",
        "What keeps neurons open: none, target (a homeostat moves each one's bias) or floor (lifts "
        "those that hardly open)",
    )
    horizon: int = field(160, "Longest period of a switch, in steps", flag="max_period")
    optimiser: str = field("adam", "adam, rmsprop, adagrad", flag="optimizer")
    learning_rate: float = field(0.003, "Learning rate of the weights")
    schedule: str = field("constant", "constant, or cosine: down to 5 % at max_epochs")
    switch_scale: float = field(
        1.0, "Factor on the learning rate for switches", flag="switch_lr_multiplier"
    )
    clip: float = field(1.0, "Largest norm of the gradient of the weights", flag="clip_norm")
    weight_decay: float = field(0.0, "AdamW's: share of the weights taken off, times the rate")
    batch_size: int = field(8, "Sequences a step", least=1)
    accumulate: int = field(1, "Steps an update, which takes the mean of their gradients")
    max_epochs: int = field(200, "The most epochs")
    patience: int = field(15, "Epochs without a better validation figure before it stops")
    skip_nonfinite: int = field(0, "Steps that may be left out because a number is not finite")
    seed: int = field(0, "Of everything random", least=0)
    own: str = field(
        "",
        "Your own files, in place of a data set: a folder of MIDI (music) or WAV files (speech), a "
        "text (wikitext), arrays in .npz (lra, pixels, synthetic)",
        flag="data",
        path=True,
    )
    split_seed: int = field(0, "Of the draw that splits own files", least=0)

    def __post_init__(self):
        if self.own:
            object.__setattr__(self, "dataset", own_name(self.own))

    @property
    def own_kind(self) -> str:
        """The kind of own files that is read, see :mod:`data.sets.own`; empty: none are."""
        return ""

    @property
    def no_switch(self) -> str:
        """What would give the model a switch; empty: it has one."""
        return ""

    @property
    def idle(self) -> dict[str, str]:
        """The fields that change nothing here -> why, and what would be right."""
        if self.no_switch:
            return dict.fromkeys(OF_SWITCHES, f"the model has no switch; {self.no_switch}")
        found = {
            name: f"--switch={self.switch} does not read it; {', '.join(known)} do"
            for name, known in _READ_BY.items()
            if self.switch not in known
        }
        if self.frozen:
            frozen = "--frozen keeps the switch as it is; leave out one of both"
            found = dict.fromkeys(("hold", "balance", "share", "switch_scale"), frozen) | found
        return found


@dataclasses.dataclass(frozen=True)
class RecurrentConfig(TrainConfig):
    """One recurrent layer below a read-out: music and speech."""

    retired: ClassVar[Mapping[str, Any]] = {
        **TrainConfig.retired,
        "gate": "window",
        "read": "counts",
    }

    spread: float = field(
        0.5, "Standard deviation of the event weights at the start", flag="event_init_std"
    )
    cell: str = field("gru", "A cell of surnn_jax.cells")
    features: int | None = field(None, "Neurons; by default the paper's size for the cell")
    weight_noise: float = field(0.0, "Standard deviation of noise on the cell's matrices", least=0)

    @property
    def kinds(self) -> str:
        """The cell, as records name it."""
        return self.cell

    @property
    def no_switch(self) -> str:
        return "" if self.switch != "none" else "add --switch=fourier or --switch=event"

    @property
    def switch_name(self) -> str:
        """The switch, as records name it."""
        return self.switch + "-frozen" * self.frozen

    @property
    def unit(self) -> str:
        """A short name for the unit, such as ``gru`` or ``gru-fourier-frozen``."""
        parts = [self.cell] if self.switch == "none" else [self.cell, self.switch]
        return "-".join([*parts, "frozen"] if self.frozen else parts)


def identity(config: TrainConfig) -> dict[str, Any]:
    """The fields by which a run recognises its folder.

    Own files are recognised by their hash, wherever they lie: see :func:`.experiment.identity_of`.
    """
    fields = dataclasses.asdict(config)
    for name, value in config.added.items():
        if fields[name] == value:
            del fields[name]
    if config.own:
        del fields["own"], fields["dataset"]
    return fields


def check(config: TrainConfig) -> None:
    """Compares every field with its least value.

    Raises:
        ValueError: naming the first flag that is too small.
    """
    for own in dataclasses.fields(config):
        least, value = own.metadata["least"], getattr(config, own.name)
        if least is not None and value is not None and not value >= least:  # NaN neither
            raise ValueError(f"{flag_of(own)} must be at least {least}, got {value}")


def from_record(kind: type[C], stored: Mapping[str, Any], where: object = "record") -> C:
    """The configuration that a record holds, whatever version wrote it.

    Fields that were added later get their defaults, which the run used. A field may also have the
    name of its flag.

    Args:
        kind: the experiment's configuration.
        stored: field -> value.
        where: the file, for the message.

    Raises:
        ValueError: a field that does not exist, or a retired one with another value than the one
            that is used now.
    """
    names = {flag_of(own): own.name for own in dataclasses.fields(kind)}
    # A field's own name first: a flag may have that of another field.
    names |= {own.name: own.name for own in dataclasses.fields(kind)}
    fields = {names.get(name, name): value for name, value in stored.items()}
    retired = kind.retired
    for name, value in retired.items():
        if (found := fields.pop(name, value)) != value:
            raise ValueError(
                f"{where}: its configuration has {name}={found!r}, which no run has now: it is "
                f"always {value!r}"
            )
    if unknown := sorted(fields.keys() - set(names.values())):
        raise ValueError(
            f"{where}: its configuration has {', '.join(unknown)}, which no run has now"
        )
    return kind(**fields)
