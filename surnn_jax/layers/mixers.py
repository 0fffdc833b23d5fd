"""Sequence layers by name: recurrent units, attention and state spaces behind one interface.

A mixer maps ``[B, T, D]`` to ``[B, T, M]``, is causal, and can be continued and streamed:

- ``mixer(x, initial_carry=…, seq_lengths=…, resets=…) -> (carry, y)``
- ``mixer.step(carry, x, resets) -> (carry, y)``, one step, the same numbers
- ``mixer.initial_carry(batch_shape) -> carry``
"""

import dataclasses
from typing import Any

import flax.linen as nn

from surnn_jax import cells, switches
from surnn_jax.layers.attention import Attention
from surnn_jax.layers.lru import LRU
from surnn_jax.layers.mamba import Mamba
from surnn_jax.layers.mamba2 import Mamba2
from surnn_jax.layers.recurrent import Recurrent
from surnn_jax.layers.s4d import S4D
from surnn_jax.names import unknown
from surnn_jax.scan import SELECTIVE
from surnn_jax.switches import Switch

_OTHERS = ("attention", "s4d", "lru", "mamba", "mamba2")


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of layers, apart from name and width.

    Attributes:
        switch: of the selective layers, ``su…``, or its name; None for ``fourier`` with a horizon
            of 1,024 steps.
        hidden: H, neurons of a recurrent unit; None for the width of the layer.
        num_heads: of attention.
        window: steps that attention sees, the present one included.
        rotary: whether attention has rotary positions (arXiv 2104.09864).
        state: size of the state of each channel of a state space, or of a whole LRU; None for the
            paper's size, or the width of an LRU.
        backend: how recurrent units are scanned.
        dtype: operands of products are rounded to it; None for no rounding.

    Examples:
        >>> from surnn_jax.layers import Options
        >>> from surnn_jax.switches import event
        >>> Options(switch=event(horizon=100), num_heads=2, window=64).window
        64
    """

    switch: str | Switch | None = None
    hidden: int | None = None
    num_heads: int = 4
    window: int = 1024
    rotary: bool = False
    state: int | None = None
    backend: str = "auto"
    dtype: Any = None


def names() -> tuple[str, ...]:
    """Every name that :func:`make` knows: cells, cells with the prefix ``su``, and the others."""
    plain = tuple(cells.CELLS)
    return (*plain, *(SELECTIVE + name for name in plain), *_OTHERS)


def check(name: str, options: Options) -> None:
    """Checks the arguments of :func:`make`.

    Raises:
        ValueError: no layer or no switch of this name.
    """
    switches.get(options.switch)
    if name not in names():
        raise unknown("layer", name, names())


def is_selective(name: str) -> bool:
    """Whether a layer of this name has a switch."""
    return name not in cells.CELLS and name.removeprefix(SELECTIVE) in cells.CELLS


def is_traced(name: str) -> bool:
    """Whether a layer of this name reports an update rate, from a switch or from its own state."""
    cell = cells.CELLS.get(name)
    return is_selective(name) or (cell is not None and "open" in cell.carry._fields)


def make(name: str, features: int, options: Options, *, causal: bool = True) -> nn.Module:
    """The mixer of that name, unbound.

    Args:
        name: one of :func:`names`.
        features: M, the width of its output; a recurrent unit has `options.hidden` neurons if
            that is given, and as many outputs.
        options: the rest.
        causal: False lets attention see the future; all others are always causal.

    Raises:
        ValueError: as :func:`check`.
    """
    check(name, options)
    dtype = options.dtype
    if name == "attention":
        return Attention(
            features,
            num_heads=options.num_heads,
            window=options.window,
            causal=causal,
            rotary=options.rotary,
            dtype=dtype,
        )
    if name in _OTHERS:
        kind = {"s4d": S4D, "lru": LRU, "mamba": Mamba, "mamba2": Mamba2}[name]
        state = {} if options.state is None else {"state": options.state}
        if name == "lru":
            state = {"state": options.state or features}
        return kind(features, dtype=dtype, **state)
    return Recurrent(
        name,
        options.hidden or features,
        options.switch if is_selective(name) else None,
        backend=options.backend,
        dtype=dtype,
    )
