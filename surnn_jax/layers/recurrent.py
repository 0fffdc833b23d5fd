"""The recurrent layer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax import cells, scan
from surnn_jax.layers.calibration import calibrated_params, is_calibrating, shown
from surnn_jax.layers.unit_cell import UnitOptions, as_floating, unit_params
from surnn_jax.scan import sharding
from surnn_jax.scan.sequence import as_arrays
from surnn_jax.switches import Switch
from surnn_jax.typing import Array, Carry, Params


class Recurrent(UnitOptions):
    """Runs a unit over a sequence: `nn.RNN` and its cell in one, with a switch.

    ``Recurrent("gru", 64)`` is called like ``nn.RNN(nn.GRUCell(64))``, alone or inside
    `nn.Bidirectional`. It accepts every argument of `nn.RNN` but the options that lift variables.

    Unlike `nn.RNN` it returns the initial carry for a sequence of length 0 and zeros beyond the end
    of a sequence, takes lengths with any number of batch axes and a mask with the input, and can
    compute in bfloat16 with a float32 carry.

    A random switch (zoneout) and `recurrent_dropout` draw if `apply` is given a key named
    "dropout". Without one, and in :meth:`step`, the expectation is taken.

    `init` sets the thresholds of an event switch by its input, so pass a real batch, or call
    :func:`.calibrate` later. A dummy of zeros or ones is recognised, and the thresholds are then
    set for inputs of mean 0 and variance 1.

    Attributes:
        cell: a cell or its name, see :data:`surnn_jax.cells.CELLS`; with the prefix ``su``
            (``sugru``) it has the switch ``fourier`` if no other one is given.
        features: H, the number of neurons.
        switch: when each neuron updates, or the name of a switch, which then has its defaults and
            a horizon of 1,024 steps; None for always.
        time_major: inputs and outputs are ``[T, *batch, …]`` instead of ``[*batch, T, …]``.
        return_carry: return ``(carry, outputs)``.
        return_run: return a :class:`surnn_jax.ScanOutput`: outputs, carry, all carries, update
            rate and update mask.
        reverse: run from the end of each sequence to its beginning.
        keep_order: with `reverse`, outputs in the order of the inputs.
        learn_carry: the carry from which sequences begin is a parameter (zeros at first).
        backend: how to scan, see :data:`surnn_jax.scan.BACKENDS`.
        chunk: steps whose carries are kept at a time for the gradient; None for all.
        dtype: operands of products are rounded to it, outputs returned in it; None for neither.
        param_dtype: of the parameters; the carry has it too, float32 at least.
        recurrent_dropout: share of the recurrent weights that are 0 in training, for a whole call
            and all of its batch; the others are divided by what is left (DropConnect, as in
            AWD-LSTM, Merity et al. 2018, arXiv 1708.02182). In [0, 1).
        gate_fn: in place of the logistic function, as a Flax cell's; see :func:`.cells.variant`.
        activation_fn: in place of tanh, likewise.
        kernel_init: draws the input kernels, likewise.
        recurrent_kernel_init: draws the recurrent kernels, likewise.
        bias_init: draws the biases, likewise.
        unroll: accepted because `nn.RNN` has it, and ignored: looping is the back end's affair.

    Examples:
        >>> from surnn_jax.layers import Recurrent
        >>> from surnn_jax.switches import event
        >>> layer = Recurrent("gru", 4, event(horizon=50), return_run=True)
        >>> x = jax.random.normal(jax.random.key(0), (2, 50, 3))  # [B, T, D]
        >>> variables = layer.init(jax.random.key(1), x)
        >>> run = layer.apply(variables, x, seq_lengths=jnp.array([50, 20]))
        >>> run.outputs.shape, run.carry.cell.h.shape, run.update_mask.shape
        ((2, 50, 4), (2, 4), (2, 50, 4))
        >>> carry = layer.apply(variables, (2,), method="initial_carry")
        >>> carry, h = layer.apply(variables, carry, x[:, 0], method="step")  # a stream
        >>> bool(jnp.allclose(h, run.outputs[:, 0], atol=1e-6))
        True
    """

    cell: str | cells.Cell
    features: int
    switch: str | Switch | None = None
    time_major: bool = False
    return_carry: bool = False
    return_run: bool = False
    reverse: bool = False
    keep_order: bool = False
    learn_carry: bool = False
    backend: str = "auto"
    chunk: int | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32
    recurrent_dropout: float = 0.0
    unroll: int = 1

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.recurrent_dropout < 1:
            raise ValueError(f"recurrent_dropout must lie in [0, 1), got {self.recurrent_dropout}")

    def initialize_carry(self, rng: Array | None, input_shape: tuple[int, ...]) -> Carry:
        """There is none: it tells those who pass the layer to `nn.RNN` what to do.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "Recurrent runs whole sequences by itself: call it in place of nn.RNN, or give nn.RNN "
            "the cell UnitCell(…)"
        )

    @nn.compact
    def __call__(
        self,
        inputs: Array | tuple[Array, Array],
        mask: Array | None = None,
        *,
        initial_carry: Carry | None = None,
        init_key: Array | None = None,
        seq_lengths: Array | None = None,
        resets: Array | None = None,
        return_carry: bool | None = None,
        return_run: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Array | tuple[Carry, Array] | scan.ScanOutput:
        """Runs the unit. Arguments override the attributes of the same name.

        Args:
            inputs: ``[*batch, T, D]``, or ``(inputs, mask)`` where a container passes one
                argument only. Integers are taken as floating point.
            mask: booleans ``[*batch, T]`` (``[T, *batch]`` if time-major): where false the carry
                holds and the input is not read.
            initial_carry: the carry that an earlier call returned; None to begin.
            init_key: ignored; `nn.Bidirectional` passes it.
            seq_lengths: integers ``[*batch]``.
            resets: booleans like `mask`: where true a new sequence begins.
            return_carry: as the attribute; it also overrides the attribute `return_run`.
            return_run: as the attribute.
            time_major: as the attribute.
            reverse: as the attribute.
            keep_order: as the attribute.

        Returns:
            Outputs ``[*batch, T, H]``, ``(carry, outputs)`` or a `ScanOutput` in the same layout.

        Raises:
            ValueError: for shapes that do not fit, an unknown cell or back end.
        """
        del init_key
        if isinstance(inputs, tuple):
            if mask is not None:
                raise ValueError("mask is given twice: with the inputs and by name")
            if len(inputs) != 2:
                raise ValueError(f"inputs must be an array or (inputs, mask), got {len(inputs)}")
            inputs, mask = inputs
        inputs, mask, resets, seq_lengths = as_arrays(inputs, mask, resets, seq_lengths)
        inputs = as_floating(inputs, self.param_dtype)
        if inputs.ndim < 2:
            raise ValueError(f"inputs must have shape [*batch, T, D], got {inputs.shape}")

        time_major = value_or_default(time_major, self.time_major)
        for what, rows in (("mask", mask), ("resets", resets)):
            if rows is not None and (rows.shape != inputs.shape[:-1] or rows.dtype != jnp.bool_):
                raise ValueError(
                    f"{what} must be booleans of shape {inputs.shape[:-1]}, "
                    f"got {rows.dtype} of shape {rows.shape}"
                )
        if not time_major:
            inputs = jnp.moveaxis(inputs, -2, 0)
            mask, resets = (None if m is None else jnp.moveaxis(m, -1, 0) for m in (mask, resets))

        unit = self.unit
        chance = self.switch is not None and self.switch.random and self.has_rng("dropout")
        batch = inputs.shape[1:-1]
        if seq_lengths is not None and seq_lengths.shape != batch:
            raise ValueError(f"seq_lengths must have shape {batch}, got {seq_lengths.shape}")
        reverse = value_or_default(reverse, self.reverse)
        params = unit_params(self, unit, inputs, seq_lengths, mask)
        if is_calibrating(self) and "switch" in params:
            given = sharding.whole(inputs, seq_lengths, mask, resets)
            seen = shown(self.switch, *given, reverse)
            params["switch"] = calibrated_params(self, params["switch"], seen)
        if self.recurrent_dropout and not unit.cell.recurrent:
            raise ValueError(f"recurrent_dropout: {unit.cell.name} has no recurrent weights")
        if self.recurrent_dropout and self.has_rng("dropout"):
            params = {**params, "cell": self._dropped(params["cell"])}
        result = scan.run(
            unit,
            params,
            inputs,
            lengths=seq_lengths,
            mask=mask,
            resets=resets,
            reverse=reverse,
            keep_order=value_or_default(keep_order, self.keep_order),
            carry=initial_carry,
            reset_carry=self._reset_carry(unit),
            backend=self.backend,
            chunk=self.chunk,
            dtype=self.dtype,
            key=self.make_rng("dropout") if chance else None,
        )
        if not time_major:
            result = _batch_major(result)
        if value_or_default(return_run, self.return_run and return_carry is None):
            return result
        if value_or_default(return_carry, self.return_carry):
            return result.carry, result.outputs
        return result.outputs

    @nn.compact
    def draw(self, inputs: Array) -> None:
        """Makes the parameters and runs nothing: ``init(key, inputs, method="draw")``.

        Args:
            inputs: ``[T, *batch, D]``; an event switch sets its thresholds by them.
        """
        unit_params(self, self.unit, inputs)
        self._reset_carry(self.unit)

    def _dropped(self, params: Params) -> Params:
        """The cell's parameters with some of the recurrent weights 0."""
        kept, kernels = 1 - self.recurrent_dropout, params["recurrent"]
        keys = jax.random.split(self.make_rng("dropout"), len(kernels))
        kernels = {
            name: jnp.where(jax.random.bernoulli(key, kept, kernel.shape), kernel / kept, 0)
            for key, (name, kernel) in zip(keys, kernels.items(), strict=True)
        }
        return {**params, "recurrent": kernels}

    def _reset_carry(self, unit: scan.Unit) -> Carry | None:
        if not self.learn_carry:
            return None

        def zero_carry(key):
            del key
            return unit.cell.zero_carry((self.features,), self.param_dtype)._asdict()

        return unit.cell.carry(**self.param("carry", zero_carry))

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """The carry from which a stream begins; call by ``apply(…, method="initial_carry")``."""
        unit, params = self._bound()
        carry = unit.initial_carry(params, batch_shape)
        if not self.learn_carry:
            return carry
        learned = unit.cell.carry(**params["carry"])
        state = carry if self.switch is None else carry.cell
        state = jax.tree.map(
            lambda new, old: jnp.broadcast_to(
                new.astype(old.dtype).reshape((1,) * len(batch_shape) + new.shape), old.shape
            ),
            learned,
            state,
        )
        return state if self.switch is None else carry._replace(cell=state)

    def step(self, carry: Carry, inputs: Array, resets: Array | None = None) -> tuple[Carry, Array]:
        """One step of a stream, the same numbers as the sequence call gives.

        Call by ``apply(variables, carry, x, method="step")``.

        Args:
            carry: from :meth:`initial_carry`, the step before, or a sequence call.
            inputs: ``[*batch, D]``.
            resets: booleans ``[*batch]``: where true a new sequence begins with this step.

        Returns:
            The next carry and the output ``[*batch, H]``.
        """
        unit, params = self._bound()
        if carry is None:
            raise ValueError("a step needs a carry; initial_carry gives the first")
        learned = unit.cell.carry(**params["carry"]) if self.learn_carry else None
        inputs = as_floating(inputs, self.param_dtype)
        return scan.step(
            unit, params, carry, inputs, resets=resets, reset_carry=learned, dtype=self.dtype
        )

    @property
    def num_feature_axes(self) -> int:
        """One: D."""
        return 1

    def _bound(self):
        if self.scope is None:
            raise ValueError(
                "the layer has no variables here: call layer.apply(variables, …, method='step') "
                "(or method='initial_carry')"
            )
        params = self.variables.get("params")
        if not params:
            raise ValueError("the layer has no parameters yet: call init with a sequence first")
        return self.unit, params


def value_or_default(now: bool | None, otherwise: bool) -> bool:
    """An argument of a call, or the attribute if it is None."""
    return otherwise if now is None else now


def _batch_major(result: scan.ScanOutput) -> scan.ScanOutput:
    def turn(leaf):
        return jnp.moveaxis(leaf, 0, -2)

    update_mask = result.update_mask
    if update_mask is not None and update_mask.ndim == result.outputs.ndim:
        update_mask = turn(update_mask)
    return result._replace(
        outputs=turn(result.outputs),
        carries=jax.tree.map(turn, result.carries),
        update_mask=update_mask,
    )
