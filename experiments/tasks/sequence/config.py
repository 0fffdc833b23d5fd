"""What a run of lra, pixels, synthetic or wikitext is: its configuration."""

import dataclasses

from experiments.runner.config import TrainConfig, field


@dataclasses.dataclass(frozen=True)
class Config(TrainConfig):
    """All that decides the numbers of a run; every field is a flag."""

    layers: str = field("sugru", "Layers from the input up, by comma, such as sugru,s4d,sugru")
    features: int = field(64, "Width of the model")
    hidden: int | None = field(None, "Neurons of a recurrent layer; by default the width")
    bare: bool = field(False, "Layers without norm, residual and feed-forward")
    expand: float = field(2.0, "Width of the feed-forward layers in widths of the model; 0: none")
    encoder: str = field("", "raw, dense, onehot or embed; by default dense, for tokens embed")
    positions: str = field("none", "none, learned (added to the input) or rotary (attention only)")
    pooling: str = field("mean", "What a classifier reads: last or mean")
    bidirectional: bool = field(False, "Read from both ends")
    heads: int = field(4, "Of attention")
    window: int | None = field(None, "Steps that attention sees; by default the longest sequence")
    state: int | None = field(None, "Numbers a channel of a state space; LRU: in all")
    dropout: float = field(0.0, "Share that is dropped in encoder and blocks")
    cutoffs: str = field("", "Of an adaptive softmax, by comma; none: a full one")
    tied: bool = field(True, "Words: the weights of the softmax are those of the embedding")
    steps: int = field(0, "Longest sequence; longer ones are cut. 0: all of it")
    longest: int = field(0, "Examples with a longer sequence are left out. 0: none is")
    data: int = field(16, "Synthetic copying: tokens to be given back")
    tokens: int = field(16, "Synthetic copying: the vocabulary")
    examples: int = field(0, "Training examples (synthetic: an epoch). 0: all there are")
    evaluated: int = field(0, "Examples of the validation and of the test split. 0: all there are")
    switch: str = field("fourier", "Of the su… layers; see surnn_jax.switches")
    rate: float = field(0.17, "Share of open switches at the start")
    horizon: int = field(0, "Longest period of a switch, in steps; 0: the longest sequence")
    shortest: float = field(2.0, "Shortest period of a switch, in steps")
    groups: int | None = field(None, "Schedules a layer; by default one a neuron")
    share: float = field(1.0, "Share of a batch that teaches the switch")
    read: str = field("input", "What an event switch reads: input, pair, counts")
    spread: float = field(0.0, "Deviation of the event weights at the start; 0: 1 / sqrt(inputs)")
    schedule: str = field("cosine", "constant, or cosine: down to 5 % at max_epochs")
    warmup: int = field(0, "Steps in which the learning rate rises")
    batch_size: int = field(32, "Sequences a step")
    max_epochs: int = field(10, "The most epochs")
    patience: int = field(1000, "Epochs without a better validation figure before it stops")
    backend: str = field("auto", "How recurrent layers are scanned")
    precision: str = field("float32", "Operands of products: float32 or bfloat16")

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
        """What the stack is made of, each once: ``sugru+s4d``."""
        return "+".join(dict.fromkeys(self.names))

    @property
    def selective(self) -> bool:
        """Whether some layer has a switch: cells do not begin with su."""
        return any(name.startswith("su") for name in self.names)

    @property
    def unit(self) -> str:
        """A short name, such as ``sugru-x2-fourier-frozen``."""
        parts = [self.stack.replace(",", "+").replace(" ", "-")]
        if self.selective:
            parts.append(self.switch_name)
        return "-".join(parts)

    @property
    def switch_name(self) -> str:
        """``none``, or the switch and what sets it apart."""
        if not self.selective:
            return "none"
        soft = "-soft" if self.gate == "soft" else ""
        return self.switch + soft + "-frozen" * self.frozen
