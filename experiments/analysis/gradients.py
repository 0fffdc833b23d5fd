"""How far back the gradient of a trained unit reaches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax import scan
from surnn_jax.typing import Array, Carry, Params


class Reach(NamedTuple):
    """How strongly the loss depends on the state at earlier steps.

    Attributes:
        times: integers ``[N]``, the steps t that were looked at, the last step not among them.
        norms: ``[N, B]``, |∂L/∂h[t]| of each example; NaN if its sequence has ended by then.
        last: ``[B]``, the same at the last step of each example.
    """

    times: np.ndarray
    norms: np.ndarray
    last: np.ndarray

    @property
    def relative(self) -> np.ndarray:
        """``[N]``, |∂L/∂h[t]| / |∂L/∂h[last]|, the median over examples; NaN if none is left."""
        ratio = self.norms / np.where(self.last > 0, self.last, np.nan)
        found = np.full(len(ratio), np.nan)
        known = ~np.isnan(ratio).all(1)
        found[known] = np.nanmedian(ratio[known], axis=1)
        return found


def gradient_reach(
    unit: scan.Unit,
    params: Params,
    x: Array,
    loss: Callable[[Array, Carry], Array],
    *,
    times: int = 32,
    lengths: Array | None = None,
    carry: Carry | None = None,
    backend: str = "auto",
    dtype: Any = None,
) -> Reach:
    """The norm of ∂L/∂h[t] over t, by one forward and one backward pass.

    The scan is cut at about `times` steps; at each cut something is added to the carry and to
    the output it stands for, and the gradient is taken by that at 0. So it is the whole effect
    of h[t]: through the output at t, and through all later states. The norm is
    over all fields of the carry (an LSTM's c too).

    Args:
        unit: the recurrent unit; in a deep model one layer, with the layers above it in `loss`.
        params: its parameters.
        x: ``[T, B, D]``, its inputs.
        loss: of the outputs ``[T, B, H]`` (zeros beyond the lengths) and the carry after the
            last step: a scalar.
        times: how many steps to look at, the last among them; fewer if T does not divide.
        lengths: integers ``[B]`` or None.
        carry: to start from; None for the state of rest.
        backend: as :func:`surnn_jax.scan.run` takes it.
        dtype: as :func:`surnn_jax.scan.run` takes it.

    Raises:
        ValueError: shapes that do not fit, or a loss that the last state does not influence.
    """
    if x.ndim != 3 or not x.shape[0]:
        raise ValueError(f"x must have shape [T, B, D] with T at least 1, got {x.shape}")
    if times < 1:
        raise ValueError(f"times must be at least 1, got {times}")
    (steps, batch), features = x.shape[:2], unit.cell.features(params["cell"])
    every = -(-steps // times)
    cuts = (steps - 1) // every
    split = cuts * every
    ends = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    if ends.shape != (batch,) or ((ends < 0) | (ends > steps)).any():
        raise ValueError(f"lengths must be [{batch}] and lie in 0..{steps}, got {ends.tolist()}")
    inside = jnp.asarray(np.arange(steps)[:, None] < ends)
    rows, finals = jnp.arange(batch), jnp.asarray(np.maximum(ends - 1, 0))

    def run(params, carry, x, inside):
        # A mask, not lengths: with those every example would get a clock of its own.
        mask = None if lengths is None else inside
        return scan.run(unit, params, x, mask=mask, carry=carry, backend=backend, dtype=dtype)

    def moved(carry, by):
        if unit.switch is None:
            return jax.tree.map(jnp.add, carry, by)
        return carry._replace(cell=jax.tree.map(jnp.add, carry.cell, by))

    def total(shifts, shift, params, x, carry):
        def piece(carry, now):
            x, inside, by = now
            found = run(params, carry, x, inside)
            outputs = found.outputs.at[-1].add(by.h.astype(found.outputs.dtype))
            return moved(found.carry, by), outputs

        pieces = [leaf[:split].reshape(cuts, every, *leaf.shape[1:]) for leaf in (x, inside)]
        carry, before = jax.lax.scan(piece, carry, (*pieces, shifts))
        rest = run(params, carry, x[split:], inside[split:])
        outputs = jnp.concatenate([before.reshape(split, batch, features), rest.outputs])
        outputs = outputs.at[finals, rows].add(shift.h.astype(outputs.dtype))
        # Beyond its end the state of an example is held, so the last one may be moved here.
        return loss(jnp.where(inside[..., None], outputs, 0), moved(rest.carry, shift))

    start = carry
    if carry is None:  # all examples begin at step 0: one clock, one table
        start = scan.share_clock(unit.initial_carry(params, (batch,)))
    still = unit.cell.carry_dtype(params["cell"])
    zeros = [unit.cell.zero_carry((*shape, features), still) for shape in ((cuts, batch), (batch,))]
    slopes = jax.jit(jax.grad(total, argnums=(0, 1)))(*zeros, params, x, start)
    norms, last = (_norm(tree) for tree in slopes)
    if not (last > 0).any():
        raise ValueError("the loss does not depend on the state after the last step")
    at = every * np.arange(1, cuts + 1) - 1
    return Reach(at, np.where(at[:, None] < ends, norms, np.nan), last)


def _norm(tree: Any) -> np.ndarray:
    # In float64: the square of a small gradient is 0 in float32.
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.sqrt(sum(np.square(leaf).sum(-1) for leaf in leaves))
