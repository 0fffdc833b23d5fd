"""Our units as a native NNX cell, for `nnx.RNN` and `nnx.Bidirectional`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from surnn_jax import cells, scan
from surnn_jax.layers.unit_cell import as_floating, drawn_carry, noise
from surnn_jax.switches import Switch
from surnn_jax.typing import Array, Carry


class NNXUnitCell(nnx.RNNCellBase):
    """One unit as an NNX cell: ``carry, output = cell(carry, x)``.

    What :class:`.UnitCell` is for linen, with the same parameters below `params`::

        nnx.RNN(NNXUnitCell("gru", 10, 64, rngs=nnx.Rngs(0)))

    It computes step by step. For the back ends that skip, wrap the layer instead:
    ``nnx.bridge.ToNNX(Recurrent("gru", 64, switch), rngs=nnx.Rngs(0)).lazy_init(x)``. An event
    switch sets its thresholds for independent inputs of unit variance. A random switch (zoneout)
    draws if `rngs` has a stream "dropout", and otherwise takes the expectation.

    Attributes:
        unit: the cell and its switch.
        in_features: D.
        features: H.
        dtype: operands of products are rounded to it, outputs returned in it; None for neither.
        param_dtype: of the parameters; the carry has it too, float32 at least.
        params: the parameters, a tree of `nnx.Param`.
        rngs: the stream of a random switch, or None.
    """

    def __init__(
        self,
        cell: str | cells.Cell,
        in_features: int,
        features: int,
        switch: Switch | None = None,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Draws the parameters.

        Args:
            cell: a cell or its name, see :data:`surnn_jax.cells.CELLS`.
            in_features: D.
            features: H.
            switch: when each neuron updates; None for always.
            dtype: see the class.
            param_dtype: see the class.
            rngs: with the stream "params", and "dropout" for a random switch.

        Raises:
            ValueError: if a size is not positive, or there is no cell of that name.
        """
        self.unit = scan.selective(cell, switch)
        self.in_features, self.features = in_features, features
        self.dtype, self.param_dtype = dtype, param_dtype
        drawn = self.unit.init(rngs.params(), noise(in_features), features, param_dtype)
        self.params = nnx.data(jax.tree.map(nnx.Param, drawn))
        draws = switch is not None and switch.random and "dropout" in rngs
        self.rngs = rngs.dropout.fork() if draws else nnx.data(None)

    def __call__(self, carry: Carry, inputs: Array) -> tuple[Carry, Array]:
        """One step.

        Args:
            carry: from :meth:`initialize_carry` or the step before; the state alone will do.
            inputs: ``[*batch, D]``; integers are taken as floating point.

        Returns:
            The next carry and the output ``[*batch, H]``.
        """
        params = jax.tree.map(
            lambda leaf: leaf[...], self.params, is_leaf=lambda leaf: isinstance(leaf, nnx.Param)
        )
        x = as_floating(inputs, self.param_dtype)[None]
        key = None if self.rngs is None else self.rngs()
        one = scan.run(self.unit, params, x, carry=carry, dtype=self.dtype, key=key)
        return one.carry, one.outputs[0]

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: nnx.initializers.Initializer | None = None,
    ) -> Carry:
        """The first carry for inputs of shape ``[*batch, D]``: zeros, or drawn by `carry_init`.

        Raises:
            ValueError: if `carry_init` is given without `rngs`.
        """
        *batch, inputs = input_shape
        carry = self.unit.zero_carry(tuple(batch), inputs, self.features, self.param_dtype)
        if carry_init is None:
            return carry
        if rngs is None:
            raise ValueError("carry_init needs rngs to draw from")
        stream = rngs.carry if isinstance(rngs, nnx.Rngs) else rngs
        return drawn_carry(carry, stream(), carry_init)

    @property
    def num_feature_axes(self) -> int:
        """One: D."""
        return 1
