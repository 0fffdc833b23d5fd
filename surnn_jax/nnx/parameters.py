"""What the NNX modules share: parameters as variables, and keys for what is random."""

from typing import Any

import jax
from flax import linen, nnx

from surnn_jax.layers.unit_cell import noise
from surnn_jax.typing import Array, Params


class Unit(nnx.Module):
    """An NNX module with the parameters of a linen one.

    Attributes:
        layer: the linen module; it holds the options and no arrays.
        in_features: D.
        features: H.
        params: the parameters, a tree of `nnx.Param`; that of the linen module.
        rngs: a stream of keys for what is random, or None.
        deterministic: whether a random switch takes the expectation although there is a stream;
            ``model.eval()`` sets it, ``model.train()`` unsets it.
    """

    layer: Any

    def __init__(self, layer: linen.Module, in_features: int, rngs: nnx.Rngs, random: bool):
        """Draws the parameters.

        Args:
            layer: the linen module.
            in_features: D.
            rngs: with the stream "params", and "dropout" for what is random.
            random: whether anything is.

        Raises:
            ValueError: if a size is not positive.
        """
        self.layer, self.in_features, self.features = layer, in_features, layer.features
        drawn = layer.init(rngs.params(), noise(in_features), method="draw")["params"]
        self.params = nnx.data(jax.tree.map(nnx.Param, drawn))
        self.rngs = rngs.dropout.fork() if random and "dropout" in rngs else nnx.data(None)
        self.deterministic = False

    # A property, since `nnx.tabulate` shows a row for every method that is called.
    @property
    def variables(self) -> dict[str, Params]:
        """``{"params": …}`` as the linen module takes it."""

        def is_param(leaf: Any) -> bool:
            return isinstance(leaf, nnx.Param)

        return {"params": jax.tree.map(lambda leaf: leaf[...], self.params, is_leaf=is_param)}

    def _keys(self) -> dict[str, Array] | None:
        """Those for `apply` of the linen module; None if nothing is to be drawn."""
        if self.rngs is None or self.deterministic:
            return None
        return {"dropout": self.rngs()}


def check_sizes(in_features: int, features: int) -> None:
    """Names what stands in the place of a size.

    Raises:
        TypeError: one is no whole number, such as the name of a cell.
    """
    for what, size in (("in_features", in_features), ("features", features)):
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(
                f"{what} must be a whole number, got {size!r}; the order is "
                "(in_features, features, cell, switch)"
            )
