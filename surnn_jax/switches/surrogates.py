"""How a logit becomes a switch, and which surrogate replaces the derivative of the step."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.names import lookup
from surnn_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """Forward value and backward slope of a switch, as functions of the logit a.

    Made by :func:`triangular`, :func:`sigmoid`, :func:`straight_through` (all three open exactly
    where a > 0 and differ only in the slope used for the gradient), :func:`soft` and :func:`given`
    (no step at all), and :func:`two_fields`.

    Attributes:
        name: which of the six.
        shape: its one number: half-width of the window, or steepness of the sigmoid.
        gradient_fraction: how much of a batch gives the switch its gradient, see
            :func:`triangular`.
        expected: of :func:`two_fields`.

    Examples:
        >>> from surnn_jax import switches
        >>> step = switches.triangular()
        >>> step(jnp.array([-1.0, 0.1, 2.0])).tolist()
        [0.0, 1.0, 1.0]
        >>> step.slope(jnp.array([-1.0, 0.0, 2.0])).tolist()
        [0.0, 4.0, 0.0]
    """

    name: str
    shape: float = 1.0
    gradient_fraction: float = 1.0
    expected: tuple[float, float] | None = None

    @property
    def hard(self) -> bool:
        """Whether the value is 0 or 1."""
        return self.name not in ("soft", "given", "two_fields")

    @property
    def support(self) -> float:
        """The slope is zero where |a| is at least this."""
        return self.shape if self.name == "triangular" else math.inf

    def value(self, a: Array) -> Array:
        """The switch, in the dtype of `a`; NaN where the logit is NaN."""
        if self.name in ("given", "two_fields"):
            return a
        if not self.hard:
            return jax.nn.sigmoid(self.shape * a)
        # A NaN is passed on, never made: `jax_debug_nans` stops at one that is made.
        one = jnp.ones_like(a)
        return jnp.where(a > 0, one, jnp.where(a <= 0, jnp.zeros_like(a), a))

    def slope(self, a: Array) -> Array:
        """d switch / d logit: the true one if soft, else the surrogate."""
        if self.name == "triangular":
            return jnp.maximum(0, 1 - jnp.abs(a) / self.shape) / self.shape
        if self.name in ("straight_through", "given", "two_fields"):
            return jnp.ones_like(a)
        s = jax.nn.sigmoid(self.shape * a)
        return self.shape * s * (1 - s)

    def of_field(self, name: str, g: Array) -> Array:
        """How far the field of that name opens, from a :meth:`value`; the same for all but one."""
        if self.expected is None:
            return g
        memory = name == "c"
        drawn = jnp.where(memory, jnp.mod(g, 2), jnp.floor(g / 2))
        return jnp.where(g < 0, self.expected[0 if memory else 1], drawn)

    def openness(self, a: Array) -> Array:
        """How far the output opens: what an update mask shows, and a rate is the mean of."""
        return self.of_field("h", self(a))

    def gradient_rows(self, batch: int) -> int:
        """How many rows of a batch give the switch its gradient: ⌈gradient_fraction · B⌉ or 1."""
        # 0.07 * 100 is a little more than 7.
        return max(1, math.ceil(self.gradient_fraction * batch - 1e-9))

    def row_weights(self, batch: int, dtype: Any) -> Array | None:
        """The weight of each row of a batch in the switch's gradient, ``[B]``; None for 1.

        Raises:
            ValueError: if the size is a symbol, as in an export, and some rows have none.
        """
        if self.gradient_fraction == 1:
            return None
        if not isinstance(batch, int):
            raise ValueError(
                f"gradient_fraction={self.gradient_fraction} needs a batch of known size, "
                f"got {batch}"
            )
        few = self.gradient_rows(batch)
        if few >= batch:
            return None
        return jnp.where(jnp.arange(batch) < few, jnp.asarray(batch / few, dtype), 0)

    def __call__(self, a: Array) -> Array:
        """:meth:`value`, whose derivatives of every order are those that :meth:`slope` gives.

        Without a rule of its own, which `lax.scan` would forget where reverse mode is
        differentiated once more.
        """
        value = self.value(a)
        if not self.hard:
            return value
        if self.name == "triangular":
            u = jnp.clip(a / self.shape, -1, 1)
            smooth = u - u * jnp.abs(u) / 2
        else:
            bounded = jnp.where(jnp.isfinite(a), a, 0)  # infinity less itself is no number
            straight = self.name == "straight_through"
            smooth = bounded if straight else jax.nn.sigmoid(self.shape * a)
        return value + (smooth - jax.lax.stop_gradient(smooth))


def _positive(name: str, what: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: {what} must be a positive number, got {value}")
    return float(value)


def _hard(name: str, what: str, value: float, gradient_fraction: float) -> Surrogate:
    value = _positive(name, what, value)
    if not 0 < gradient_fraction <= 1:
        raise ValueError(
            f"{name}: gradient_fraction must lie above 0 and not above 1, got {gradient_fraction}"
        )
    return Surrogate(name, value, float(gradient_fraction))


def triangular(width: float = 0.25, gradient_fraction: float = 1.0) -> Surrogate:
    """Step with a triangular surrogate of compact support: ``max(0, 1 - |a|/width) / width``.

    Outside the window the gradient is zero, so a kernel computes candidates for open and nearly
    open neurons only. Narrow windows train at least as well as wide surrogates.

    Args:
        width: half-width, in units of the normalised logit.
        gradient_fraction: in (0, 1]: the switch gets its gradient from the first
            ⌈gradient_fraction · B⌉ rows of a batch only, scaled up to stand for all, so that the
            candidates of nearly open neurons are needed in those rows alone. Unbiased if the rows
            of a batch are in random order; no other gradient changes. If a batch is cut over
            devices, each uses its own first rows. For switches of time, whose rows share one update
            mask; leave it at 1 for event switches, whose few rows would give a noisy gradient.
            devices, each uses its own first rows.

    Examples:
        >>> from surnn_jax import switches
        >>> jax.grad(switches.triangular(width=0.5))(0.25).item()
        1.0
    """
    return _hard("triangular", "width", width, gradient_fraction)


def sigmoid(steepness: float = 4.0, gradient_fraction: float = 1.0) -> Surrogate:
    """Step with the derivative of ``sigmoid(steepness * a)``; fraction as :func:`triangular`.

    Examples:
        >>> from surnn_jax import switches
        >>> jax.grad(switches.sigmoid(steepness=4.0))(0.0).item()
        1.0
    """
    return _hard("sigmoid", "steepness", steepness, gradient_fraction)


def straight_through(gradient_fraction: float = 1.0) -> Surrogate:
    """Step whose gradient passes straight through. Wants a tenth of the learning rate.

    Examples:
        >>> from surnn_jax import switches
        >>> jax.grad(switches.straight_through())(5.0).item()
        1.0
    """
    return _hard("straight_through", "slope", 1.0, gradient_fraction)


def soft(steepness: float = 8.0) -> Surrogate:
    """No step: ``sigmoid(steepness * a)`` mixes old state and candidate. A control; skips nothing.

    With steepness 1 nothing is ever held and training suffers; 8 is nearly binary.

    Examples:
        >>> from surnn_jax import switches
        >>> switches.soft()(jnp.array([0.0])).item()
        0.5
    """
    return Surrogate("soft", _positive("soft", "steepness", steepness))


def given() -> Surrogate:
    """No step: the logit itself, in [0, 1], says how far the switch is open.

    For switches that make an openness of their own (phased, zoneout); not among :data:`SURROGATES`.

    Examples:
        >>> from surnn_jax import switches
        >>> switches.given()(jnp.array([0.25])).item()
        0.25
    """
    return Surrogate("given")


def two_fields(memory: float, others: float) -> Surrogate:
    """No step: the memory cell c of a carry opens apart from its other fields.

    A logit is 0 for all closed, 1 for c open, 2 for the others open and 3 for all open; or -1, and
    each opens as far as is `expected`. For zoneout with two rates; not among :data:`SURROGATES`.

    Args:
        memory: how far c is expected to open.
        others: how far the others are.
    """
    return Surrogate("two_fields", expected=(memory, others))


SURROGATES = {
    "triangular": triangular,
    "sigmoid": sigmoid,
    "straight_through": straight_through,
    "soft": soft,
}
"""Makers of surrogates by name."""

_OLD_NAMES = {"window": "triangular", "identity": "straight_through"}


def get(surrogate: str | Surrogate) -> Surrogate:
    """The surrogate of that name with its default shape (a surrogate passes through).

    The names that stand in old records, ``window`` and ``identity``, are read too.

    Raises:
        ValueError: if there is no such surrogate.

    Examples:
        >>> from surnn_jax import switches
        >>> switches.get_surrogate("sigmoid").shape
        4.0
    """
    if isinstance(surrogate, Surrogate):
        return surrogate
    if isinstance(surrogate, str):
        surrogate = _OLD_NAMES.get(surrogate, surrogate)
    return lookup("surrogate", surrogate, SURROGATES)()
