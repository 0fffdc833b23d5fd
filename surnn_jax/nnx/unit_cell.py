"""Our units as a native NNX cell, for `nnx.RNN` and `nnx.Bidirectional`."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from surnn_jax import cells, layers
from surnn_jax.layers.unit_cell import drawn_carry
from surnn_jax.nnx.parameters import Unit, check_sizes
from surnn_jax.switches import Switch
from surnn_jax.typing import Array, Carry


class UnitCell(Unit, nnx.RNNCellBase):
    """One unit as an NNX cell: ``carry, output = cell(carry, x)``.

    What :class:`surnn_jax.layers.UnitCell` is for linen, with the same parameters::

        nnx.RNN(UnitCell(10, 64, "gru", rngs=nnx.Rngs(0)))

    It computes step by step; :class:`.Recurrent` runs the same unit faster, and can be calibrated.
    An event switch is set for independent inputs of unit variance. A random switch (zoneout) draws
    if `rngs` has a stream "dropout", until ``model.eval()``, and otherwise takes the expectation.

    Attributes:
        layer: the linen cell; it holds the options and no arrays.
        in_features: D.
        features: H.
        params: the parameters, a tree of `nnx.Param`.
        rngs: a stream of keys for a random switch, or None.
        deterministic: whether the expectation is taken in any case.

    Examples:
        >>> from flax import nnx
        >>> import surnn_jax.nnx
        >>> cell = surnn_jax.nnx.UnitCell(3, 4, "sugru", rngs=nnx.Rngs(0))
        >>> nnx.RNN(cell)(jnp.ones((2, 5, 3))).shape
        (2, 5, 4)
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        cell: str | cells.Cell = "gru",
        switch: str | Switch | None = None,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        gate_fn: Callable | None = None,
        activation_fn: Callable | None = None,
        kernel_init: nnx.initializers.Initializer | None = None,
        recurrent_kernel_init: nnx.initializers.Initializer | None = None,
        bias_init: nnx.initializers.Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        """Draws the parameters; options as the attributes of :class:`surnn_jax.layers.UnitCell`.

        Raises:
            TypeError: if a size is no whole number.
            ValueError: if a size is not positive, or there is no cell or switch of that name.
        """
        check_sizes(in_features, features)
        layer = layers.UnitCell(
            cell,
            features,
            switch,
            dtype=dtype,
            param_dtype=param_dtype,
            gate_fn=gate_fn,
            activation_fn=activation_fn,
            kernel_init=kernel_init,
            recurrent_kernel_init=recurrent_kernel_init,
            bias_init=bias_init,
        )
        random = layer.switch is not None and layer.switch.random
        super().__init__(layer, in_features, rngs, random)

    def __call__(self, carry: Carry, inputs: Array) -> tuple[Carry, Array]:
        """One step.

        Args:
            carry: from :meth:`initialize_carry` or the step before; the state alone will do.
            inputs: ``[*batch, D]``; integers are taken as floating point.

        Returns:
            The next carry and the output ``[*batch, H]``.
        """
        return self.layer.apply(self.variables, carry, inputs, rngs=self._keys())

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
        carry = self.layer.initialize_carry(None, input_shape)
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
