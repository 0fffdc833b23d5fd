"""The recurrent layer as a native NNX module."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from surnn_jax import cells, layers, scan
from surnn_jax.layers.calibration import COLLECTION
from surnn_jax.nnx.parameters import Unit, check_sizes
from surnn_jax.switches import Switch
from surnn_jax.typing import Array, Carry


class Recurrent(Unit):
    """Runs a unit over a sequence: `nnx.RNN` and its cell in one, with a switch.

    ``nnx.Recurrent(8, 64, "gru", rngs=rngs)`` is called like
    ``nnx.RNN(nnx.GRUCell(8, 64, rngs=rngs))``, alone or inside `nnx.Bidirectional`. It needs no
    data to be made. An event switch is set for inputs of mean 0 and variance 1 then;
    :func:`surnn_jax.nnx.calibrate` sets it by a real batch.

    The parameters are those of :class:`surnn_jax.layers.Recurrent`: `variables` gives them as
    that layer takes them.

    A random switch (zoneout) and `recurrent_dropout` draw if `rngs` has a stream "dropout", until
    ``model.eval()``; otherwise, and in :meth:`step`, the expectation is taken.

    Attributes:
        layer: the linen layer; it holds the options and no arrays.
        in_features: D.
        features: H.
        params: the parameters, a tree of `nnx.Param`.
        rngs: a stream of keys for what is random, or None.
        deterministic: whether the expectation is taken in any case.

    Examples:
        >>> from flax import nnx
        >>> import surnn_jax.nnx
        >>> from surnn_jax.switches import fourier
        >>> layer = surnn_jax.nnx.Recurrent(3, 4, "gru", fourier(50), rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((2, 5, 3))).shape
        (2, 5, 4)
        >>> carry, h = layer.step(layer.initial_carry((2,)), jnp.ones((2, 3)))  # a stream
        >>> h.shape
        (2, 4)
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        cell: str | cells.Cell = "gru",
        switch: str | Switch | None = None,
        *,
        time_major: bool = False,
        return_carry: bool = False,
        return_run: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        learn_carry: bool = False,
        backend: str = "auto",
        chunk: int | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        recurrent_dropout: float = 0.0,
        gate_fn: Callable | None = None,
        activation_fn: Callable | None = None,
        kernel_init: nnx.initializers.Initializer | None = None,
        recurrent_kernel_init: nnx.initializers.Initializer | None = None,
        bias_init: nnx.initializers.Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        """Draws the parameters; options as the attributes of :class:`surnn_jax.layers.Recurrent`.

        Raises:
            TypeError: if a size is no whole number.
            ValueError: if a size is not positive, or there is no cell or switch of that name.
        """
        check_sizes(in_features, features)
        layer = layers.Recurrent(
            cell,
            features,
            switch,
            time_major=time_major,
            return_carry=return_carry,
            return_run=return_run,
            reverse=reverse,
            keep_order=keep_order,
            learn_carry=learn_carry,
            backend=backend,
            chunk=chunk,
            dtype=dtype,
            param_dtype=param_dtype,
            recurrent_dropout=recurrent_dropout,
            gate_fn=gate_fn,
            activation_fn=activation_fn,
            kernel_init=kernel_init,
            recurrent_kernel_init=recurrent_kernel_init,
            bias_init=bias_init,
        )
        random = layer.switch is not None and layer.switch.random
        super().__init__(layer, in_features, rngs, random or recurrent_dropout > 0)
        self.calibrating = False

    def __call__(
        self,
        inputs: Array | tuple[Array, Array],
        mask: Array | None = None,
        *,
        initial_carry: Carry | None = None,
        seq_lengths: Array | None = None,
        resets: Array | None = None,
        return_carry: bool | None = None,
        return_run: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> Array | tuple[Carry, Array] | scan.ScanOutput:
        """Runs the unit; arguments and result as :meth:`surnn_jax.layers.Recurrent.__call__`.

        `rngs` is ignored; `nnx.Bidirectional` passes it.
        """
        del rngs
        given = {
            "initial_carry": initial_carry,
            "seq_lengths": seq_lengths,
            "resets": resets,
            "return_carry": return_carry,
            "return_run": return_run,
            "time_major": time_major,
            "reverse": reverse,
            "keep_order": keep_order,
        }
        if self.calibrating:
            self._set_thresholds(inputs, mask, given)
        return self.layer.apply(self.variables, inputs, mask, **given, rngs=self._keys())

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """The carry from which a stream begins."""
        return self.layer.apply(self.variables, batch_shape, method="initial_carry")

    def step(self, carry: Carry, inputs: Array, resets: Array | None = None) -> tuple[Carry, Array]:
        """One step of a stream; arguments and result as :meth:`surnn_jax.layers.Recurrent.step`."""
        return self.layer.apply(self.variables, carry, inputs, resets, method="step")

    @property
    def has_thresholds(self) -> bool:
        """Whether the switch reads the input, so that :func:`.calibrate` can set it."""
        switch = self.layer.switch
        return switch is not None and type(switch).calibrated is not Switch.calibrated

    @property
    def num_feature_axes(self) -> int:
        """One: D."""
        return 1

    def _set_thresholds(self, inputs: Any, mask: Any, given: dict[str, Any]) -> None:
        self.calibrating = False  # By the first call only.
        variables = self.variables
        _, state = self.layer.apply(variables, inputs, mask, **given, mutable=[COLLECTION])
        for name, value in state.get(COLLECTION, {}).get("switch", {}).items():
            self.params["switch"][name][...] = value
