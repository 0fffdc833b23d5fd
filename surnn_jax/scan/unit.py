"""A unit: a cell, and the switch that decides when it updates."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import JaxprTracer

from surnn_jax import cells, switches
from surnn_jax.cells.cell import state_dtype
from surnn_jax.names import unknown
from surnn_jax.scan import sharding
from surnn_jax.scan.sequence import as_arrays
from surnn_jax.switches import Switch, SwitchInputs, running_averages
from surnn_jax.typing import Array, Carry, Params


class SelectiveCarry(NamedTuple):
    """What a selective unit carries from step to step.

    Attributes:
        cell: the carry of the cell.
        clock: int32 ``[*batch]``: steps since the start of the sequence. Switches read it as
            unsigned, so it counts to 2**32. A scalar says that the batch shares it, see
            :func:`share_clock`.
        previous: ``[B, D]``, the last input, if the switch reads it; ``[B, K D]``, averages of the
            inputs, if it reads K of them; else None.

    Examples:
        >>> from surnn_jax import selective, switches
        >>> unit, x = selective("lstm", switches.every(5)), jnp.ones((5, 2, 3))
        >>> carry = unit.initial_carry(unit.init(jax.random.key(0), x, features=4), (2,))
        >>> carry.cell.c.shape, carry.cell.h.shape, carry.clock.tolist(), carry.previous
        ((2, 4), (2, 4), [0, 0], None)
    """

    cell: Carry
    clock: Array
    previous: Array | None


@dataclasses.dataclass(frozen=True)
class Unit:
    """What :func:`surnn_jax.scan.run` runs. Make it with :func:`selective`.

    Attributes:
        cell: what a step computes.
        switch: when each neuron updates; None for every neuron at every step.

    Examples:
        >>> from surnn_jax import selective, switches
        >>> unit = selective("gru", switches.fourier(horizon=100))
        >>> params = unit.init(jax.random.key(0), jnp.ones((5, 2, 3)), features=4)
        >>> sorted(params), sorted(params["switch"])
        (['cell', 'switch'], ['alpha', 'b', 'phi', 'theta'])
    """

    cell: cells.Cell
    switch: Switch | None = None

    def init(
        self,
        key: Array,
        x: Array,
        features: int,
        dtype: Any = jnp.float32,
        lengths: Array | None = None,
    ) -> Params:
        """Draws the parameters ``{"cell": …}``, or ``{"cell": …, "switch": …}`` if it has any.

        Args:
            key: a JAX random key.
            x: ``[T, *batch, D]``, a batch of inputs. An event switch sets its thresholds by it,
                so pass real data; everything else reads its width only.
            features: H, the number of neurons.
            dtype: of the parameters.
            lengths: integers ``[*batch]``: steps beyond them are ignored.

        Raises:
            ValueError: if `features` or the width of `x` is not positive.
        """
        x, lengths = as_arrays(x, lengths)
        first, second = jax.random.split(key)
        params = {"cell": self.cell.init(first, x.shape[-1], features, dtype)}
        if self.switch is not None and self.switch.has_parameters:
            params["switch"] = self.init_switch(second, x, features, dtype, lengths)
        return params

    def init_switch(
        self,
        key: Array,
        x: Array,
        features: int,
        dtype: Any = jnp.float32,
        lengths: Array | None = None,
        mask: Array | None = None,
    ) -> Params:
        """The switch's part of :meth:`init`, float32 at least; `mask` as :func:`.run` takes it."""
        dtype = state_dtype(jnp.dtype(dtype))
        if isinstance(x, JaxprTracer):  # `lazy_init` of Flax knows no more than the shape
            x, lengths, mask = jnp.zeros(x.shape, x.dtype), None, None
        x, lengths, mask = sharding.whole(x, lengths, mask)  # thresholds are those of all rows
        size = math.prod(x.shape[1:-1])
        x = x.reshape(x.shape[0], size, x.shape[-1])
        t = jnp.arange(x.shape[0], dtype=jnp.int32)
        valid = None if mask is None else mask.reshape(x.shape[0], size)
        if lengths is not None:
            within = t[:, None] < jnp.asarray(lengths, jnp.int32).reshape(1, size)
            valid = within if valid is None else valid & within
        if valid is not None:
            x = jnp.where(valid[..., None], x, 0)
        previous = inputs_before(self.switch, x, t, dtype)
        seen = SwitchInputs(x, previous, t, valid, features=features)
        return self.switch.init(key, seen, features, dtype)

    def check_params(self, params: Params) -> None:
        """Checks that parameters have the entries of this unit.

        Raises:
            ValueError: naming the first that is missing.
        """
        if "cell" not in params:
            raise ValueError(
                f"the parameters of a unit have an entry 'cell', got {sorted(params)}; those of a "
                "layer are variables['params']"
            )
        if self.switch is not None and self.switch.has_parameters and "switch" not in params:
            raise ValueError("the unit has a switch, but its parameters have no entry 'switch'")
        cell = self.cell
        vectors = [name for name, _ in cell.vectors]
        for kind, names in (
            ("input", cell.inputs),
            ("recurrent", (*cell.recurrent, *cell.inner_recurrent)),
            ("vector", vectors),
        ):
            if missing := [n for n in names if n not in params["cell"].get(kind, {})]:
                raise ValueError(
                    f"the parameters are those of another cell than {cell.name}: {kind!r} has no "
                    f"{', '.join(missing)}"
                )

    def initial_carry(self, params: Params, batch_shape: tuple[int, ...] = ()) -> Carry:
        """A carry of zeros at time 0, with leading axes `batch_shape`."""
        kernel = next(iter(params["cell"]["input"].values()))
        return self.zero_carry(batch_shape, *kernel.shape, kernel.dtype)

    def zero_carry(
        self, batch_shape: tuple[int, ...], inputs: int, features: int, dtype: Any
    ) -> Carry:
        """:meth:`initial_carry` for parameters of these sizes and dtype."""
        state = self.cell.zero_carry((*batch_shape, features), dtype)
        if self.switch is None:
            return state
        previous = None
        if self.switch.uses_previous_input:
            width = inputs * max(1, len(self.switch.averages))
            previous = jnp.zeros((*batch_shape, width), state.h.dtype)
        return SelectiveCarry(state, jnp.zeros(batch_shape, jnp.int32), previous)


