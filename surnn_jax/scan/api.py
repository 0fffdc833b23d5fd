"""Runs a unit over sequences; all arguments are checked here, and nowhere below."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.names import unknown
from surnn_jax.scan import auto, sequence, sharding, switching
from surnn_jax.scan.backends import BACKENDS
from surnn_jax.scan.chunked import chunked
from surnn_jax.scan.sequence import BatchAxes, as_arrays
from surnn_jax.scan.spec import ScanInputs, ScanSpec
from surnn_jax.scan.start import Start, start_of
from surnn_jax.scan.unit import SelectiveCarry, Unit
from surnn_jax.typing import Array, Carry, Params


class ScanOutput(NamedTuple):
    """What :func:`run` returns.

    Attributes:
        outputs: ``[T, *batch, H]``, the field ``h`` of every carry; zeros beyond the lengths.
        carry: the carry after the last step, to go on from; ``[*batch, H]`` a field.
        carries: the carry of the cell after every step, ``[T, *batch, H]`` a field.
        rate: scalar, the share of open switches among valid steps. Differentiable with respect to
            the switch, through the surrogate, so that a loss can penalise it. Without a switch:
            the rate of a cell that decides for itself (a field `open` in its carry), else 1.
        update_mask: 1 where a neuron updates, 0 where it holds (in between for a soft switch), in
            the order of the outputs: ``[T, H]`` if the batch shares it, else ``[T, *batch, H]``;
            None without a switch. No gradient.
        balance: scalar of value 0, whose gradient is the correction of the switch's thresholds: to
            be added to the loss, see :attr:`surnn_jax.switches.Rhythm.balance`. Without a gradient
            if the switch has no such rule.

    Examples:
        >>> from surnn_jax import run, selective
        >>> unit, x = selective("gru", None), jnp.ones((5, 2, 3))
        >>> result = run(unit, unit.init(jax.random.key(0), x, features=4), x)
        >>> result.outputs.shape, result.carry.h.shape, float(result.rate), result.update_mask
        ((5, 2, 4), (2, 4), 1.0, None)
    """

    outputs: Array
    carry: Carry
    carries: Carry
    rate: Array
    update_mask: Array | None
    balance: Array


def run(
    unit: Unit,
    params: Params,
    x: Array,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    keep_order: bool = False,
    carry: Carry | None = None,
    reset_carry: Carry | None = None,
    backend: str = "auto",
    chunk: int | None = None,
    dtype: Any = None,
    key: Array | None = None,
) -> ScanOutput:
    """Runs a unit over a batch of sequences.

    Inside ``jax.set_mesh(mesh)``, if the mesh has an axis ``data`` that divides the batch, every
    device runs its own rows (:mod:`.sharding`). Its axes may be Explicit, as by default, or Auto.
    On Explicit ones outputs, carries and masks are sharded as the steps and the batch of `x`.

    Args:
        unit: what to run, see :func:`surnn_jax.selective`.
        params: its parameters.
        x: ``[T, *batch, D]``, any number of batch axes, none included. It may be nested lists, as
            lengths, mask and resets may.
        lengths: integers ``[*batch]``: beyond them the state is held and outputs are zero, so
            padding, whatever it contains, changes nothing; length 0 returns the initial carry.
        mask: booleans ``[T, *batch]``: if False, the state is held and the input is not read;
            time goes on.
        resets: booleans ``[T, *batch]``: if True, a new sequence begins with this step: the
            state starts from `reset_carry` and its clock from 0, so that several sequences packed
            into one row give what each gives alone.
        reverse: run from the end (of each sequence) to its beginning.
        keep_order: with `reverse`, return outputs in the order of `x`.
        carry: the carry to start from, as an earlier call returned it; None to begin. The state
            alone will do, as Flax writes it: a tuple ``(c, h)``, or an array for a cell of one
            field; the clock then begins. Its clock has the batch axes, or is a scalar
            (:func:`.share_clock`). To differentiate by a carry with a clock, an integer, pass
            ``allow_int=True`` to `jax.grad`.
        reset_carry: the carry of the cell from which a sequence begins, ``[H]`` or ``[*batch, H]``
            a field, for example learned; None for zeros.
        backend: one of :data:`BACKENDS`, or ``"auto"`` for the choice of :func:`.auto.choose`. It
            affects speed, and results only by rounding.
        chunk: steps whose carries are stored at a time for the gradient, the others computed anew
            (:func:`.chunked.chunked`); None for all.
        dtype: operands of matrix products are rounded to it (for example ``jnp.bfloat16``);
            sums and the state stay in the parameters' dtype, float32 at least. None for no
            rounding.
        key: a random key, in training; only a random switch reads it
            (:attr:`surnn_jax.switches.Switch.random`), and takes the expectation without one.

    Returns:
        A :class:`ScanOutput`.

    Raises:
        ValueError: for shapes or dtypes that do not fit, or an unknown back end.

    Examples:
        >>> from surnn_jax import run, selective, switches
        >>> unit = selective("gru", switches.every(6, n=2))
        >>> x = jax.random.normal(jax.random.key(0), (6, 2, 3))  # [T, B, D]
        >>> params = unit.init(jax.random.key(1), x, features=4)
        >>> result = run(unit, params, x, lengths=jnp.array([6, 3]))
        >>> result.outputs.shape, result.update_mask[:, 0].astype(int).tolist()
        ((6, 2, 4), [1, 0, 1, 0, 1, 0])
        >>> bool((result.outputs[1] == result.outputs[0]).all())  # held, bit for bit
        True
        >>> bool((result.outputs[3:, 1] == 0).all())  # padding
        True
    """
    _check_options(backend, chunk, dtype)
    x, lengths, mask, resets = as_arrays(x, lengths, mask, resets)
    _check_arrays(unit, params, x, lengths, mask, resets)
    options = _Options(unit, reverse, keep_order, backend, chunk, dtype)
    arrays = (params, x, lengths, mask, resets, carry, reset_carry, key)
    mesh = sharding.explicit_mesh(arrays)
    if mesh is None:
        return _run(options, *arrays)
    # Outside `jit`, JAX has no Auto axes.
    on_mesh = _run_on_mesh if switching.is_hashable(unit) else _run_on_mesh.__wrapped__
    return on_mesh(options, mesh, arrays)


class _Options(NamedTuple):
    """The arguments of :func:`run` that are part of what is compiled."""

    unit: Unit
    reverse: bool
    keep_order: bool
    backend: str
    chunk: int | None
    dtype: Any


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _run_on_mesh(options: _Options, mesh, arrays: tuple) -> ScanOutput:
    """:func:`_run` on a mesh with Explicit axes: results are sharded as steps and batch of `x`."""
    x = arrays[1]
    steps, *batch, _ = (*jax.typeof(x).sharding.spec, *(None,) * x.ndim)[: x.ndim]
    rows = jax.P(steps, *batch)

    def specs(found: ScanOutput) -> ScanOutput:
        mask = found.update_mask
        return ScanOutput(
            outputs=rows,
            carry=jax.tree.map(
                lambda leaf: jax.P(*batch) if leaf.ndim >= len(batch) else jax.P(), found.carry
            ),
            carries=jax.tree.map(lambda _: rows, found.carries),
            rate=jax.P(),
            update_mask=None if mask is None else rows if mask.ndim == x.ndim else jax.P(),
            balance=jax.P(),
        )

    return sharding.with_auto_axes(mesh, functools.partial(_run, options), arrays, specs)


def _run(
    options: _Options,
    params: Params,
    x: Array,
    lengths: Array | None,
    mask: Array | None,
    resets: Array | None,
    carry: Carry | None,
    reset_carry: Carry | None,
    key: Array | None,
) -> ScanOutput:
    """:func:`run` with checked arguments."""
    unit, reverse, keep_order, backend, chunk, dtype = options
    axes = BatchAxes(x.shape[1:-1])
    sequences = sequence.prepare(x, lengths, mask, resets, reverse)
    start = start_of(unit, params, carry, reset_carry, axes)
    position = sequence.positions(sequences, start.clock)
    memory = switching.memory(unit, sequences, start.previous, position)
    seen = switching.switch_inputs(
        unit, sequences, memory, start.previous, position, key, start.features
    )
    logits = switching.logits(unit, params, seen)

    operands = unit.cell.carry_dtype(params["cell"]) if dtype is None else dtype
    spec = ScanSpec(unit.cell, None if unit.switch is None else unit.switch.gate, operands)
    inputs = ScanInputs(
        params=unit.cell.expanded(params["cell"]),
        x=sequences.x,
        logits=logits,
        initial_carry=start.carry,
        reset_carry=start.reset_carry,
        step_mask=sequences.step_mask,
        resets=sequences.resets,
    )
    scan = _scan_function(unit, spec, inputs, backend, chunk)
    carries = sharding.shard_scan(scan, spec, inputs)

    last = jax.tree.map(lambda s, c: c[-1] if x.shape[0] else s, start.carry, carries)
    end = end_carry(unit, sequences, memory, start, position, last, axes)
    rate, update_mask = switching.rate_and_mask(unit, sequences, logits, carries)
    balance = switching.balance(unit, params, sequences, seen, update_mask)
    outputs = carries.h
    if sequences.valid is not None:
        outputs = jnp.where(sequences.valid[..., None], outputs, 0)
    if keep_order and sequences.order is not None:
        outputs, carries = (sequence.permute(tree, sequences.order) for tree in (outputs, carries))
        update_mask = switching.mask_in_order(update_mask, sequences)
    if update_mask is not None and update_mask.ndim == 3:
        update_mask = axes.unflatten(update_mask, 1)
    if dtype is not None:
        outputs = outputs.astype(dtype)
    outputs, carries = axes.unflatten(outputs, 1), axes.unflatten(carries, 1)
    return ScanOutput(outputs, end, carries, rate, update_mask, balance)


def step(
    unit: Unit,
    params: Params,
    carry: Carry,
    x: Array,
    *,
    resets: Array | None = None,
    reset_carry: Carry | None = None,
    dtype: Any = None,
) -> tuple[Carry, Array]:
    """One step, for streaming: the same numbers as the sequence call.

    The clock of a carry is an int32 that switches read as unsigned: schedules stay exact for 2**32
    steps.

    Args:
        unit: what to run.
        params: its parameters.
        carry: from ``unit.initial_carry`` or the step before; None to begin.
        x: ``[*batch, D]``.
        resets: booleans ``[*batch]``: if True, a new sequence begins with this step.
        reset_carry: as in :func:`run`.
        dtype: as in :func:`run`.

    Returns:
        The next carry and the output ``[*batch, H]``.

    Examples:
        >>> from surnn_jax import run, selective, step, switches
        >>> unit = selective("gru", switches.every(6, n=2))
        >>> x = jax.random.normal(jax.random.key(0), (6, 2, 3))
        >>> params = unit.init(jax.random.key(1), x, features=4)
        >>> carry = None
        >>> for frame in x:
        ...     carry, h = step(unit, params, carry, frame)
        >>> bool(jnp.allclose(h, run(unit, params, x).outputs[-1], atol=1e-6))
        True
    """
    x, resets = as_arrays(x, resets)
    now = None if resets is None else resets[None]
    one = run(unit, params, x[None], carry=carry, resets=now, reset_carry=reset_carry, dtype=dtype)
    return one.carry, one.outputs[0]


def _check_options(backend: str, chunk: int | None, dtype: Any) -> None:
    if backend not in (*BACKENDS, "auto"):
        raise unknown("back end", backend, ("auto", *BACKENDS))
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 step, or None, got {chunk}")
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype must be floating point, got {jnp.dtype(dtype)}")


def _check_arrays(unit, params, x, lengths, mask, resets) -> None:
    unit.check_params(params)
    width = next(iter(params["cell"]["input"].values())).shape[0]
    if x.ndim < 2 or x.shape[-1] != width:
        raise ValueError(
            f"inputs must have shape [T, *batch, {width}] for these parameters, got {x.shape}"
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"inputs must be floating point, got {x.dtype}")
    batch = x.shape[1:-1]
    fits = lengths is None or lengths.shape == batch
    if not fits or (lengths is not None and not jnp.issubdtype(lengths.dtype, jnp.integer)):
        raise ValueError(
            f"lengths must be integers of shape {batch}, "
            f"got {lengths.dtype} of shape {lengths.shape}"
        )
    for name, value in (("mask", mask), ("resets", resets)):
        if value is not None and (value.shape != x.shape[:-1] or value.dtype != jnp.bool_):
            raise ValueError(
                f"{name} must be booleans of shape {x.shape[:-1]}, "
                f"got {value.dtype} of shape {value.shape}"
            )


def _scan_function(unit, spec: ScanSpec, inputs: ScanInputs, backend: str, chunk: int | None):
    """The scan of the back end asked for, in chunks if asked for."""
    if backend == "auto":
        shape = inputs.scan_shape()
        local = shape.batch // sharding.shards(shape.batch)
        choice = auto.choose(unit, shape.features, shape.steps, local, dtype=spec.dtype)
        backend = choice.backend
    scan = BACKENDS[backend].scan
    if backend == "reference":  # its loop is for reading and stepping through
        return scan if chunk is None else chunked(scan, chunk)
    return _compiled(scan, chunk)


@functools.cache
def _compiled(scan, chunk: int | None):
    """A scan that is compiled once for a spec and sizes, also where calls are not jitted.

    A loop whose body is a closure would be compiled anew at every call outside `jit`. Inside, it
    is inlined and changes nothing.
    """
    whole = scan if chunk is None else chunked(scan, chunk)
    return jax.jit(whole, static_argnums=0, inline=True)


def end_carry(
    unit: Unit,
    sequences: sequence.Sequences,
    memory: Array | None,
    start: Start,
    position: Array,
    last: Carry,
    axes: BatchAxes,
) -> Carry:
    """The carry after the last step, with its batch axes.

    Args:
        unit: the unit.
        sequences: the batch.
        memory: of :func:`.switching.memory`.
        start: where it began.
        position: integers ``[T]`` or ``[T, B]``, the clock.
        last: the carry of the cell.
        axes: of the batch.
    """
    end = axes.unflatten(last, 0)
    if unit.switch is None:
        return end
    previous = start.previous
    if memory is not None:
        previous = sequence.at_the_end(sequences, memory, previous)
    clock = sequence.advance(sequences, start.clock, position)
    if clock.ndim:
        clock = clock.reshape(axes.shape)
    elif not start.shared:
        clock = jnp.broadcast_to(clock, axes.shape)
    return SelectiveCarry(end, clock, axes.unflatten(previous, 0))
