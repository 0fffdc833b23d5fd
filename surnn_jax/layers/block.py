"""Blocks of sequence models: a mixer over time and a gated feed-forward layer, both residual."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from surnn_jax import switches
from surnn_jax.layers import branch_run, fused, mixers, pieces
from surnn_jax.layers.branch import Branch
from surnn_jax.layers.branch_run import BlockCarry
from surnn_jax.layers.calibration import COLLECTION, is_calibrating
from surnn_jax.layers.feed_forward import GatedFeedForward
from surnn_jax.layers.mixer_base import check_inputs, resets_within
from surnn_jax.layers.recurrent import Recurrent
from surnn_jax.layers.unit_cell import as_floating
from surnn_jax.names import unknown
from surnn_jax.scan.sequence import as_arrays
from surnn_jax.typing import Array, Carry

SKIPS = ("mixer", "block")
"""What can rest while a switch is closed, see :class:`Block`."""


class Trace(NamedTuple):
    """How often and when the switches of a selective layer opened.

    Attributes:
        rate: scalar, share of open switches among valid steps; differentiable, see
            :class:`surnn_jax.ScanOutput`.
        update_mask: ``[T, H]`` or ``[B, T, H]``, in a block that rests as a whole ``[T, 1]`` or
            ``[B, T, 1]``; None for units that open by their own state.
        balance: scalar of value 0 to add to the loss, see :class:`surnn_jax.ScanOutput`.
    """

    rate: Array
    update_mask: Array | None
    balance: Array | float = 0.0


class Block(nn.Module):
    """One mixer with norm, residual and feed-forward layer.

    ``x + drop(out(mixer(norm(x))))``, then ``x + drop(ffn(norm(x)))`` (pre-norm); or, with
    `no_residual`,
    ``drop(mixer(x))`` and nothing else.

    Attributes:
        kind: name of the mixer, see :func:`.mixers.names`.
        features: M, width of the block.
        options: of the mixer.
        no_residual: the mixer alone: no norm, no residual, no feed-forward layer.
        expand: width of the feed-forward layer, in units of M; 0 for none.
        dropout: share of the outputs of mixer and feed-forward layer that is dropped.
        bidirectional: a second mixer reads from the end; attention sees both sides at once.
        skip: what rests while the switch of a selective mixer is closed. ``mixer``: the mixer
            alone. ``block``: all of the block. The switch then has one schedule, and
            ``y[t] = x[t] + r[t]``, where r is what mixer and feed-forward layer added when the
            switch was last open (0 before). A closed step costs no more than the copy; `options`
            with the back end ``masked`` computes every step instead, with the same numbers. The
            carry is a :class:`.BlockCarry`.

    Examples:
        >>> from surnn_jax.layers import Block
        >>> block, x = Block("gru", features=8), jnp.ones((2, 5, 8))
        >>> (carry, y, trace), _ = block.init_with_output(jax.random.key(0), x)
        >>> y.shape, trace
        ((2, 5, 8), None)
    """

    kind: str
    features: int
    options: mixers.Options = mixers.Options()
    no_residual: bool = False
    expand: float = 2.0
    dropout: float = 0.0
    bidirectional: bool = False
    skip: str = "mixer"

    def setup(self):
        options = self.options
        if self.skip not in SKIPS:
            raise unknown("skip", self.skip, SKIPS)
        if self.skip == "block":
            check_skip(self)
            switch = switches.get(options.switch or "fourier")
            options = dataclasses.replace(options, switch=branch_run.one_schedule(switch))
        # Attention sees both sides in one pass.
        self._two = self.bidirectional and self.kind != "attention"
        self.mixer = mixers.make(self.kind, self.features, options, causal=not self.bidirectional)
        if self._two:
            self.backward = mixers.make(self.kind, self.features, self.options)
        self.drop = nn.Dropout(self.dropout)
        width = (self.options.hidden or self.features) if self._recurrent else self.features
        # Without residuals a layer of one direction has nothing to fit into.
        self._fits = (self.no_residual or width == self.features) and not self._two
        if not self._fits:
            self.out = nn.Dense(self.features, dtype=self.options.dtype)
        if not self.no_residual:
            self.norm = fused.LayerNorm()
            if self.expand:
                self.norm_ffn = fused.LayerNorm()
                self.ffn = GatedFeedForward(self._hidden, self.options.dtype)

    @property
    def _hidden(self) -> int:
        """Width of the feed-forward layer; 0 for none."""
        return max(1, round(self.expand * self.features)) if self.expand else 0

    @property
    def _recurrent(self) -> bool:
        return isinstance(self.mixer, Recurrent)

    def __call__(
        self,
        x: Array,
        lengths: Array | None = None,
        carry: Carry | None = None,
        train: bool = False,
        resets: Array | None = None,
    ) -> tuple[Carry, Array, Trace | None]:
        """Runs the block.

        Args:
            x: ``[B, T, M]`` (without residuals: ``[B, T, D]``).
            lengths: integers ``[B]`` or None.
            carry: from an earlier call; None to begin.
            train: whether to drop.
            resets: booleans ``[B, T]``: if True, a new sequence begins with this step.

        Returns:
            The carry, ``[B, T, M]``, and what the switch did (None where there is none).

        Raises:
            ValueError: if a bidirectional block is given a carry, or for shapes that do not fit.
        """
        if carry is not None and self.bidirectional:
            raise ValueError("a bidirectional model reads whole sequences; it takes no carry")
        x, lengths, resets = as_arrays(x, lengths, resets)
        x = as_floating(x, jnp.float32)  # Integers would have what is added to them rounded.
        if self.skip == "block":
            return self._rest(x, lengths, carry, train, resets)
        inputs = x if self.no_residual else self.norm(x)
        carry, y, trace = _mix(self.mixer, inputs, lengths, carry, resets)
        if self._two:
            turned = _turn(inputs, lengths)
            begun = None if resets is None else _turn_resets(resets, lengths)
            _, back, other = _mix(self.backward, turned, lengths, None, begun)
            y = jnp.concatenate([y, _turn(back, lengths)], axis=-1)
            if other is not None:
                rate, balance = (trace.rate + other.rate) / 2, trace.balance + other.balance
                trace = Trace(rate, trace.update_mask, balance)
        traced = mixers.is_traced(self.kind)
        return carry, self._after(x, y, train), trace if traced else None

    def step(self, carry: Carry, x: Array, resets: Array | None = None) -> tuple[Carry, Array]:
        """One step ``[B, M]``, without dropout; a new sequence begins where `resets` are true."""
        if self.bidirectional:
            raise ValueError("a bidirectional model reads whole sequences; it has no step")
        x = as_floating(jnp.asarray(x), jnp.float32)
        if self.skip == "block":
            now = None if resets is None else resets[:, None]
            carry, y, _ = self._rest(x[:, None], None, carry, False, now)
            return carry, y[:, 0]
        carry, y = self.mixer.step(carry, x if self.no_residual else self.norm(x), resets)
        return carry, self._after(x, y, False)

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """The carry from which a stream begins."""
        carry = self.mixer.initial_carry(batch_shape)
        if self.skip != "block":
            return carry
        return BlockCarry(carry, jnp.zeros((*batch_shape, self.features), carry.cell.h.dtype))

    def _rest(self, x, lengths, carry, train, resets):
        """The whole block, which rests while its switch is closed."""
        check_inputs("block", x, lengths, resets)
        calibrating = is_calibrating(self.mixer)
        if self.is_initializing() or calibrating:  # makes the parameters
            before = None if carry is None else carry.mixer
            _mix(self.mixer, self.norm(x), lengths, before, resets)
            width = (*x.shape[:1], 1, self.mixer.features)
            self._after(x[:, :1], jnp.zeros(width, x.dtype), False)
        params = self.variables["params"]
        if calibrating:
            found = self.variables.get(COLLECTION, {}).get("mixer", {}).get("switch", {})
            mixer = {**params["mixer"], "switch": {**params["mixer"].get("switch", {}), **found}}
            params = {**params, "mixer": mixer}
        key = self.make_rng("dropout") if train and self.dropout else None
        given = (params, x, carry, lengths, resets, key)
        found = branch_run.run(self._branch, self.mixer.unit, self.options.backend, *given)
        return found.carry, found.outputs, Trace(found.rate, found.update_mask, found.balance)

    @property
    def _branch(self) -> Branch:
        unit = self.mixer.unit
        return Branch(
            *(unit.cell, unit.switch.gate, self.features, self._hidden, self._fits),
            *(self.dropout, self.options.dtype),
        )

    def _feed(self, y):
        """The feed-forward layer with its norm; on a CPU so that it stays in the cache."""
        if self.is_initializing() or not pieces.is_long(y):
            return self.ffn(self.norm_ffn(y))
        params = {name: self.variables["params"][name] for name in ("norm_ffn", "ffn")}
        return fused.feed_forward_of_many(params, y, self._hidden, self.options.dtype)

    def _after(self, x, y, train):
        if not self._fits:
            y = self.out(y)
        y = self.drop(y, deterministic=not train)
        if self.no_residual:
            return y
        y = x + y.astype(x.dtype)
        if self.expand:
            more = self._feed(y).astype(y.dtype)
            y = y + self.drop(more, deterministic=not train)
        return y


def check_skip(block: Any) -> None:
    """Checks the field `skip` of a block or a backbone whose value is ``block``.

    Raises:
        ValueError: naming what does not go with it.
    """
    if block.no_residual:
        raise ValueError("skip='block' wants residuals: a block of its own has nothing to add to")
    if block.bidirectional:
        raise ValueError("skip='block' reads in one direction; take bidirectional=False")
    kinds = [block.kind] if isinstance(block, Block) else block.layers
    if not any(map(mixers.is_selective, kinds)):
        raise ValueError(f"skip='block' wants a layer with a switch, such as sugru; got {kinds}")


def _mix(mixer, x, lengths, carry, resets):
    given = {"initial_carry": carry, "seq_lengths": lengths, "resets": resets}
    if not isinstance(mixer, Recurrent):
        return *mixer(x, **given), None
    run = mixer(x, **given, return_run=True)
    return run.carry, run.outputs, Trace(run.rate, run.update_mask, run.balance)


def _turn_resets(resets: Array, lengths: Array | None) -> Array:
    """The resets ``[B, T]`` from the end: a sequence begins where the next one began."""
    resets = resets_within(resets, lengths)
    later = jnp.concatenate([resets[:, 1:], resets[:, :1] & False], axis=1)
    return _turn(later[..., None], lengths)[..., 0]


def _turn(x: Array, lengths: Array | None) -> Array:
    """``[B, T, …]`` with every sequence from its end to its beginning; padding stays behind."""
    if lengths is None:
        return x[:, ::-1]
    steps = x.shape[1]
    back = jnp.arange(steps - 1, -1, -1, dtype=jnp.int32)[None]
    order = (back - (steps - jnp.minimum(lengths, steps))[:, None]) % steps
    return jnp.take_along_axis(x, order[..., None], axis=1)
