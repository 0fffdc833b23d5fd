"""The branch of a block as one step with a state, so that all of it can rest: formulas and twin."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax.cells import Cell
from surnn_jax.layers.feed_forward import normed_feed_forward
from surnn_jax.scan.adjoint import select
from surnn_jax.switches import Surrogate
from surnn_jax.typing import Array, Carry, Params


@dataclasses.dataclass(frozen=True)
class Branch:
    """The static part of a block that rests as a whole; hashable.

    Attributes:
        cell: of its recurrent unit.
        surrogate: how logits open it.
        features: M, width of the block.
        hidden: width of the feed-forward layer; 0 for none.
        fits: whether the unit's output is as wide as the block, so that no product follows.
        dropout: share of both outputs that is dropped; 0 if not in training.
        dtype: operands of products are rounded to it; None for not at all.
    """

    cell: Cell
    surrogate: Surrogate
    features: int
    hidden: int
    fits: bool
    dropout: float
    dtype: Any

    def read(self, params: Params, x: Array) -> Array:
        """What the unit (and its switch) reads, ``[..., M]``: the norm of the block's input."""
        return nn.LayerNorm(use_bias=False, parent=None).apply({"params": params["norm"]}, x)

    def write(self, params: Params, x: Array, h: Array, key: Array | None, at: Any) -> Array:
        """What the branch adds to the block's input, from the unit's new state.

        Args:
            params: of the block.
            x: ``[..., M]``.
            h: ``[..., H]``.
            key: of the dropout, or None.
            at: integers ``(step, row)`` of every vector, of the leading shape of x.
        """
        y = h if self.dtype is None else h.astype(self.dtype)
        if not self.fits:
            out = nn.Dense(self.features, dtype=self.dtype, parent=None)
            y = out.apply({"params": params["out"]}, y)
        keep = self._kept(key, at, x)
        y = y.astype(x.dtype) if keep is None else keep[0] * y.astype(x.dtype)
        if self.hidden:
            more = normed_feed_forward(params, x + y, self.hidden, self.dtype).astype(x.dtype)
            y = y + (more if keep is None else keep[1] * more)
        return y

    def _kept(self, key, at, x):
        """The factors of the dropout, ``[2, ..., M]``: the same for a step, whoever computes it."""
        if not self.dropout or key is None:
            return None
        step, row = (jnp.broadcast_to(n, x.shape[:-1]).reshape(-1) for n in at)

        def draw(step, row):
            own = jax.random.fold_in(jax.random.fold_in(key, step), row)
            return jax.random.bernoulli(own, 1 - self.dropout, (2, self.features))

        keep = jax.vmap(draw)(step, row).reshape(*x.shape[:-1], 2, self.features)
        return jnp.moveaxis(keep, -2, 0).astype(x.dtype) / (1 - self.dropout)


class BranchInputs(NamedTuple):
    """The arrays of a block that rests as a whole.

    Attributes:
        params: of the block; those of the cell as :meth:`.Cell.expanded` gives them.
        x: ``[B, T, M]``.
        logits: of the one schedule, ``[T]`` or ``[T, B]``.
        carry: of the cell before the first step, ``[B, H]`` a field.
        held: what the branch added at the last step, ``[B, M]``.
        reset_carry: the carry of the cell after a reset.
        valid: booleans ``[T, B]``, False beyond the lengths; None for all.
        resets: booleans ``[T, B]``; None for no reset.
        key: of the dropout; None for none.
    """

    params: Params
    x: Array
    logits: Array
    carry: Carry
    held: Array
    reset_carry: Carry
    valid: Array | None = None
    resets: Array | None = None
    key: Array | None = None


class BranchOutputs(NamedTuple):
    """What a block that rests returns.

    Attributes:
        outputs: ``[B, T, M]``.
        carry: of the cell after the last step.
        held: what the branch added at the last step.
    """

    outputs: Array
    carry: Carry
    held: Array


def twin(branch: Branch, inputs: BranchInputs) -> BranchOutputs:
    """The block with every step computed and masked; JAX differentiates it as often as asked."""
    params, x, logits, carry, held, reset_carry, valid, resets, key = inputs
    steps, batch = x.shape[1], x.shape[0]
    g = branch.surrogate(logits.astype(carry.h.dtype))
    g = jnp.broadcast_to(g[:, None] if g.ndim == 1 else g, (steps, batch))
    weights = branch.surrogate.row_weights(batch, g.dtype)
    if weights is not None:
        fixed = jax.lax.stop_gradient(g)
        g = fixed + weights[None] * (g - fixed)
    if valid is not None:
        g = jnp.where(valid, g, 0)
    cell, rows = branch.cell, jnp.arange(batch)

    def step(state, now):
        carry, held = state
        t, x, g, reset = now
        if reset is not None:
            carry = select(reset, reset_carry, carry)
            held = jnp.where(reset[:, None], 0, held)
        candidate = cell.step(params["mixer"], carry, branch.read(params, x), branch.dtype)
        added = branch.write(params, x, candidate.h, key, (t, rows))
        mixed = jax.tree.map(
            lambda new, old: _mix(g[:, None].astype(old.dtype), new, old),
            (candidate, added),
            (carry, held),
        )
        return mixed, x + mixed[1]

    over = (jnp.arange(steps), jnp.swapaxes(x, 0, 1), g, resets)
    (carry, held), outputs = jax.lax.scan(step, (carry, held), over)
    return BranchOutputs(jnp.swapaxes(outputs, 0, 1), carry, held)


def _mix(g: Array, candidate: Array, old: Array) -> Array:
    # A closed step's candidate may be anything.
    broken = (g == 0) & ~jnp.isfinite(candidate)
    return g * jnp.where(broken, old, candidate) + (1 - g) * old
