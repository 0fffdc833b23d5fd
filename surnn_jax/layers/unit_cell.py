"""Our units as linen cells, for stock `nn.RNN` and `nn.Bidirectional`."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax import cells, scan
from surnn_jax.cells.cell import state_dtype
from surnn_jax.switches import Switch
from surnn_jax.typing import Array, Carry, Params

_SAMPLE = 1024
_ZEROS = nn.initializers.zeros_init()


def as_floating(x: Array, param_dtype: Any) -> Array:
    """Integer or boolean inputs in the dtype of the state, as Flax promotes them; others as is."""
    whole = jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == jnp.bool_
    return x.astype(state_dtype(jnp.dtype(param_dtype))) if whole else x


def unit_params(
    module: nn.Module,
    unit: scan.Unit,
    x: Array,
    lengths: Array | None = None,
    mask: Array | None = None,
) -> Params:
    """The unit's parameters as variables of `module`: one tree for cell and layer.

    Args:
        module: with fields `features` and `param_dtype`, inside a compact method.
        unit: what to run.
        x: ``[T, *batch, D]``; at initialisation an event switch sets its thresholds by it.
        lengths: integers ``[*batch]`` or None.
        mask: booleans ``[T, *batch]`` or None.
    """
    size, dtype = module.features, module.param_dtype
    width = x.shape[-1]
    draws = {"cell": (unit.cell.init, width, size, dtype)}
    if unit.switch is not None and unit.switch.has_parameters:
        if module.has_variable("params", "switch"):  # only shapes are compared, and x may be empty
            x, lengths, mask = jnp.zeros((1, width), x.dtype), None, None
        draws["switch"] = (unit.init_switch, x, size, dtype, lengths, mask)
    params = {}
    for name, (draw, *arguments) in draws.items():
        if module.has_variable("params", name):
            try:
                like = _shapes(unit, name, width, size, dtype, jax.config.jax_enable_x64)
            except TypeError:  # a switch that cannot be hashed
                pass
            else:
                draw, arguments = _zeros, (like,)
        params[name] = module.param(name, draw, *arguments)
    return params


@functools.lru_cache(maxsize=1024)
def _shapes(unit: scan.Unit, name: str, width: int, size: int, dtype: Any, x64: bool) -> Any:
    """Shapes and dtypes of a unit's parameters: Flax traces `init` for them at every call."""
    del x64  # is part of the key
    x = jnp.zeros((1, width), jnp.float32)
    made = jax.eval_shape(lambda key: unit.init(key, x, size, dtype)[name], jax.random.key(0))
    leaves, structure = jax.tree.flatten(made)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def _zeros(key: Array, like: Any) -> Params:
    del key
    structure, leaves = like
    return jax.tree.unflatten(structure, [jnp.zeros(*leaf) for leaf in leaves])


def noise(inputs: int) -> Array:
    """Inputs ``[T, 1, D]`` of unit variance, by which thresholds are set if there is no data."""
    return jax.random.normal(jax.random.key(0), (_SAMPLE, 1, inputs))


def drawn_carry(carry: Carry, key: Array, draw: nn.initializers.Initializer) -> Carry:
    """A carry whose state is drawn, field after field, with keys as Flax splits them."""
    state = carry.cell if isinstance(carry, scan.SelectiveCarry) else carry
    keys = jax.random.split(key, len(state)) if len(state) > 1 else [key]
    fields = (draw(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, state, strict=True))
    state = type(state)(*fields)
    return carry._replace(cell=state) if isinstance(carry, scan.SelectiveCarry) else state


class UnitOptions(nn.Module, kw_only=True):
    """The options of Flax's cells that change a unit; see :func:`surnn_jax.cells.variant`.

    A layer with the fields `cell` and `switch` inherits them, by keyword only.
    """

    gate_fn: Callable | None = None
    activation_fn: Callable | None = None
    kernel_init: nn.initializers.Initializer | None = None
    recurrent_kernel_init: nn.initializers.Initializer | None = None
    bias_init: nn.initializers.Initializer | None = None

    def __post_init__(self):
        self.cell, self.switch = scan.parts(self.cell, self.switch)
        super().__post_init__()
        _ = self.unit  # What the cell does not have is refused now.

    @property
    def unit(self) -> scan.Unit:
        """The unit that the fields describe."""
        cell = cells.variant(
            cells.get(self.cell),
            gate_fn=self.gate_fn,
            activation_fn=self.activation_fn,
            kernel_init=self.kernel_init,
            recurrent_kernel_init=self.recurrent_kernel_init,
            bias_init=self.bias_init,
        )
        return scan.selective(cell, self.switch)

    @nn.compact
    def draw(self, inputs: Array) -> None:
        """Makes the parameters and runs nothing: ``init(key, inputs, method="draw")``.

        Args:
            inputs: ``[T, *batch, D]``; an event switch sets its thresholds by them.
        """
        unit_params(self, self.unit, inputs)


