"""The feed-forward layer by the compiled kernel: the numbers and derivatives of Flax's modules."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_case import close, data

from surnn_jax.layers import Block, GatedFeedForward, fused, pieces
from surnn_jax.scan import native

pytestmark = pytest.mark.skipif(not native.available(), reason="no compiled kernel")

NORM = nn.LayerNorm(use_bias=False)


def parameters(width, hidden, dtype=jnp.float32):
    shapes = {"gate": (width, hidden), "value": (width, hidden), "out": (hidden, width)}
    ffn = {
        name: {"kernel": data(*shape, seed=i).astype(dtype) / 2}
        for i, (name, shape) in enumerate(shapes.items())
    }
    return {"norm_ffn": {"scale": data(width, seed=3).astype(dtype)}, "ffn": ffn}


def by_flax(params, x):
    layer = GatedFeedForward(params["ffn"]["out"]["kernel"].shape[0])
    return layer.apply({"params": params["ffn"]}, NORM.apply({"params": params["norm_ffn"]}, x))


def both(function, params, x):
    """Value and gradients under a cotangent that is different everywhere."""
    out, pull = jax.vjp(function, params, x)
    return out, pull(jnp.sin(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))


@pytest.mark.parametrize(("rows", "width", "hidden"), [(4099, 5, 7), (4128, 16, 40)])
@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512", "neon"])
def test_values_and_gradients_are_those_of_the_modules_in_float64(isa, rows, width, hidden):
    before = native.kernels()
    try:
        native.select(isa)
    except ValueError:
        pytest.skip(f"this processor has no {isa}")
    try:
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            x, params = (
                data(rows, width).astype("float64") * 3 + 1,
                parameters(width, hidden, "float64"),
            )
            assert fused.supports(params, x)
            found = jax.jit(both, static_argnums=0)(fused.feed_forward, params, x)
            close(found, jax.jit(both, static_argnums=0)(by_flax, params, x), rtol=1e-9, atol=1e-9)
    finally:
        native.select(before)


def test_a_block_trains_by_the_kernel_with_the_gradients_it_has_without():
    block, x = Block("gru", 6), data(8, 520, 6)
    variables = block.init(jax.random.key(0), x[:1, :2])

    def loss(variables, x):
        return (jnp.cos(x) * block.apply(variables, x)[1]).sum()

    step = jax.jit(jax.value_and_grad(loss, (0, 1)))
    assert "surnn_feed_forward" in str(jax.make_jaxpr(jax.grad(loss))(variables, x))
    found = step(variables, x)
    half = [step(variables, x[rows]) for rows in (slice(0, 4), slice(4, 8))]  # 2,080 vectors each
    close(found[0], half[0][0] + half[1][0], rtol=1e-4)
    close(found[1][0], jax.tree.map(jnp.add, half[0][1][0], half[1][1][0]), rtol=1e-3, atol=1e-3)
    close(found[1][1], jnp.concatenate([half[0][1][1], half[1][1][1]]), rtol=1e-4, atol=1e-4)


def test_the_gradient_has_a_gradient_and_vmap_takes_examples_one_by_one():
    params, x = parameters(3, 5), data(2, 4096, 3)

    def power(function):
        slope = jax.grad(lambda p, x: (function(p, x) ** 2).mean(), (0, 1))
        return lambda p, x: sum((v**2).sum() for v in jax.tree.leaves(slope(p, x)))

    ours, theirs = fused.feed_forward, by_flax
    twice = [jax.jit(jax.grad(power(f), (0, 1)))(params, x[0]) for f in (ours, theirs)]
    close(*twice, rtol=1e-3, atol=1e-4)
    mapped = jax.jit(jax.vmap(ours, (None, 0)))(params, x)
    close(mapped, jnp.stack([ours(params, one) for one in x]), rtol=0, atol=0)


@pytest.mark.full
def test_forward_mode_and_a_scan_around_it():
    """As of the modules, which a batch of 4,095 vectors goes through."""
    params, x = parameters(3, 5), data(4096, 3)

    def products(function):
        def loss(params):
            def body(total, _):
                return total + (function(params, x) ** 2).mean(), None

            return jax.lax.scan(body, 0.0, None, length=2)[0]

        return lambda params: (
            jax.jvp(loss, (params,), (params,)),
            jax.jvp(jax.grad(loss), (params,), (params,))[1],
            jax.grad(lambda p: sum((v**2).sum() for v in jax.tree.leaves(jax.grad(loss)(p))))(
                params
            ),
        )

    found, wanted = (jax.jit(products(f))(params) for f in (fused.feed_forward, by_flax))
    close(found, wanted, rtol=1e-3, atol=1e-4)


def test_an_exported_layer_needs_no_kernel():
    params, x = parameters(3, 5), data(4096, 3)
    program = jax.export.export(jax.jit(fused.feed_forward))(params, x)
    assert "surnn_feed_forward" not in program.mlir_module()
    close(program.call(params, x), by_flax(params, x), rtol=1e-5, atol=1e-5)


def test_other_dtypes_short_batches_wide_layers_and_meshes_are_left_to_flax():
    params, x = parameters(3, 5), data(4096, 3)
    wide = jax.eval_shape(lambda: parameters(512, 1024))
    assert fused.supports(params, x)
    assert pieces.is_long(x)
    assert fused.supports(params, x, jnp.float32)
    assert not fused.supports(params, x, jnp.bfloat16)
    assert not fused.supports(params, x.astype(jnp.bfloat16))
    assert not fused.supports(parameters(3, 5, jnp.bfloat16), x)
    assert not fused.supports(params, x[1:])
    assert not fused.supports(wide, jnp.zeros((4096, 512)))
    with jax.set_mesh(jax.make_mesh((2,), ("data",))):
        assert not fused.supports(params, x)


def test_without_the_kernel_a_block_computes_in_pieces(monkeypatch):
    monkeypatch.setattr(fused, "_runs", lambda weights, x: False)
    block, x = Block("gru", 4), data(8, 512, 4)
    variables = block.init(jax.random.key(0), x[:1, :2])

    def run(x):
        return block.apply(variables, x)[1]

    cut = jax.jit(run)(x)
    assert "remat" in str(jax.make_jaxpr(run)(x))
    close(cut[:2, :100], jax.jit(run)(x[:2, :100]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("alone", [True, False])
def test_broken_numbers_stay_in_their_row(alone):
    params, x = parameters(3, 5), data(4096, 3).at[17, 1].set(jnp.nan)

    def layer(params, x):
        return (
            fused.norm(params["norm_ffn"]["scale"], x) if alone else fused.feed_forward(params, x)
        )

    y, (_, dx) = jax.jit(both, static_argnums=0)(layer, params, x)
    for found in np.asarray(y), np.asarray(dx):
        assert np.isnan(found[17]).all()
        assert np.isfinite(np.delete(found, 17, axis=0)).all()


def test_a_norm_alone_is_that_of_flax():
    scale, x = data(6), data(9, 500, 6) * 3 + 1

    def theirs(scale, x):
        return NORM.apply({"params": {"scale": scale}}, x)

    found = jax.jit(both, static_argnums=0)(fused.norm, scale, x)
    close(found, jax.jit(both, static_argnums=0)(theirs, scale, x), rtol=1e-4, atol=1e-4)
    module = fused.LayerNorm()
    drawn = module.init(jax.random.key(0), x[:1, :2])
    assert jax.tree.map(jnp.shape, drawn) == {"params": {"scale": (6,)}}
    given = {"params": {"scale": scale}}
    for some in x, x[:2]:  # by the kernel, and by Flax
        close(module.apply(given, some), theirs(scale, some), rtol=1e-5, atol=1e-5)
    assert "surnn_feed_forward" in str(jax.make_jaxpr(module.apply)(given, x))
