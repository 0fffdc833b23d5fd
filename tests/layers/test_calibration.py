"""Event switches open at their rate in real data, whatever the model was made with."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import full

from surnn_jax.layers import (
    Backbone,
    Classifier,
    MultiHeadRecurrent,
    Options,
    PairClassifier,
    Recurrent,
    UnitCell,
    calibrate,
)
from surnn_jax.switches import event, fourier, threshold

B, T, D, H = 4, 40, 3, 16
SWITCH = event(T, rate=0.1)
X = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, D)), jnp.float32)
FAR = 3 + 10 * X
KEY = jax.random.key(0)


# Compiled whole: operation by operation, a model takes hundreds of programs.
def init(model, *args):
    return jax.jit(model.init)(KEY, *args)


def apply(model, variables, *args, **given):
    return jax.jit(model.apply)(variables, *args, **given)


def calibrated(model, variables, *args, **given):
    return jax.jit(functools.partial(calibrate, model))(variables, *args, **given)


class Own(nn.Module):
    """Two layers in a module of one's own."""

    @nn.compact
    def __call__(self, x, lengths=None):
        first = Recurrent("gru", H, SWITCH, name="first")(x, seq_lengths=lengths, return_run=True)
        second = Recurrent("tanh", H, threshold(T, rate=0.3), reverse=True)(
            nn.Dense(5)(first.outputs), seq_lengths=lengths, return_run=True
        )
        return first, second


@pytest.mark.full
def test_a_model_made_of_dummies_opens_at_its_rate():
    """A stack's upper layers see what moves below them, even where the input stands still."""
    layer = Recurrent("gru", H, SWITCH, return_run=True)
    variables = init(layer, jnp.zeros((B, T, D)))
    assert apply(layer, variables, X).rate == pytest.approx(0.1, abs=0.03)
    stack = Backbone(("sugru", "sugru"), H, options=Options(switch=SWITCH))
    encoded = apply(stack, init(stack, jnp.ones((1, T, D))), X)
    for trace in encoded.traces:
        assert trace.rate == pytest.approx(0.1, abs=0.05)


@pytest.mark.full
def test_a_dummy_changes_what_a_model_learns_from_but_not_what_it_says():
    """`init_with_output` answers for the input that it was given."""
    model = Classifier(Backbone(("sugru",), H, options=Options(switch=SWITCH)), 2)
    dummy = jnp.ones((1, T, D))
    result, params = jax.jit(model.init_with_output)(KEY, dummy)
    np.testing.assert_allclose(result.outputs, apply(model, params, dummy).outputs, atol=1e-6)


def test_calibrate_sets_every_layer_to_its_rate():
    lengths = jnp.asarray([T, 30, 0, 7])
    variables = init(Own(), jnp.ones((1, T, D)))
    before = apply(Own(), variables, FAR, lengths)
    assert abs(before[0].rate - 0.1) > 0.1
    moved = calibrated(Own(), variables, FAR, lengths)
    for run, rate in zip(apply(Own(), moved, FAR, lengths), (0.1, 0.3), strict=True):
        assert run.rate == pytest.approx(rate, abs=0.02)
    changed = [
        jax.tree_util.keystr(path)
        for path, same in jax.tree_util.tree_leaves_with_path(
            jax.tree.map(lambda a, b: bool((a == b).all()), variables, moved)
        )
        if not same
    ]
    assert changed == [
        "['params']['Recurrent_0']['switch']['b']",
        "['params']['first']['switch']['b']",
    ]
    assert jax.tree.structure(variables) == jax.tree.structure(moved)


@pytest.mark.full
def test_what_a_layer_is_shown_is_what_the_scan_shows():
    """With masks, resets, backwards and with the input before."""
    random = np.random.default_rng(1)
    switch = event(T, rate=0.2, event_features="pair")
    mask, resets = (jnp.asarray(random.uniform(size=(B, T)) < p) for p in (0.8, 0.1))
    options = {"mask": mask, "resets": resets, "seq_lengths": jnp.asarray([T, 33, 20, 9])}
    for reverse in (False, True):
        layer = Recurrent("gru", H, switch, reverse=reverse, keep_order=True, return_run=True)
        moved = calibrated(layer, init(layer, X), FAR, **options)
        run = apply(layer, moved, FAR, **options)
        valid = mask & (jnp.arange(T)[None] < options["seq_lengths"][:, None])
        each = run.update_mask[np.asarray(valid)].mean(0)
        np.testing.assert_allclose(each, 0.2, atol=1.5 / int(valid.sum()))


@pytest.mark.full
def test_heads_and_towers_are_calibrated():
    heads = MultiHeadRecurrent(Recurrent("gru", H, SWITCH), 2)
    moved = calibrated(heads, init(heads, X), FAR)
    heads = heads.clone(layer=heads.layer.clone(return_run=True))
    assert apply(heads, moved, FAR).rate == pytest.approx(0.1, abs=0.01)
    pair = PairClassifier(Backbone(("sugru",), H, options=Options(switch=SWITCH)))
    variables = init(pair, X, None, X, None)
    moved = calibrated(pair, variables, FAR, None, X, None)
    backbone = Backbone(("sugru",), H, options=Options(switch=SWITCH))
    encoded = apply(backbone, {"params": moved["params"]["backbone"]}, FAR)
    assert encoded.traces[0].rate == pytest.approx(0.1, abs=0.01)


def test_only_calibrate_moves_thresholds():
    layer = Recurrent("gru", H, SWITCH, return_run=True)
    variables = init(layer, X)
    plain = apply(layer, variables, FAR)
    everything, state = jax.jit(functools.partial(layer.apply, mutable=True))(variables, FAR)
    np.testing.assert_array_equal(plain.outputs, everything.outputs)
    assert list(state) == ["params"]


@pytest.mark.parametrize(
    "model",
    [
        Recurrent("gru", H),
        Recurrent("gru", H, fourier(T)),
        full(nn.RNN(UnitCell("gru", H, SWITCH))),
    ],
)
def test_a_model_without_thresholds_is_named(model):
    with pytest.raises(ValueError, match="calibrate: found no event or threshold switch"):
        calibrated(model, init(model, X), X)
