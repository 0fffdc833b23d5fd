"""The contract of a switch: its inputs, its parameters and its logits."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from surnn_jax.switches import surrogates
from surnn_jax.typing import Array, Params


class SwitchInputs(NamedTuple):
    """What a switch reads: the input and the clock, never the state.

    Attributes:
        x: ``[T, B, D]``, the input.
        previous: ``[T, B, D]``, the input one step before (zeros at a start), or None where the
            switch does not ask for it (:attr:`Switch.uses_previous_input`). For a switch with
            :attr:`Switch.averages` it is ``[T, B, K D]``, the averages of the inputs before.
        t: integers ``[T]`` or ``[T, B]``, steps since the start of the sequence.
        valid: booleans ``[T, B]``, false at padding, or None where all is valid.
        key: a random key in training, for a switch that asks for one (:attr:`Switch.random`).
        features: H, the number of neurons, for switches without parameters.

    Examples:
        >>> from surnn_jax import switches
        >>> seen = switches.SwitchInputs(jnp.ones((6, 2, 3)), None, jnp.arange(6), features=4)
        >>> switches.every(100, n=3).logits({}, seen)[:, 0].tolist()
        [1.0, -1.0, -1.0, 1.0, -1.0, -1.0]
    """

    x: Array
    previous: Array | None
    t: Array
    valid: Array | None = None
    key: Array | None = None
    features: int | None = None


class Switch:
    """When each neuron updates, known before the scan. Base of all switches.

    The kinds are frozen dataclasses: those with a rhythm, :class:`.Fourier` and :class:`.Event`,
    and the schedules of :mod:`surnn_jax.switches.schedules`.

    Attributes:
        gate: how a logit opens, see :mod:`surnn_jax.switches.surrogates`.
        frozen: no gradient reaches the switch.
        rate: share of open switches at the start of training.
        groups: G, how many schedules the layer has; None for one a neuron.
        balance: the rule of :meth:`balance_term`; ``none`` for no such rule.

    Examples:
        >>> from surnn_jax import switches
        >>> isinstance(switches.fourier(100), switches.Switch)
        True
    """

    gate: surrogates.Surrogate = surrogates.triangular()
    frozen: bool = False
    rate: float
    groups: int | None = None
    balance: str = "none"

    @property
    def uses_previous_input(self) -> bool:
        """Whether the switch reads the previous input as well, or :attr:`averages`."""
        return False

    @property
    def averages(self) -> tuple[float, ...]:
        """Time constants, in steps, of averages that the switch reads in place of that input."""
        return ()

    @property
    def per_example(self) -> bool:
        """Whether every example of a batch has its own update mask, ``[T, B, H]``."""
        return False

    @property
    def has_parameters(self) -> bool:
        """Whether :meth:`init` draws any."""
        return True

    @property
    def random(self) -> bool:
        """Whether the switch wants a random key in training (:attr:`SwitchInputs.key`)."""
        return False

    def init(
        self, key: Array, seen: SwitchInputs, features: int, dtype: Any = jnp.float32
    ) -> Params:
        """Draws parameters; an empty dict if there are none.

        A switch with thresholds sets them so that `seen` opens every neuron at `rate`.

        Raises:
            ValueError: `features` neurons cannot be cut into `groups` equal blocks.
        """
        raise NotImplementedError

    def calibrated(self, params: Params, seen: SwitchInputs) -> Params:
        """`params` with thresholds by which the batch that is `seen` opens every neuron at `rate`.

        A switch that does not read the input keeps what it has.
        """
        del seen
        return params

    def logits(self, params: Params, seen: SwitchInputs) -> Array:
        """Logits a, ``[T, H]`` or ``[T, B, H]``, which :attr:`gate` turns into switches.

        With groups ``[T, G]`` or ``[T, B, G]``: :func:`for_neurons` repeats them.
        """
        raise NotImplementedError

    def balance_term(self, params: Params, seen: SwitchInputs, share: Array) -> Array:
        """A term of the loss that keeps thresholds in place; 0 for a switch that has no such rule.

        Its value is 0 and its gradient is the correction of the thresholds, see
        :attr:`.Rhythm.balance`.

        Args:
            params: the switch's.
            seen: the batch.
            share: ``[G]``, the share of valid steps of the batch at which each schedule was open.
        """
        del params, seen
        return jnp.zeros((), share.dtype)


def for_neurons(a: Array, features: int) -> Array:
    """Logits ``[..., G]`` repeated to ``[..., H]``: neuron i belongs to group ⌊i G / H⌋.

    Examples:
        >>> from surnn_jax import switches
        >>> switches.for_neurons(jnp.array([[1.0, -1.0]]), features=4).tolist()
        [[1.0, 1.0, -1.0, -1.0]]
    """
    groups = a.shape[-1]
    return a if groups == features else jnp.repeat(a, features // groups, axis=-1)


def rate_penalty(rate: Array, target: float) -> Array:
    """``(rate - target)²``: holds the update rate of an event switch near `target`.

    Scale it by about 1 beside a mean squared error, 10 beside a cross-entropy, 50 beside nats
    summed over 88 keys.

    Args:
        rate: the differentiable rate that :func:`surnn_jax.scan.run` returns.
        target: the wanted share of open switches.

    Examples:
        >>> from surnn_jax import switches
        >>> round(switches.rate_penalty(jnp.array(0.3), target=0.1).item(), 3)
        0.04
    """
    return jnp.square(rate - target)
