"""Feed-forward layers in pieces: the numbers and derivatives of the whole."""

import jax
import jax.numpy as jnp
import pytest
from layer_case import close, data

from surnn_jax.layers import pieces


@pytest.mark.parametrize(("shape", "cut"), [((8, 512, 3), True), ((2, 2039, 3), False)])
def test_a_long_batch_is_cut_and_gives_what_the_whole_gives(shape, cut):
    x, w = data(*shape), data(3, 3, seed=1)

    def layer(w, x):
        return jnp.tanh(x @ w)

    def slopes(function):
        def loss(w, x):
            return (data(*shape, seed=2) * function(w, x)).sum()

        def second(w, x):
            return jax.jvp(lambda w: jax.grad(loss)(w, x), (w,), (jnp.ones_like(w),))[1]

        return jax.jit(lambda w, x: (jax.value_and_grad(loss, (0, 1))(w, x), second(w, x)))

    assert pieces.pays(x) == cut
    found = slopes(lambda w, x: pieces.by_pieces(layer, w, x))(w, x)
    close(found, slopes(layer)(w, x), rtol=1e-4, atol=1e-3)  # sums of 12,288 numbers


def test_a_sharded_batch_is_not_cut():
    with jax.set_mesh(jax.make_mesh((2,), ("data",))):
        assert not pieces.pays(data(8, 512, 4))
