"""Layers and models on a mesh with Explicit axes, JAX's default: the numbers of one device."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from tiers import tiered

from surnn_jax import switches
from surnn_jax.layers import (
    Backbone,
    Classifier,
    LanguageModel,
    MultiHeadRecurrent,
    PairClassifier,
    Recurrent,
    SequenceTagger,
    calibrate,
    mixers,
)

STEPS, BATCH, WIDTH = 6, 8, 8
CLOSE = {"rtol": 1e-4, "atol": 5e-5}
EVENT = switches.event(STEPS, rate=0.5)
LENGTHS = jnp.array([6, 5, 4, 3, 2, 1, 0, 6])
RESETS = jax.random.bernoulli(jax.random.key(3), 0.2, (BATCH, STEPS))
FRAMES = jax.random.normal(jax.random.key(0), (BATCH, STEPS, WIDTH))
TOKENS = jax.random.randint(jax.random.key(0), (BATCH, STEPS), 0, 9)


def tagger(kind, **options):
    chosen = mixers.Options(switch=EVENT if mixers.is_selective(kind) else None)
    return SequenceTagger(Backbone((kind,), WIDTH, options=chosen, **options), 2)


def text(**options):
    return LanguageModel(Backbone(("gru",), WIDTH, encoder="embed", vocabulary=9), **options)


def called(model, x, lengths, resets):
    """The arguments of a model's call."""
    if isinstance(model, LanguageModel):
        return (x, x, lengths), {"resets": resets}
    if isinstance(model, PairClassifier):
        return (x, lengths, x[::-1], lengths), {}
    if isinstance(model, SequenceTagger) and model.backbone.bidirectional:
        return (x, lengths), {}
    if isinstance(model, (SequenceTagger, Classifier)):
        return (x, lengths), {"resets": resets}
    return (x,), {"seq_lengths": lengths}


MODELS = {
    **{kind: tagger(kind) for kind in ("attention", "s4d", "lru", "mamba", "mamba2", "sugru")},
    "positions": tagger("gru", max_positions=STEPS),
    "bidirectional": tagger("gru", bidirectional=True),
    "last": Classifier(Backbone(("gru",), WIDTH), 2),
    "mean": Classifier(Backbone(("gru",), WIDTH), 2, "mean"),
    "pair": PairClassifier(Backbone(("gru",), WIDTH)),
    "text": text(),
    "adaptive": text(cutoffs=(3,)),
    "heads": MultiHeadRecurrent(Recurrent("gru", 4, switches.fourier(STEPS, groups=1)), 2),
    "two": nn.Bidirectional(Recurrent("gru", 4), Recurrent("gru", 4)),
}


def sharded(mesh, tree, spec=("data",)):
    return jax.device_put(tree, jax.NamedSharding(mesh, jax.P(*spec)))


def close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), got, want)


def mesh_now():
    return jax.make_mesh((jax.device_count(),), ("data",))


@pytest.mark.parametrize("name", tiered(MODELS, ["lru"]))
def test_an_explicit_mesh_changes_no_number(name):
    model = MODELS[name]
    x = TOKENS if isinstance(model, LanguageModel) else FRAMES

    def outputs(params, x, lengths, resets):
        args, options = called(model, x, lengths, resets)
        found = model.apply(params, *args, **options)
        found = getattr(found, "outputs", found)
        return jnp.sum(found**2), found

    args, options = called(model, x, LENGTHS, RESETS)
    params = jax.jit(model.init)(jax.random.key(1), *args, **options)
    gradient = jax.jit(jax.value_and_grad(outputs, has_aux=True))
    want = gradient(params, x, LENGTHS, RESETS)
    mesh = mesh_now()
    given = [sharded(mesh, leaf) for leaf in (x, LENGTHS, RESETS)]
    with jax.set_mesh(mesh):
        got = gradient(sharded(mesh, params, ()), *given)
        args, options = called(model, *given)
        made = jax.jit(lambda key: model.init(key, *args, **options))(jax.random.key(1))
    close(got, want)
    close(made, params)
    assert got[0][1].sharding.spec[0] == "data"


@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize(
    "name", tiered(["attention", "s4d", "lru", "mamba", "mamba2", "sugru", "min_gru"], ["s4d"])
)
def test_no_mixer_gathers_the_batch(name, axes):
    """A transform of Fourier over the steps, for one, is nothing that XLA cuts by rows."""
    layer = mixers.make(name, WIDTH, mixers.Options(switch=EVENT))
    options = {"return_carry": True} if isinstance(layer, Recurrent) else {}
    params = layer.init(jax.random.key(1), FRAMES)

    @jax.jit
    @jax.grad
    def gradient(params, x):
        return jnp.sum(layer.apply(params, x, **options)[1] ** 2)

    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(axes,))
    args = sharded(mesh, params, ()), sharded(mesh, FRAMES)
    with jax.set_mesh(mesh):
        program = gradient.lower(*args).compile().as_text()
        got = gradient(*args)
    assert "all-reduce" in program
    assert "all-gather" not in program
    assert "all-to-all" not in program
    close(got, gradient(params, FRAMES))


@pytest.mark.parametrize(
    "name", tiered(["attention", "s4d", "lru", "mamba", "mamba2", "sugru", "positions"], ["lru"])
)
def test_a_stream_on_an_explicit_mesh(name):
    model, mesh = MODELS[name], mesh_now()
    params = jax.jit(model.init)(jax.random.key(1), FRAMES)
    want = jax.jit(model.apply)(params, FRAMES).outputs

    @jax.jit
    def all_steps(params, x):
        carry = model.apply(params, x[:, :2]).carry
        outputs = []
        for t in range(2, STEPS):
            carry, y = model.apply(params, carry, x[:, t], method="step")
            outputs.append(y)
        return jnp.stack(outputs, axis=1)

    with jax.set_mesh(mesh):
        got = all_steps(sharded(mesh, params, ()), sharded(mesh, FRAMES))
    close(got, want[:, 2:])


@pytest.mark.full
def test_calibration_on_an_explicit_mesh():
    layer, mesh = Recurrent("gru", 4, EVENT), mesh_now()
    params = layer.init(jax.random.key(1), FRAMES)
    want = calibrate(layer, params, 3 * FRAMES, seq_lengths=LENGTHS)
    with jax.set_mesh(mesh):
        got = calibrate(
            layer, params, sharded(mesh, 3 * FRAMES), seq_lengths=sharded(mesh, LENGTHS)
        )
    close(got, want)
