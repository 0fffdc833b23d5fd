"""The contract of a cell: two linear maps and one pointwise rule."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from surnn_jax.cells.pointwise import rule_is_linear, rule_is_pointwise
from surnn_jax.typing import Array, Carry, Params

Gates = Mapping[str, Array]
Initializer = Callable[[Array, tuple[int, ...], Any], Array]
"""``(key, shape, dtype) -> array``, as those of `jax.nn.initializers`."""

LECUN_NORMAL = jax.nn.initializers.lecun_normal()
ORTHOGONAL = jax.nn.initializers.orthogonal()


def product(x: Array, kernel: Array, dtype: Any, out: Any) -> Array:
    """``x @ kernel`` with operands rounded to `dtype` and the sum kept in `out`."""
    return jnp.matmul(x.astype(dtype), kernel.astype(dtype), preferred_element_type=out)


def state_dtype(dtype: Any) -> Any:
    """Dtype of the state for parameters of `dtype`: the same, float32 at least."""
    wide = jnp.dtype(jnp.float64)
    return wide if dtype == wide else jnp.dtype(jnp.float32)


def _vector(value: float | Initializer, key: Array, size: int, dtype: Any) -> Array:
    return value(key, (size,), dtype) if callable(value) else jnp.full((size,), value, dtype)


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one step computes: a candidate state from the state before and the input.

    The work of a step is split in three, because a kernel that skips treats them differently:

    1. ``z[g] = x @ W[g]`` for every gate g of `inputs`: linear in the input, so all steps can
       be done at once;
    2. ``u[g] = h @ U[g]`` for every gate g of `recurrent`: linear in the state, so the rows of
       one neuron can be taken alone;
    3. ``candidate = rule(vectors, carry, z, u)``: **pointwise**. Neuron i of the result depends
       on neuron i of every argument only. A rule that does not keep to that (layer norm) is
       recognised, and runs on back ends that compute whole layers.

    A unit whose equations hold a second product (the GRU that resets before the product) names
    its operand in `inner`, itself pointwise, ``v = inner(vectors, carry, z, u)``, and the gates
    that multiply it in `inner_recurrent`: ``u[g] = v @ U[g]``. Row-wise back ends refuse it.

    Attributes:
        name: the name by which :func:`surnn_jax.cells.get` finds the cell.
        carry: a NamedTuple class; its field ``h`` is the output and what ``U`` multiplies.
        inputs: gates with an input product; all gates of a cell are kept as separate arrays.
        recurrent: gates with a product with ``h``.
        vectors: per-neuron parameters ``(name, initial value)``: biases, peepholes. A function
            ``(key, shape, dtype)`` in place of the value draws it.
        rule: ``(vectors, carry, z, u) -> carry``; every array ``[..., H]`` of one shape.
        inner: None, or the pointwise operand of the second product.
        inner_recurrent: gates with a product with that operand.
        shared: recurrent gates and vectors that all neurons share: kept as one column ``[H, 1]``,
            or one number ``[1]``, and repeated by :meth:`expanded`.
        expand: None, or a function ``params -> params`` of the same shapes that :meth:`expanded`
            applies, such as a mask.
        kernel_init: draws the input kernels.
        recurrent_kernel_init: draws the recurrent kernels.

    Examples:
        >>> from surnn_jax import cells
        >>> gru = cells.get("gru")
        >>> params = gru.init(jax.random.key(0), inputs=3, features=4)
        >>> gru.count(inputs=3, features=4)
        100
        >>> gru.step(params, gru.initial_carry(params, (2,)), jnp.ones((2, 3))).h.shape
        (2, 4)
    """

    name: str
    carry: type
    inputs: tuple[str, ...]
    recurrent: tuple[str, ...]
    vectors: tuple[tuple[str, float | Initializer], ...]
    rule: Callable[[Gates, Carry, Gates, Gates], Carry]
    inner: Callable[[Gates, Carry, Gates, Gates], Array] | None = None
    inner_recurrent: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    expand: Callable[[Params], Params] | None = None
    kernel_init: Initializer = LECUN_NORMAL
    recurrent_kernel_init: Initializer = ORTHOGONAL

    @property
    def pointwise(self) -> bool:
        """Whether the rows of a neuron suffice to update it."""
        return self.inner is None and self.rule_is_pointwise

    @property
    def rule_is_pointwise(self) -> bool:
        """Whether :func:`.pointwise.rule_is_pointwise` finds `rule` to be so; checked once."""
        products = self.recurrent + self.inner_recurrent
        vectors = tuple(name for name, _ in self.vectors)
        return rule_is_pointwise(self.rule, self.carry, self.inputs, products, vectors)

    @property
    def linear(self) -> bool:
        """Whether a step is ``p ∘ h + q``, p and q known from the input: parallel over time."""
        if self.recurrent or self.inner_recurrent or not self.pointwise:
            return False
        vectors = tuple(name for name, _ in self.vectors)
        return rule_is_linear(self.rule, self.carry, self.inputs, vectors)

    def init(self, key: Array, inputs: int, features: int, dtype: Any = jnp.float32) -> Params:
        """Draws parameters.

        If the cell says nothing else, input kernels are LeCun normal, recurrent kernels orthogonal
        (each gate its own), and vectors constant.

        Args:
            key: a JAX random key.
            inputs: D, the width of an input frame.
            features: H, the number of neurons.
            dtype: floating dtype of every parameter. In less than float32 they are drawn in
                float32 and rounded.

        Returns:
            ``{"input": {gate: [D, H]}, "recurrent": {gate: [H, H]}, "vector": {name: [H]}}``,
            with 1 in place of the last H for what is `shared`. A kind without entries is left
            out, since many tools drop empty entries of a tree; :meth:`expanded` puts them back.

        Raises:
            ValueError: if `inputs` or `features` is not positive, or `dtype` not floating point.
        """
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"{self.name}: parameters must be floating point, got {dtype}")
        for what, size in (("inputs", inputs), ("features", features)):
            if size < 1:
                raise ValueError(f"{self.name}: {what} must be at least 1, got {size}")
        hidden = self.recurrent + self.inner_recurrent
        keys = iter(jax.random.split(key, len(self.inputs) + len(hidden)))
        draw, draw_recurrent = self.kernel_init, self.recurrent_kernel_init
        columns = dict.fromkeys(self.shared, 1)
        wide = state_dtype(jnp.dtype(dtype))
        drawn = {
            "input": {g: draw(next(keys), (inputs, features), wide) for g in self.inputs},
            "recurrent": {
                g: draw_recurrent(next(keys), (features, columns.get(g, features)), wide)
                for g in hidden
            },
            "vector": {
                name: _vector(value, jax.random.fold_in(key, i), columns.get(name, features), wide)
                for i, (name, value) in enumerate(self.vectors)
            },
        }
        drawn = {kind: leaves for kind, leaves in drawn.items() if leaves}
        return jax.tree.map(lambda leaf: leaf.astype(dtype), drawn)

    def expanded(self, params: Params) -> Params:
        """Parameters as the kernels see them, from those that :meth:`init` draws, of all kinds.

        :func:`surnn_jax.scan.run` calls it once for a sequence; the products and
        :meth:`update` below want what it returns. Twice is as good as once.
        """
        params = {"input": {}, "recurrent": {}, "vector": {}, **params}
        if self.shared:
            features = self.features(params)

            def repeated(leaf: Array) -> Array:
                return jnp.broadcast_to(leaf, (*leaf.shape[:-1], features))

            params = {
                kind: {k: repeated(v) if k in self.shared else v for k, v in leaves.items()}
                for kind, leaves in params.items()
            }
        return params if self.expand is None else self.expand(params)

    def features(self, params: Params) -> int:
        """H, read off `params`."""
        return next(iter(params["input"].values())).shape[-1]

    def initial_carry(self, params: Params, batch_shape: tuple[int, ...] = ()) -> Carry:
        """Zeros ``[*batch_shape, H]`` a field, in float32 or wider."""
        return self.zero_carry((*batch_shape, self.features(params)), self.carry_dtype(params))

    def zero_carry(self, shape: tuple[int, ...], dtype: Any) -> Carry:
        """A carry of zeros of `shape` ``[..., H]`` for parameters of `dtype`."""
        return self.carry(*(jnp.zeros(shape, state_dtype(dtype)) for _ in self.carry._fields))

    def carry_dtype(self, params: Params) -> Any:
        """Dtype of the state: the parameters' own, float32 at least."""
        return state_dtype(next(iter(params["input"].values())).dtype)

    def project(self, params: Params, x: Array, dtype: Any = None) -> dict[str, Array]:
        """Input products ``{gate: [..., H]}`` of ``x [..., D]``, in the dtype of the carry."""
        out = self.carry_dtype(params)
        return {g: product(x, params["input"][g], dtype or out, out) for g in self.inputs}

    def recur(self, params: Params, h: Array, dtype: Any = None) -> dict[str, Array]:
        """Recurrent products ``{gate: [..., H]}`` of ``h [..., H]``."""
        out = self.carry_dtype(params)
        return {g: product(h, params["recurrent"][g], dtype or out, out) for g in self.recurrent}

    def recur_inner(
        self, params: Params, carry: Carry, z: Gates, u: Gates, dtype: Any = None
    ) -> tuple[Array, dict[str, Array]]:
        """The operand of the second product and the products with it; see `inner`."""
        out = self.carry_dtype(params)
        v = self.inner(self.broadcast(params, carry.h.shape), carry, z, u)
        kernels = params["recurrent"]
        return v, {g: product(v, kernels[g], dtype or out, out) for g in self.inner_recurrent}

    def broadcast(self, params: Params, shape: tuple[int, ...]) -> dict[str, Array]:
        """The per-neuron vectors in the dtype of the carry, repeated to `shape` ``[..., H]``."""
        out = self.carry_dtype(params)
        return {
            name: jnp.broadcast_to(v.astype(out).reshape((1,) * (len(shape) - 1) + v.shape), shape)
            for name, v in params.get("vector", {}).items()
        }

    def update(self, params: Params, carry: Carry, z: Gates, u: Gates) -> Carry:
        """The candidate carry, from a carry and its two sets of products; pointwise."""
        return self.rule(self.broadcast(params, carry.h.shape), carry, z, u)

    def step(self, params: Params, carry: Carry, x: Array, dtype: Any = None) -> Carry:
        """The candidate carry ``[..., H]`` for one input frame ``x [..., D]``."""
        return self.step_projected(params, carry, self.project(params, x, dtype), dtype)

    def step_projected(self, params: Params, carry: Carry, z: Gates, dtype: Any = None) -> Carry:
        """:meth:`step` for input products that are there already."""
        u = self.recur(params, carry.h, dtype)
        if self.inner is not None:
            u = {**u, **self.recur_inner(params, carry, z, u, dtype)[1]}
        return self.update(params, carry, z, u)

    def count(self, inputs: int, features: int) -> int:
        """Number of parameters of :meth:`init`, without making them."""
        shapes = jax.eval_shape(lambda: self.init(jax.random.key(0), inputs, features))
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
