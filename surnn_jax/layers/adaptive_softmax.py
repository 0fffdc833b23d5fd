"""The adaptive softmax, for vocabularies too large to be scored whole at every word."""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax.cells.cell import product
from surnn_jax.layers.meshes import by_rows
from surnn_jax.typing import Array

_BLOCK = 128


class AdaptiveSoftmax(nn.Module):
    """Frequent words in a head of full width, rare ones in tails of shrinking width.

    With cutoffs ``c[1] < … < c[n]`` the head scores words 0 to c[1] - 1 and one entry for each of
    the n tails; tail i holds words c[i] to c[i+1] - 1 (the last up to the vocabulary) and reads
    the input through a projection to ``⌊M / shrink^i⌋`` numbers:

        p(w | x) = p_head(w | x)                    w in the head
        p(w | x) = p_head(tail i | x) p_i(w | x)    w in tail i

    (Grave et al. 2017, arXiv 1609.04309). Words must be numbered by frequency, most frequent
    first. No biases.

    Tied to an embedding ``E [V, M]``, the head scores its words by their own vectors, and a tail
    by its words' vectors, narrowed by a projection of the tail (so an embedding of rare words
    learns from both ends; Press and Wolf 2017, arXiv 1608.05859).

    Cost of a loss: the head for every position; a tail only for the positions whose target lies
    in it, rounded up to blocks of 128, with fixed shapes: positions are sorted by cluster, and a
    block that holds none of a tail's targets skips it. The scores of a tail are computed anew in
    the backward pass, so that of a tail of V words a block alone, ``[128, V]``, is in memory at a
    time. Under `jax.vmap` nothing is skipped.

    Attributes:
        vocabulary: V, the number of words.
        cutoffs: where the tails begin, rising, above 0 and below `vocabulary`.
        shrink: by how much each tail is narrower than the one before.
        dtype: operands of products are rounded to it; None for not at all. Log-probabilities are
            in the parameters' dtype, float32 at least.
        param_dtype: of the parameters.

    Examples:
        >>> from surnn_jax.layers import AdaptiveSoftmax
        >>> softmax = AdaptiveSoftmax(vocabulary=20, cutoffs=(10,))
        >>> x, words = jnp.ones((2, 5, 4)), jnp.full((2, 5), 19)
        >>> softmax.init_with_output(jax.random.key(0), x, words)[0].shape
        (2, 5)
    """

    vocabulary: int
    cutoffs: tuple[int, ...]
    shrink: int = 4
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        edges = (0, *self.cutoffs, self.vocabulary)
        if not self.cutoffs or any(a >= b for a, b in itertools.pairwise(edges)):
            raise ValueError(
                "adaptive softmax: cutoffs must rise, above 0 and below the vocabulary of "
                f"{self.vocabulary} words, at least one; got {tuple(self.cutoffs)}"
            )
        if self.shrink < 1:
            raise ValueError(f"adaptive softmax: shrink must be at least 1, got {self.shrink}")
        super().__post_init__()

    def __call__(self, x: Array, targets: Array, embedding: Array | None = None) -> Array:
        """The log-probability of each target, ``[B, T]``; NaN for one outside the vocabulary.

        Args:
            x: ``[B, T, M]`` (any leading axes).
            targets: integers ``[B, T]``.
            embedding: ``[V, M]`` to tie the weights to; None for weights of its own.

        Raises:
            ValueError: shapes that do not fit, targets that are not integers, or an input too
                narrow to be shrunk for the last tail.
        """
        if targets.shape != x.shape[:-1] or not jnp.issubdtype(targets.dtype, jnp.integer):
            raise ValueError(
                f"adaptive softmax: targets must be integers {x.shape[:-1]}, "
                f"got {targets.dtype} {targets.shape}"
            )
        head, tails = self._kernels(x, embedding)
        return by_rows(self._log_probs)(x, targets, head, tails)

    def _log_probs(self, x: Array, targets: Array, head: Array, tails: list) -> Array:
        flat, words = jnp.asarray(x).reshape(-1, x.shape[-1]), jnp.asarray(targets).reshape(-1)
        cutoffs = jnp.asarray(self.cutoffs, words.dtype)
        cluster = jnp.searchsorted(cutoffs, words, side="right").astype(words.dtype)
        entry = jnp.where(cluster > 0, self.cutoffs[0] + cluster - 1, words)
        found = _pick(self._scores(flat, head), entry)
        found = found + self._in_tails(flat, words, cluster, tails)
        known = (words >= 0) & (words < self.vocabulary)
        return jnp.where(known, found, jnp.nan).reshape(targets.shape)

    def log_probs(self, x: Array, embedding: Array | None = None) -> Array:
        """The log-probabilities of all words, ``[B, T, V]``: large; for sampling and evaluation."""
        head, tails = self._kernels(x, embedding)
        scores, first = self._scores(x, head), self.cutoffs[0]
        parts = [scores[..., :first]]
        for i, (down, up) in enumerate(tails):
            within = self._scores(self._product(x, down), up)
            parts.append(scores[..., first + i, None] + within)
        return jnp.concatenate(parts, axis=-1)

    @nn.compact
    def _kernels(
        self, x: Array, embedding: Array | None
    ) -> tuple[Array, list[tuple[Array, Array]]]:
        """The head's ``[M, c[1] + n]``, and each tail's two."""
        width, draw = x.shape[-1], nn.initializers.lecun_normal()
        edges, count = (*self.cutoffs, self.vocabulary), len(self.cutoffs)
        if width < self.shrink**count:
            raise ValueError(
                f"adaptive softmax: an input of width {width} cannot be narrowed {count} times "
                f"by {self.shrink}; use fewer cutoffs, or a smaller shrink"
            )
        if embedding is not None and embedding.shape != (self.vocabulary, width):
            raise ValueError(
                f"adaptive softmax: the embedding must be {[self.vocabulary, width]}, "
                f"got {list(embedding.shape)}"
            )
        if embedding is None:
            head = self.param("head", draw, (width, edges[0] + count), self.param_dtype)
        else:
            clusters = self.param("clusters", draw, (width, count), self.param_dtype)
            head = jnp.concatenate([embedding[: edges[0]].T, clusters], axis=1)
        tails = []
        for i in range(count):
            narrow, size = width // self.shrink ** (i + 1), edges[i + 1] - edges[i]
            down = self.param(f"down_{i + 1}", draw, (width, narrow), self.param_dtype)
            if embedding is None:
                up = self.param(f"up_{i + 1}", draw, (narrow, size), self.param_dtype)
            else:
                lift = self.param(f"lift_{i + 1}", _unit, (width, narrow), self.param_dtype)
                up = self._product(embedding[edges[i] : edges[i + 1]], lift).T
            tails.append((down, up))
        return head, tails

    @property
    def _wide(self) -> Any:
        wide = jnp.dtype(jnp.float64)
        return wide if jnp.dtype(self.param_dtype) == wide else jnp.dtype(jnp.float32)

    def _product(self, x: Array, kernel: Array) -> Array:
        return product(x, kernel, self.dtype or self._wide, self._wide)

    def _scores(self, x: Array, kernel: Array) -> Array:
        return jax.nn.log_softmax(self._product(x, kernel))

    def _in_tails(self, x: Array, words: Array, cluster: Array, tails: list) -> Array:
        """Log-probability ``[N]`` within the target's tail; 0 for a target in the head."""
        many = x.shape[0]
        block = min(_BLOCK, max(many, 1))
        order = jnp.argsort(cluster)  # the head's first
        # Padding repeats the first, which is the cheapest.
        spare = -many % block
        order = jnp.concatenate([jnp.broadcast_to(order[:1], (spare,)), order])

        def blocks(leaf):
            return leaf[order].reshape(-1, block, *leaf.shape[1:])

        @jax.checkpoint
        def score(kernels, now):
            x, words, cluster = now
            total = jnp.zeros((block,), self._wide)
            for i, (down, up) in enumerate(kernels):
                own = cluster == i + 1

                def within(x, words, down, up, i=i):
                    place = jnp.clip(words - self.cutoffs[i], 0, up.shape[-1] - 1)
                    return _pick(self._scores(self._product(x, down), up), place)

                def nothing(x, words, down, up):
                    return jnp.zeros((block,), self._wide)

                found = jax.lax.cond(own.any(), within, nothing, x, words, down, up)
                total = total + jnp.where(own, found, 0)
            return total

        sorted_ = jax.lax.map(
            lambda now: score(tails, now), tuple(map(blocks, (x, words, cluster)))
        )
        return (
            jnp.zeros_like(sorted_, shape=(many,))
            .at[order[spare:]]
            .set(sorted_.reshape(-1)[spare:], unique_indices=True)
        )


def _unit(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """So that vectors of unit length are narrowed to vectors of unit length."""
    return jax.random.normal(key, shape, dtype) * shape[1] ** -0.5


def _pick(scores: Array, places: Array) -> Array:
    """``scores [N, V]`` at ``places [N]``."""
    return jnp.take_along_axis(scores, places[:, None], axis=-1, mode="clip")[:, 0]