SELECTIVE = "su"
"""Prefix of a cell's name: ``sugru`` is the cell ``gru`` with a switch."""


def parts(
    cell: str | cells.Cell, switch: str | Switch | None = None
) -> tuple[str | cells.Cell, Switch | None]:
    """Cell and switch of a unit that may be given by names.

    Args:
        cell: a cell or its name; ``"sugru"`` is the cell ``"gru"`` with the switch ``"fourier"`` if
            no other one is given.
        switch: a switch or its name, see :func:`surnn_jax.switches.get`.

    Returns:
        The cell as given, without the prefix, and the switch.

    Raises:
        ValueError: if there is no such cell or switch.

    Examples:
        >>> from surnn_jax import scan
        >>> scan.parts("sugru", "event")[0]
        'gru'
    """
    switch = switches.get(switch)
    if isinstance(cell, str) and cell not in cells.CELLS:
        plain = cell.removeprefix(SELECTIVE)
        if plain == cell or plain not in cells.CELLS:
            raise unknown("cell", cell, [*cells.CELLS, *(SELECTIVE + name for name in cells.CELLS)])
        return plain, switches.get("fourier") if switch is None else switch
    cells.get(cell)
    return cell, switch


def selective(cell: str | cells.Cell, switch: str | Switch | None = None) -> Unit:
    """Any cell in its selective form: suRNN, suGRU, suLSTM.

        h[t] = h[t-1] + g[t] ∘ (f(h[t-1], x[t]) - h[t-1])

    for every field of the carry, so that an LSTM freezes c and h together. Where g = 0 the old
    value is kept bit for bit (arXiv 2603.02226).

    Args:
        cell: a cell or its name; with the prefix ``su`` it has the switch ``fourier`` if no other
            one is given.
        switch: when each neuron updates, or the name of a switch; None for the plain cell.

    Raises:
        ValueError: if there is no cell or switch of that name.

    Examples:
        >>> from surnn_jax import selective, switches
        >>> selective("lstm", switches.fourier(horizon=100)).cell.name
        'lstm'
        >>> selective("gru", None).switch is None
        True
    """
    cell, switch = parts(cell, switch)
    return Unit(cells.get(cell), switch)


def share_clock(tree: Any) -> Any:
    """Carries whose rows are all at the same step, with one scalar clock for the batch.

    Clocks of a row each may differ, so a switch of time makes a table for each, ``[T, B, H]``. If
    they are known to be equal, as in a stream that is read batch after batch, a scalar clock keeps
    one table for all, ``[T, H]``. A run that is given one returns one, unless it has lengths or
    resets, so a stream needs this once, at its start.

    Args:
        tree: any pytree with :class:`SelectiveCarry` in it; only the first row's clock is read.

    Examples:
        >>> from surnn_jax import selective, switches
        >>> from surnn_jax.scan import share_clock
        >>> unit, x = selective("gru", switches.every(5)), jnp.ones((5, 2, 3))
        >>> carry = unit.initial_carry(unit.init(jax.random.key(0), x, features=4), (2,))
        >>> carry.clock.shape, share_clock(carry).clock.shape
        ((2,), ())
    """

    def shared(leaf):
        if not isinstance(leaf, SelectiveCarry):
            return leaf
        return leaf._replace(clock=jnp.asarray(leaf.clock).reshape(-1)[0])

    return jax.tree.map(shared, tree, is_leaf=lambda leaf: isinstance(leaf, SelectiveCarry))


def inputs_before(switch: Switch, x: Array, position: Array, dtype: Any) -> Array:
    """`SwitchInputs.previous` of sequences that begin with ``x [T, B, D]``, averages in `dtype`."""
    width = x.shape[-1] * max(1, len(switch.averages))
    nothing = jnp.zeros((x.shape[1], width), dtype)
    return previous_inputs(running_averages(switch.averages, x, nothing, position), nothing)


def previous_inputs(x: Array, first: Array) -> Array:
    """The input one step before each, ``[T, ...]``; `first` before the first."""
    return jnp.concatenate([first[None].astype(x.dtype), x], axis=0)[:-1]