class UnitCell(nn.RNNCellBase, UnitOptions):
    """One unit as a linen cell: ``carry, output = cell(carry, x)``.

    It can be used wherever a Flax cell can. Its parameters are those of :class:`.Recurrent`, which
    runs the same unit faster. Two things differ for an event switch. `nn.RNN` shows a cell no data
    at initialisation, so thresholds are set for independent inputs of unit variance, while the
    layer uses its first batch. And the cell sees one step at a time, so the scale of the surrogate
    is that of the step: outputs are equal, gradients of the switch are scaled differently.

    A random switch (zoneout) draws if the cell is given a key named "dropout", and otherwise takes
    the expectation. `nn.RNN` passes that key on only with this option::

        nn.RNN(UnitCell("gru", 64, zoneout(100)), split_rngs={"params": False, "dropout": True})

    Attributes:
        cell: a cell or its name, see :data:`surnn_jax.cells.CELLS`; with the prefix ``su``
            (``sugru``) it has the switch ``fourier`` if no other one is given.
        features: H, the number of neurons.
        switch: when each neuron updates, or the name of a switch, which then has its defaults and
            a horizon of 1,024 steps; None for always.
        dtype: operands of products are rounded to it, outputs returned in it; None for neither.
        param_dtype: of the parameters; the carry has it too, float32 at least.
        carry_init: how :meth:`initialize_carry` draws the state, as a Flax cell's.
        gate_fn: in place of the logistic function, as a Flax cell's; see :func:`.cells.variant`.
        activation_fn: in place of tanh, likewise.
        kernel_init: draws the input kernels, likewise.
        recurrent_kernel_init: draws the recurrent kernels, likewise.
        bias_init: draws the biases, likewise.

    Examples:
        >>> import flax.linen as nn
        >>> from surnn_jax.layers import UnitCell
        >>> from surnn_jax.switches import fourier
        >>> layer = nn.RNN(UnitCell("gru", 4, fourier(horizon=50)))
        >>> layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0].shape
        (2, 5, 4)
    """

    cell: str | cells.Cell
    features: int
    switch: str | Switch | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32
    carry_init: nn.initializers.Initializer = _ZEROS

    @nn.compact
    def __call__(self, carry: Carry, inputs: Array) -> tuple[Carry, Array]:
        """One step.

        Args:
            carry: from :meth:`initialize_carry` or the step before.
            inputs: ``[*batch, D]``; integers are taken as floating point.

        Returns:
            The next carry and the output ``[*batch, H]``.
        """
        inputs = as_floating(jnp.asarray(inputs), self.param_dtype)
        unit = self.unit
        sample = jnp.zeros((1, inputs.shape[-1]), inputs.dtype)  # read for its width alone
        if not self.has_variable("params", "cell"):  # thresholds are set by independent noise
            sample = noise(inputs.shape[-1])
        params = unit_params(self, unit, sample)
        key = None
        if self._draws and self.has_rng("dropout"):
            key = self.make_rng("dropout")
        one = scan.run(unit, params, inputs[None], carry=carry, dtype=self.dtype, key=key)
        return one.carry, one.outputs[0]

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> Carry:
        """The first carry for inputs of shape ``[*batch, D]``; `rng` is for `carry_init`.

        Raises:
            ValueError: if the switch is random and `nn.RNN` has a key "dropout" but does not pass
                it on.
        """
        kept = isinstance(self.parent, nn.RNN) and "dropout" not in self.parent.split_rngs
        if self._draws and kept and self.has_rng("dropout"):
            raise ValueError(
                f"{type(self.switch).__name__.lower()} draws at every step, but nn.RNN keeps the "
                "key 'dropout' from its cell: construct it with "
                "split_rngs={'params': False, 'dropout': True}"
            )
        *batch, inputs = input_shape
        unit = self.unit
        carry = unit.zero_carry(tuple(batch), inputs, self.features, self.param_dtype)
        return carry if self.carry_init is _ZEROS else drawn_carry(carry, rng, self.carry_init)

    @property
    def _draws(self) -> bool:
        return self.switch is not None and self.switch.random

    @property
    def num_feature_axes(self) -> int:
        """One: D."""
        return 1
