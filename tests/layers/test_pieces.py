"""Feed-forward layers in pieces: the numbers and derivatives of the whole."""

import jax
import jax.numpy as jnp
import pytest
from layer_case import close, data

from surnn_jax.layers import Block, pieces


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


def test_a_block_computes_its_feed_forward_layer_in_pieces_and_not_where_it_is_sharded():
    block, x = Block("gru", 4), data(8, 512, 4)
    variables = block.init(jax.random.key(0), x[:1, :2])

    def run(x):
        return block.apply(variables, x)[1]

    cut = jax.jit(run)(x)
    assert "remat" in str(jax.make_jaxpr(run)(x))
    close(cut[:2, :100], jax.jit(run)(x[:2, :100]), rtol=1e-4, atol=1e-5)
    with jax.set_mesh(jax.make_mesh((2,), ("data",))):
        assert not pieces.pays(x)
