"""The configuration of a run of lra, pixels, synthetic or wikitext, and their data sets."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from experiments.runner.config import TrainConfig, field

DATASETS = {
    "lra": {
        "listops": "classify",
        "listops_short": "classify",
        "imdb_bytes": "classify",
        "aan": "match",
        "wikipairs": "match",
        "cifar10_gray": "classify",
        "pathfinder32": "classify",
        "pathfinder128": "classify",
    },
    "pixels": dict.fromkeys(("smnist", "psmnist", "scifar10", "digits"), "classify"),
    "synthetic": {
        "selective_copy": "recall",
        "copy": "recall",
        "adding": "regress",
        "mackey_glass": "regress",
    },
    "wikitext": dict.fromkeys(("wikitext2", "wikitext103"), "language"),
}
"""Experiment -> data set -> kind of its task, see :class:`.TaskSpec`."""

_KINDS = {name: kind for sets in DATASETS.values() for name, kind in sets.items()}

STATE_SPACES = ("s4d", "lru", "mamba", "mamba2")
"""Layers with a state of a size of its own: `surnn_jax.layers.mixers` has them, behind JAX."""


@dataclasses.dataclass(frozen=True)
class Config(TrainConfig):
    """Everything that decides the numbers of a run; every field is a flag."""

    retired: ClassVar[Mapping[str, Any]] = {
        **TrainConfig.retired,
        "spread": 0.0,
        "shortest": 2.0,
        "groups": None,
        "tied": True,
    }

    added: ClassVar[Mapping[str, Any]] = {
        **TrainConfig.added,
        "tokenizer": "words",
        "skip": "mixer",
    }

    layers: str = field("sugru", "Layers from the input up, by comma, such as sugru,s4d,sugru")
    features: int = field(64, "Width of the model")
    hidden: int | None = field(None, "Neurons of a recurrent layer; by default the width")
    bare: bool = field(False, "Layers without norm, residual and feed-forward", flag="no_residual")
    expand: float = field(
        2.0, "Width of the feed-forward layers in widths of the model; 0: none", flag="mlp_ratio"
    )
    skip: str = field(
        "mixer", "What rests while a switch is closed: mixer, or block (one schedule a block)"
    )
    encoder: str = field("", "raw, dense, onehot or embed; by default dense, for tokens embed")
    positions: str = field("none", "none, learned (added to the input) or rotary (attention only)")
    pooling: str = field("mean", "Outputs that a classifier reads: last or mean")
    bidirectional: bool = field(False, "Read from both ends")
    heads: int = field(4, "Heads of attention", flag="num_heads")
    window: int | None = field(None, "Steps that attention sees; by default the longest sequence")
    state: int | None = field(
        None, "Numbers a channel of a state space; LRU: in all", flag="d_state"
    )
    dropout: float = field(0.0, "Share that is dropped in encoder and blocks")
    cutoffs: str = field("", "Cutoffs of an adaptive softmax, by comma; none: a full one")
    steps: int = field(
        0, "Longest sequence; longer ones are cut. 0: all of it", flag="max_length", least=0
    )
    longest: int = field(
        0,
        "Leave out examples with a longer sequence. 0: none",
        flag="drop_longer_than",
        least=0,
    )
    data: int = field(16, "Synthetic copying: tokens to be given back", flag="copy_tokens")
    tokens: int = field(16, "Synthetic copying: the vocabulary", flag="vocabulary")
    examples: int = field(
        0, "Training examples (synthetic: an epoch). 0: all there are",
        flag="train_examples", least=0,
    )  # fmt: skip
    evaluated: int = field(
        0, "Examples of the validation and of the test split. 0: all there are",
        flag="eval_examples", least=0,
    )  # fmt: skip
    switch: str = field("fourier", "Switch of the su… layers; see surnn_jax.switches")
    gate: str = field(
        "window",
        "Gradient of the step: window, sigmoid, identity; or soft, no step at all",
        flag="surrogate",
    )
    rate: float = field(0.17, "Share of open switches at the start", flag="update_rate")
    horizon: int = field(
        0, "Longest period of a switch, in steps; 0: the longest sequence", flag="max_period"
    )
    share: float = field(
        1.0,
        "Share of a batch that teaches the switch; below 1 it harms event switches",
        flag="gradient_fraction",
    )
    read: str = field(
        "input",
        "Features that an event switch reads: input, pair, counts, trace",
        flag="event_features",
    )
    schedule: str = field("cosine", "constant, or cosine: down to 5 % at max_epochs")
    warmup: int = field(0, "Steps in which the learning rate rises")
    batch_size: int = field(32, "Sequences a step", least=1)
    max_epochs: int = field(10, "The most epochs")
    patience: int = field(1000, "Epochs without a better validation figure before it stops")
    backend: str = field("auto", "How recurrent layers are scanned")
    precision: str = field("float32", "Operands of products: float32 or bfloat16")
    tokenizer: str = field("words", "Of an own text: words, characters or bytes")

    @property
    def own_kind(self) -> str:
        """``arrays`` if own files are an ``.npz``, else ``text``."""
        return "arrays" if self.own.lower().endswith(".npz") else "text"

    @property
    def names(self) -> tuple[str, ...]:
        """The layers."""
        return tuple(name.strip() for name in self.layers.split(",") if name.strip())

    @property
    def stack(self) -> str:
        """The layers in short: ``sugru x2``, or ``sugru,s4d,sugru``."""
        names = self.names
        return f"{names[0]} x{len(names)}" if len(set(names)) == 1 else ",".join(names)

    @property
    def kinds(self) -> str:
        """The kinds of layers, each once: ``sugru+s4d``."""
        return "+".join(dict.fromkeys(self.names))

    @property
    def selective(self) -> bool:
        """Whether some layer has a switch: the names of cells do not begin with su."""
        return any(name.startswith("su") for name in self.names)

    @property
    def no_switch(self) -> str:
        return "" if self.selective else "layers with one begin with su, such as --layers=sugru"

    @property
    def idle(self) -> dict[str, str]:
        found = super().idle
        if "attention" not in self.names:
            why = "only attention reads it, and the model has no such layer"
            found |= dict.fromkeys(("heads", "window"), why)
            if self.positions == "rotary":
                found["positions"] = f"{why}; take learned positions"
        if self.bare:
            found["expand"] = "layers without residuals have no feed-forward layers"
        if set(self.names) <= {"attention", *STATE_SPACES}:
            found["hidden"] = "the model has no recurrent layer, such as gru or sugru"
        if not set(STATE_SPACES) & set(self.names):
            found["state"] = f"only {', '.join(STATE_SPACES)} read it, and the model has none"
        if kind := "" if self.own else _KINDS.get(self.dataset, ""):
            readers = {
                "pooling": ("classify", "match"),
                "cutoffs": ("language",),
                "data": ("recall",),
                "tokens": ("recall",),
            }
            why = f"--dataset={self.dataset} has no use for it"
            found |= {name: why for name, kinds in readers.items() if kind not in kinds}
        return found

    @property
    def unit(self) -> str:
        """A short name, such as ``sugru-x2-fourier-frozen``."""
        parts = [self.stack.replace(",", "+").replace(" ", "-")]
        if self.selective:
            parts.append(self.switch_name)
        return "-".join(parts)

    @property
    def switch_name(self) -> str:
        """``none``, or the switch with ``-soft``, ``-block`` and ``-frozen`` after it."""
        if not self.selective:
            return "none"
        soft = "-soft" if self.gate == "soft" else ""
        block = "-block" if self.skip == "block" else ""
        return self.switch + soft + block + "-frozen" * self.frozen
