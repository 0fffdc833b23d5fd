"""Run a unit over a sequence: the one border at which everything is checked."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.scan import auto, compact, masked, native, pallas, reference, rows, sharding
from surnn_jax.scan.chunked import chunked
from surnn_jax.scan.unit import SelectiveCarry, Unit, before
from surnn_jax.switches import SwitchInputs, for_neurons
from surnn_jax.typing import Array, Carry, Params

BACKENDS = {
    "reference": reference.scan,
    "masked": masked.scan,
    "compact": compact.scan,
    "rows": rows.scan,
    "native": native.scan,
    "pallas": pallas.scan,
}
"""Every back end by its name: one contract (:func:`surnn_jax.scan.reference.scan`), one answer."""


class ScanOutput(NamedTuple):
    """What :func:`run` returns.

    Attributes:
        outputs: ``[T, *batch, H]``, the field ``h`` of every carry; zeros beyond the lengths.
        carry: the carry after the last step, to go on from; ``[*batch, H]`` a field.
        carries: the carry of the cell after every step, ``[T, *batch, H]`` a field.
        rate: scalar, the share of open switches among valid steps. Differentiable, by the
            surrogate, with respect to the switch: put a penalty on it. Without a switch, that of
            a cell that decides for itself (a field `open` in its carry), else 1.
        table: the switches, ``[T, H]`` where the batch shares them, else ``[T, *batch, H]``, in
            the order of the outputs; None without a switch. No gradient.
    """

    outputs: Array
    carry: Carry
    carries: Carry
    rate: Array
    table: Array | None


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
    fresh: Carry | None = None,
    backend: str = "auto",
    chunk: int | None = None,
    dtype: Any = None,
    key: Array | None = None,
) -> ScanOutput:
    """Runs a unit over a batch of sequences.

    Inside ``jax.set_mesh(mesh)``, of a mesh with an axis ``data`` that divides the batch, every
    device runs its own rows (:mod:`.devices`).

    Args:
        unit: what to run, see :func:`surnn_jax.selective`.
        params: its parameters.
        x: ``[T, *batch, D]``, any number of batch axes, none included.
        lengths: integers ``[*batch]``: beyond them the state is held and outputs are zero, so
            padding, whatever it contains, changes nothing; length 0 returns the initial carry.
        mask: booleans ``[T, *batch]``: where false the state is held and the input not looked at;
            time goes on.
        resets: booleans ``[T, *batch]``: where true a new sequence begins with this step: the
            state starts anew from `fresh` and its clock from 0, so that several sequences packed
            in one row give what each gives alone.
        reverse: run from the end (of each sequence) to its beginning.
        keep_order: with `reverse`, return outputs in the order of `x`.
        carry: the carry to start from, as an earlier call returned it; None to start at rest.
        fresh: the carry of the cell from which a sequence begins, ``[H]`` or ``[*batch, H]`` a
            field, for example learned; None for zeros.
        backend: one of :data:`BACKENDS`, or ``"auto"`` for what :func:`.auto.choose` says. They
            differ in speed, and in rounding, alone.
        chunk: steps whose carries are kept at a time for the gradient, the others computed anew
            (:func:`.chunked.chunked`); None for all.
        dtype: operands of matrix products are rounded to it (for example ``jnp.bfloat16``);
            sums and the state stay in the parameters' dtype, float32 at least. None for no
            rounding.
        key: a random key, in training; only a switch that draws by chance looks at it
            (:attr:`surnn_jax.switches.Switch.random`), and without one takes the expectation.

    Returns:
        A :class:`Run`.

    Raises:
        ValueError: for shapes or dtypes that do not fit, or an unknown back end.
    """
    if backend not in (*BACKENDS, "auto"):
        raise ValueError(f"unknown back end {backend!r}; one of: auto, {', '.join(BACKENDS)}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 step, or None, got {chunk}")
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype must be floating point, got {jnp.dtype(dtype)}")
    batch = _check(unit, params, x, lengths, mask, resets)
    steps, size = x.shape[0], math.prod(batch)
    flat = _Flat(batch, size)
    if backend == "auto":
        features = unit.cell.features(params["cell"])
        operands = unit.cell.carry_dtype(params["cell"]) if dtype is None else dtype
        local = size // sharding.shards(size)
        backend = auto.choose(unit, features, steps, local, dtype=operands).backend

    x = x.reshape(steps, size, x.shape[-1])
    mask, resets = flat.rows(mask), flat.rows(resets)
    lengths = None if lengths is None else jnp.asarray(lengths, jnp.int32).reshape(size)

    state = unit.initial_carry(params, (size,))
    rest = state if unit.switch is None else state.cell
    if fresh is not None:
        rest = jax.tree.map(
            lambda f, z: jnp.broadcast_to(
                f.astype(z.dtype).reshape((1, -1) if f.ndim == 1 else z.shape), z.shape
            ),
            fresh,
            rest,
        )
    start, clock, previous = rest, jnp.zeros((), jnp.int32), None
    if unit.switch is not None:
        previous = state.previous
    if carry is not None:
        carry = _like(unit, carry, state, batch)
        start = carry
        if unit.switch is not None:
            start, clock, previous = carry

    if lengths is not None:
        inside = jnp.arange(steps, dtype=jnp.int32)[:, None] < lengths[None, :]
        resets = None if resets is None else resets & inside
    if reverse:
        order = _reversed(steps, size, lengths)
        x, mask = _permute(x, order), _permute(mask, order)
        if resets is not None:  # a sequence ends where the next begins
            resets = _permute(jnp.concatenate([resets[1:], resets[:1] & False]), order)

    keep = mask
    if lengths is not None:
        keep = inside if keep is None else keep & inside
    if keep is not None:  # what is not looked at may be anything, NaN included
        x = jnp.where(keep[..., None], x, 0)

    position = _positions(steps, clock, resets)
    logits = gate = None
    if unit.switch is not None:
        gate = unit.switch.gate
        past = None
        if unit.switch.looks_back:
            past = before(x, previous)
            if resets is not None:
                past = jnp.where(resets[..., None], 0, past)
        features = state.cell.h.shape[-1]
        seen = SwitchInputs(x, past, position, keep, key if unit.switch.random else None, features)
        logits = for_neurons(unit.switch.logits(params["switch"], seen), features)
        if unit.switch.frozen:
            logits = jax.lax.stop_gradient(logits)

    compute = jnp.dtype(dtype) if dtype is not None else unit.cell.carry_dtype(params["cell"])
    scan = BACKENDS[backend] if chunk is None else chunked(BACKENDS[backend], chunk)
    carries = sharding.shard_scan(
        scan,
        (unit.cell, gate, compute),
        (unit.cell.expanded(params["cell"]), x, logits, start, rest, keep, resets),
    )

    last = jax.tree.map(lambda s, c: c[-1] if steps else s, start, carries)
    end = flat.unfold(last, 0)
    if unit.switch is not None:
        if unit.switch.looks_back and steps:
            at = jnp.full((size,), steps) if lengths is None else jnp.minimum(lengths, steps)
            latest = jnp.take_along_axis(x, jnp.maximum(at - 1, 0)[None, :, None], axis=0)[0]
            previous = jnp.where((at > 0)[:, None], latest.astype(previous.dtype), previous)
        end = SelectiveCarry(
            end, _advance(clock, position, steps, lengths, batch), flat.unfold(previous, 0)
        )

    rate, table = jnp.ones((), start.h.dtype), None
    if unit.switch is not None:
        opened = gate(logits)
        rate = _rate(opened, keep, size)
        table = jax.lax.stop_gradient(opened)
    elif "open" in carries._fields:
        rate = _rate(carries.open, keep, size)
    outputs = carries.h
    if lengths is not None:
        outputs = jnp.where(inside[..., None], outputs, 0)
    if reverse and keep_order:
        outputs, carries = (_permute(tree, order) for tree in (outputs, carries))
        if table is not None:
            if table.ndim == 2 and lengths is not None:
                table = jnp.broadcast_to(table[:, None], (steps, size, table.shape[-1]))
            table = _permute(table, order)
    if table is not None and table.ndim == 3:
        table = flat.unfold(table, 1)
    if dtype is not None:
        outputs = outputs.astype(compute)
    return ScanOutput(flat.unfold(outputs, 1), end, flat.unfold(carries, 1), rate, table)


def step(
    unit: Unit,
    params: Params,
    carry: Carry,
    x: Array,
    *,
    fresh: Carry | None = None,
    dtype: Any = None,
) -> tuple[Carry, Array]:
    """One step, for streaming: the same numbers as the sequence call.

    Args:
        unit: what to run.
        params: its parameters.
        carry: from ``unit.initial_carry`` or the step before.
        x: ``[*batch, D]``.
        fresh: as in :func:`run`; only :func:`run` resets, so here it is the state of rest.
        dtype: as in :func:`run`.

    Returns:
        The next carry and the output ``[*batch, H]``.
    """
    one = run(unit, params, x[None], carry=carry, fresh=fresh, dtype=dtype)
    return one.carry, one.outputs[0]


class _Flat(NamedTuple):
    """Any number of batch axes as one, and back."""

    batch: tuple[int, ...]
    size: int

    def rows(self, tree: Array | None) -> Array | None:
        return None if tree is None else tree.reshape(tree.shape[0], self.size)

    def unfold(self, tree: Any, axis: int) -> Any:
        return jax.tree.map(
            lambda leaf: leaf.reshape(*leaf.shape[:axis], *self.batch, *leaf.shape[axis + 1 :]),
            tree,
        )


def _check(unit, params, x, lengths, mask, resets) -> tuple[int, ...]:
    width = next(iter(params["cell"]["input"].values())).shape[0]
    if x.ndim < 2 or x.shape[-1] != width:
        raise ValueError(
            f"inputs must have shape [T, *batch, {width}] for these parameters, got {x.shape}"
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"inputs must be floating point, got {x.dtype}")
    if unit.switch is not None and "switch" not in params:
        raise ValueError("the unit has a switch, but its parameters have no entry 'switch'")
    batch = x.shape[1:-1]
    if lengths is not None:
        lengths = jnp.asarray(lengths)
        if lengths.shape != batch or not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise ValueError(
                f"lengths must be integers of shape {batch}, "
                f"got {lengths.dtype} of shape {lengths.shape}"
            )
    for what, given in (("mask", mask), ("resets", resets)):
        if given is not None and (given.shape != x.shape[:-1] or given.dtype != jnp.bool_):
            raise ValueError(
                f"{what} must be booleans of shape {x.shape[:-1]}, "
                f"got {given.dtype} of shape {given.shape}"
            )
    return batch


def _like(unit: Unit, carry: Carry, state: Carry, batch: tuple[int, ...]) -> Carry:
    """A given carry with its batch axes flattened, checked against the state of rest."""
    wanted, given = type(state), type(carry)
    if wanted is not given:
        raise ValueError(f"carry must be a {wanted.__name__}, got {given.__name__}")

    def fit(path, leaf, rest):
        shape = (*batch, *rest.shape[1:])
        if leaf.shape != shape:
            raise ValueError(
                f"carry{jax.tree_util.keystr(path)} must have shape {shape}, got {leaf.shape}"
            )
        return leaf.reshape(rest.shape).astype(rest.dtype)

    fitted = jax.tree_util.tree_map_with_path
    if unit.switch is None:
        return fitted(fit, carry, state)
    clock = jnp.asarray(carry.clock)
    if clock.shape not in ((), batch):
        raise ValueError(f"carry.clock must have shape () or {batch}, got {clock.shape}")
    return SelectiveCarry(
        fitted(fit, carry.cell, state.cell),
        clock if clock.ndim == 0 else clock.reshape(-1),
        fitted(fit, carry.previous, state.previous),
    )


def _reversed(steps: int, size: int, lengths: Array | None) -> Array:
    """Which step to take next ``[T, B]`` or ``[T]``; its own inverse."""
    back = jnp.arange(steps, dtype=jnp.int32)[::-1]
    if lengths is None:
        return back
    # Within the length counted from its end; padding stays behind, in any order.
    return (back[:, None] - (steps - jnp.minimum(lengths, steps))[None, :]) % max(steps, 1)


def _permute(tree: Any, order: Array) -> Any:
    def along(leaf):
        if order.ndim == 1:
            return leaf[order]
        index = order.reshape(*order.shape, *(1,) * (leaf.ndim - 2))
        return jnp.take_along_axis(leaf, index, axis=0)

    return jax.tree.map(along, tree)


def _positions(steps: int, clock: Array, resets: Array | None) -> Array:
    """Steps since the start of the sequence, ``[T]`` if shared by the batch, else ``[T, B]``."""
    t = jnp.arange(steps, dtype=jnp.int32)
    if resets is None:
        return t + clock if clock.ndim == 0 else t[:, None] + clock[None, :]
    last = jax.lax.cummax(jnp.where(resets, t[:, None], -1), axis=0)
    running = t[:, None] + (clock if clock.ndim == 0 else clock[None, :])
    return jnp.where(last >= 0, t[:, None] - last, running)


def _advance(clock, position, steps, lengths, batch):
    """The clock after the last valid step."""
    if steps == 0:
        return clock if clock.ndim == 0 else clock.reshape(batch)
    if lengths is None:
        after = position[-1] + 1
    else:
        size = lengths.shape[0]
        whole = jnp.broadcast_to(position.reshape(steps, -1), (steps, size))
        at = jnp.minimum(lengths, steps)
        final = jnp.take_along_axis(whole, jnp.maximum(at - 1, 0)[None], axis=0)[0]
        after = jnp.where(at > 0, final + 1, jnp.broadcast_to(clock, (size,)))
    return after if after.ndim == 0 else after.reshape(batch)


def _rate(opened: Array, keep: Array | None, size: int) -> Array:
    if keep is None:
        return opened.mean() if opened.size else jnp.zeros((), opened.dtype)
    weight = keep.astype(opened.dtype)
    total = jnp.maximum(weight.sum(), 1) * opened.shape[-1]
    if opened.ndim == 2:
        return (opened.sum(-1) * weight.sum(-1)).sum() / total
    return (opened.sum(-1) * weight).sum() / total
