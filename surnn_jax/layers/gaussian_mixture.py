"""A mixture of Gaussians as a head, for numbers such as the samples of a waveform."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax.typing import Array


class Mixture(NamedTuple):
    """K Gaussians over N numbers, with diagonal covariances.

    Attributes:
        log_weights: ``[*batch, K]``; their exponentials sum to 1.
        means: ``[*batch, K, N]``.
        deviations: ``[*batch, K, N]``, positive.
    """

    log_weights: Array
    means: Array
    deviations: Array


class GaussianMixture(nn.Module):
    """A linear read-out to the parameters of a mixture of K Gaussians over N numbers.

        p(y | x) = Σ_k w_k Π_n N(y_n; m_kn, s_kn²)
        w = softmax(a),  m = b,  s = min_std + softplus(c),  (a, b, c) = Dense(x)

    (Bishop 1994; Chung et al. 2014, section 4.1, with K = 20 over 10 samples of speech.)

    `min_std` is part of the model. Without one the density has no upper bound: where the numbers
    stand still, as in digital silence, a deviation that shrinks to nothing sends it to infinity.
    With it a step scores at most ``-N log(min_std √(2π))`` nats: 36.9 for N = 10 and 0.01. Scores
    of models with different `min_std` must not be compared.

    A density stays finite while ``|y - m| / s`` is below 1e18.

    Only `__call__` has parameters; the other methods work without `apply`.

    Attributes:
        components: K.
        numbers: N.
        min_std: the least standard deviation, in the units of the target.
        dtype: operands of the product are rounded to it; None for not at all.

    Examples:
        >>> from surnn_jax.layers import GaussianMixture
        >>> head = GaussianMixture(components=3, numbers=2)
        >>> outputs, _ = head.init_with_output(jax.random.key(0), jnp.ones((5, 4)))
        >>> outputs.shape, head.mixture(outputs).means.shape
        ((5, 15), (5, 3, 2))
    """

    components: int = 20
    numbers: int = 10
    min_std: float = 0.01
    dtype: Any = None

    def __post_init__(self):
        for name in ("components", "numbers"):
            if getattr(self, name) < 1:
                raise ValueError(f"mixture: {name} must be at least 1, got {getattr(self, name)}")
        if not (self.min_std > 0 and math.isfinite(self.min_std)):
            raise ValueError(f"mixture: min_std must be positive, got {self.min_std}")
        super().__post_init__()

    @property
    def width(self) -> int:
        """K (1 + 2N), how many numbers describe a mixture."""
        return self.components * (1 + 2 * self.numbers)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """``[*batch, H]`` to the outputs ``[*batch, K (1 + 2N)]`` that the other methods read."""
        return nn.Dense(self.width, dtype=self.dtype, name="linear")(x)

    def mixture(self, outputs: Array) -> Mixture:
        """What ``outputs [*batch, K (1 + 2N)]`` stand for, in float32 at least.

        Raises:
            ValueError: outputs of another width.
        """
        if outputs.shape[-1:] != (self.width,):
            raise ValueError(
                f"mixture: outputs must be [*batch, {self.width}], got {list(outputs.shape)}"
            )
        if outputs.dtype != jnp.float64:
            outputs = outputs.astype(jnp.float32)
        k, n = self.components, self.numbers
        weights, means, spreads = jnp.split(outputs, (k, k + k * n), axis=-1)
        form = (*outputs.shape[:-1], k, n)
        return Mixture(
            jax.nn.log_softmax(weights),
            means.reshape(form),
            self.min_std + jax.nn.softplus(spreads.reshape(form)),
        )

    def log_density(self, outputs: Array, target: Array) -> Array:
        """The logarithm of the density at ``target [*batch, N]``, in nats: ``[*batch]``.

        It may be positive: a density has no upper bound of 1.

        Raises:
            ValueError: shapes that do not fit.
        """
        of = self.mixture(outputs)
        wanted = (*outputs.shape[:-1], self.numbers)
        if target.shape != wanted:
            raise ValueError(f"mixture: target must be {list(wanted)}, got {list(target.shape)}")
        z = (target.astype(of.means.dtype)[..., None, :] - of.means) / of.deviations
        nats = 0.5 * z * z + jnp.log(of.deviations) + 0.5 * math.log(2 * math.pi)
        return jax.nn.logsumexp(of.log_weights - nats.sum(-1), axis=-1)

    def sample(self, key: Array, outputs: Array) -> Array:
        """A draw ``[*batch, N]`` from each mixture: first a component, then its numbers."""
        of = self.mixture(outputs)
        which, noise = jax.random.split(key)
        chosen = jax.random.categorical(which, of.log_weights)[..., None, None]
        mean, deviation = (
            jnp.take_along_axis(part, chosen, axis=-2)[..., 0, :]
            for part in (of.means, of.deviations)
        )
        return mean + deviation * jax.random.normal(noise, mean.shape, mean.dtype)

    def moments(self, outputs: Array) -> tuple[Array, Array]:
        """Mean and standard deviation ``[*batch, N]`` of each number."""
        of = self.mixture(outputs)
        weights = jnp.exp(of.log_weights)[..., None]
        mean = (weights * of.means).sum(-2)
        apart = of.means - mean[..., None, :]
        return mean, jnp.sqrt((weights * (of.deviations**2 + apart**2)).sum(-2))
