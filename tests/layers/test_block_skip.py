"""Blocks that rest as a whole, against the ordinary block stepped and held by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_case import close, data, drawn
from tiers import tiered

from surnn_jax import switches
from surnn_jax.layers import Backbone, Block, BlockCarry, Classifier, Options, calibrate, export
from surnn_jax.switches import SwitchInputs

BATCH, STEPS, WIDTH = 64, 14, 4  # so many rows that a piece holds four steps
SWITCHES = {
    "rhythm": switches.fourier(STEPS, rate=0.3),
    "event": switches.event(STEPS, rate=0.3, scale="weights"),
    "pair": switches.event(STEPS, rate=0.3, event_features="pair"),
    "every": switches.every(STEPS, n=3),
    "sigmoid": switches.fourier(STEPS, rate=0.3, gate="sigmoid"),
    "share": switches.fourier(STEPS, rate=0.3, gate=switches.triangular(0.5, 0.2)),
    "event-share": switches.event(STEPS, rate=0.3, gate=switches.triangular(0.5, 0.2)),
    "frozen": switches.event(STEPS, rate=0.3, frozen=True),
}
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture
def wide():
    """In float64, for comparisons with an oracle; Flax's norms then promote."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


def block(kind="sugru", switch="rhythm", backend="auto", **more):
    hidden = more.pop("hidden", None)
    options = Options(SWITCHES[switch], hidden=hidden, backend=backend)
    return Block(kind, WIDTH, options, skip="block", **more)


def case(module, contracts, seed=3):
    """Parameters, an input, lengths and resets, by the letters of `contracts`: l, r."""
    x = data(BATCH, STEPS, WIDTH, seed=seed)
    lengths = jnp.arange(BATCH) % (STEPS + 1) if "l" in contracts else None
    resets = data(BATCH, STEPS, seed=5) > 1 if "r" in contracts else None
    params = jax.tree.map(lambda leaf: leaf.astype(x.dtype), drawn(module, x))
    if "switch" in params["mixer"]:  # so that all kinds of steps occur
        params["mixer"]["switch"]["b"] = params["mixer"]["switch"]["b"] * 0 - 0.3
    return params, x, lengths, resets


def weighed(outputs, lengths):
    """A scalar of all valid outputs, each with a weight of its own."""
    weights = data(*outputs.shape, seed=9)
    if lengths is not None:
        weights = jnp.where((jnp.arange(STEPS)[None] < lengths[:, None])[..., None], weights, 0)
    return (weights * outputs).sum()


def of_block(module, lengths, resets):
    def loss(params, x, carry):
        after, y, trace = module.apply({"params": params}, x, lengths, carry, False, resets)
        tail = sum(map(jnp.sum, jax.tree.leaves((after.mixer.cell, after.held))))
        return weighed(y, lengths) + tail + trace.rate, (y, after)

    return loss


def by_hand(module, switch, lengths, resets):
    """The ordinary block's own step at every step, whose result is taken where the switch opens."""
    plain = Block("gru", WIDTH, expand=module.expand)
    norm = nn.LayerNorm(use_bias=False)
    gate = switch.gate

    def loss(params, x, carry):
        weights = {**params, "mixer": {"cell": params["mixer"]["cell"]}}
        turned = jnp.swapaxes(norm.apply({"params": params["norm"]}, x), 0, 1)
        t = jnp.broadcast_to(jnp.arange(STEPS)[:, None], (STEPS, BATCH))
        begins = jnp.zeros((STEPS, BATCH), bool) if resets is None else resets.T
        valid = jnp.ones((STEPS, BATCH), bool)
        if lengths is not None:
            valid = jnp.arange(STEPS)[:, None] < lengths[None]
        begins = begins & valid
        last = jax.lax.cummax(jnp.where(begins, t, 0), axis=0)
        previous = jnp.concatenate([jnp.zeros_like(turned[:1]), turned[:-1]])
        previous = jnp.where(begins[..., None], 0, previous)
        given = params["mixer"].get("switch", {})
        clock = t - last if resets is not None else jnp.arange(STEPS)
        seen = SwitchInputs(turned, previous, clock, valid, features=1)
        logits = switch.logits(given, seen)[..., 0]
        logits = jax.lax.stop_gradient(logits) if switch.frozen else logits
        logits = logits[:, None] if logits.ndim == 1 else logits
        g = jnp.where(valid, jnp.broadcast_to(gate(logits), (STEPS, BATCH)), 0)

        def step(state, now):
            state = jax.tree.map(lambda leaf: jnp.where(now[2][:, None], 0, leaf), state)
            carry, y = plain.apply({"params": weights}, state[0], now[0], method="step")
            opened = (carry, y - now[0])
            state = jax.tree.map(
                lambda new, old: old + now[1][:, None] * (new - old), opened, state
            )
            return state, now[0] + state[1]

        start = (carry.mixer.cell, carry.held)
        end, y = jax.lax.scan(step, start, (jnp.swapaxes(x, 0, 1), g, begins))
        rate = jnp.where(valid, g, 0).sum() / valid.sum()
        y = jnp.swapaxes(y, 0, 1)
        return weighed(y, lengths) + sum(map(jnp.sum, jax.tree.leaves(end))) + rate, (y, *end)

    return loss


@pytest.mark.parametrize(
    ("switch", "contracts"),
    tiered(
        [("rhythm", ""), ("event", ""), ("rhythm", "l"), ("rhythm", "r"), ("event", "lr"),
         ("pair", "r"), ("every", "l"), ("sigmoid", ""), ("frozen", "r")],
        [("rhythm", ""), ("event", "lr")],
    ),
)  # fmt: skip
@pytest.mark.usefixtures("wide")
def test_a_resting_block_is_the_ordinary_one_whose_result_is_held(switch, contracts):
    module = block(switch=switch)
    params, x, lengths, resets = case(module, contracts)
    carry = module.apply({"params": params}, (BATCH,), method="initial_carry")
    carry = carry._replace(held=data(BATCH, WIDTH, seed=7))
    carry = carry._replace(mixer=carry.mixer._replace(clock=jnp.zeros((), jnp.int32)))
    switch = module.bind({"params": params}).mixer.switch

    @jax.jit
    def run(params, x, held):
        found = []
        for loss in (
            of_block(module, lengths, resets),
            by_hand(module, switch, lengths, resets),
        ):
            of_arrays = functools.partial(
                lambda loss, params, x, held: loss(params, x, carry._replace(held=held)), loss
            )
            found.append(jax.value_and_grad(of_arrays, (0, 1, 2), has_aux=True)(params, x, held))
        return found

    ((loss, (y, after)), slopes), ((wanted, (wanted_y, cell, held)), wanted_slopes) = run(
        params, x, carry.held
    )
    inside = np.ones((BATCH, STEPS), bool)
    if lengths is not None:
        inside = np.arange(STEPS)[None] < np.asarray(lengths)[:, None]
    close(y[inside], wanted_y[inside], **TIGHT)
    close((after.mixer.cell, after.held), (cell, held), **TIGHT)
    close(loss, wanted, **TIGHT)
    if switch.frozen:
        slopes[0]["mixer"].pop("switch", None), wanted_slopes[0]["mixer"].pop("switch", None)
    close(slopes, wanted_slopes, **TIGHT)
    learns = slopes[0]["mixer"].get("switch", {})
    assert all(np.abs(leaf).max() > 1e-2 for leaf in learns.values()), learns


@pytest.mark.parametrize(
    ("kind", "switch", "contracts", "more"),
    tiered(
        [
            ("sulstm", "rhythm", "", {"hidden": 3}),
            ("sugru_before", "event", "lr", {"expand": 0.0}),
            ("sutanh", "share", "", {}),
            ("sugru", "event-share", "l", {}),
            ("sulstm", "pair", "r", {"dropout": 0.4}),
        ],
        [],
    ),
)
@pytest.mark.usefixtures("wide")
def test_it_skips_and_masks_alike(kind, switch, contracts, more):
    skipping, masking = (block(kind, switch, name, **more) for name in ("auto", "masked"))
    params, x, lengths, resets = case(skipping, contracts)

    def loss(module, params, x):
        rngs = {"dropout": jax.random.key(4)}
        after, y, _ = module.apply({"params": params}, x, lengths, None, True, resets, rngs=rngs)
        return weighed(y, lengths) + after.held.sum(), y

    runs = [
        jax.jit(jax.value_and_grad(functools.partial(loss, m), (0, 1), has_aux=True))
        for m in (skipping, masking)
    ]
    close(*(run(params, x) for run in runs), **TIGHT)


def test_open_at_every_step_it_is_the_ordinary_block():
    module = Block("sugru", WIDTH, Options(switches.every(STEPS, n=1)), skip="block")
    plain = Block("gru", WIDTH)
    params, x, _, _ = case(module, "")
    y = jax.jit(lambda x: module.apply({"params": params}, x)[1])(x)
    close(y, jax.jit(lambda x: plain.apply({"params": params}, x)[1])(x))


@pytest.mark.parametrize("switch", tiered(["rhythm", "pair"], ["rhythm"]))
def test_a_stream_gives_what_the_sequence_gives(switch):
    switch = {"pair": switches.event(STEPS, event_features="pair", scale="weights")}.get(
        switch, SWITCHES[switch]
    )
    module = Block("sugru", WIDTH, Options(switch), skip="block")
    x, resets = data(3, STEPS, WIDTH), data(3, STEPS, seed=5) > 1
    variables = {"params": drawn(module, x)}
    carry, y, trace = jax.jit(lambda x: module.apply(variables, x, None, None, False, resets))(x)
    assert 0 < trace.rate < 1
    assert trace.update_mask.shape == (3, STEPS, 1)

    @jax.jit
    def stream(x):
        def step(carry, now):
            return module.apply(variables, carry, *now, method="step")

        start = module.apply(variables, (3,), method="initial_carry")
        return jax.lax.scan(step, start, (jnp.swapaxes(x, 0, 1), resets.T))

    last, steps = stream(x)
    close(jnp.swapaxes(steps, 0, 1), y)
    close(last, carry)
    assert isinstance(last, BlockCarry)

    part = jax.jit(lambda x, carry, resets: module.apply(variables, x, None, carry, False, resets))
    between, first, _ = part(x[:, :5], None, resets[:, :5])
    end, second, _ = part(x[:, 5:], between, resets[:, 5:])
    close(jnp.concatenate([first, second], 1), y)
    close(end, carry)


def test_padding_changes_nothing_and_nothing_is_read_from_it():
    module = block(switch="event")
    params, x, _, _ = case(module, "")
    x, lengths = x[:3], jnp.array([STEPS, 5, 0])
    inside = (jnp.arange(STEPS)[None] < lengths[:, None])[..., None]

    @jax.jit
    def run(params, x):
        def loss(params, x):
            carry, y, _ = module.apply({"params": params}, x, lengths)
            return jnp.where(inside, y, 0).sum(), (carry, jnp.where(inside, y, 0))

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    found = run(params, x)
    close(found, run(params, jnp.where(inside, x, jnp.nan)))
    carry, _ = found[0][1]
    assert carry.mixer.clock.tolist() == [STEPS, 5, 0]
    assert (carry.held[2] == 0).all()
    alone, y, _ = jax.jit(lambda x: module.apply({"params": params}, x))(x[1:2, :5])
    close(found[0][1][1][1, :5], y[0])
    close(carry.held[1], alone.held[0])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"switch": switches.fourier(9, groups=2)}, "one schedule: .* got fourier"),
        ({"switch": switches.zoneout(9)}, "one schedule: .* got zoneout"),
        ({"no_residual": True}, "wants residuals"),
        ({"bidirectional": True}, "reads in one direction"),
        ({"kind": "gru"}, "wants a layer with a switch"),
    ],
)
def test_what_cannot_rest_as_a_whole_is_refused(fields, words):
    kind = fields.pop("kind", "sugru")
    module = Block(kind, 4, Options(fields.pop("switch", None)), skip="block", **fields)
    with pytest.raises(ValueError, match=words):
        module.init(jax.random.key(0), jnp.ones((2, 3, 4)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"resets": jnp.zeros((5, 3), bool)},
            r"resets must be booleans of shape \(3, 5\), got bool",
        ),
        ({"resets": jnp.zeros((3, 5), int)}, r"resets must be booleans .* got int32"),
        ({"lengths": jnp.ones(3)}, r"seq_lengths must be integers of shape \(3,\), got float32"),
        ({"carry": "of the mixer"}, "carry must be a BlockCarry, got SelectiveCarry"),
        ({"carry": "too small"}, r"carry.held must have shape \(3, 4\), got \(1, 4\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_computed(given, words):
    module, x = block(), jnp.ones((3, 5, WIDTH))

    def call(**given):
        params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
        carry = module.apply({"params": params}, (3,), method="initial_carry")
        if "carry" in given:
            small = carry._replace(held=carry.held[:1])
            given["carry"] = carry.mixer if given["carry"] == "of the mixer" else small
        return module.apply({"params": params}, x, **given)

    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda: call(**given))


def test_derivatives_beyond_the_first_are_refused():
    """Those of the loops as they stand lack the surrogate of the switch."""
    module, x = block(switch="event"), data(2, 5, WIDTH)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)

    def loss(params):
        return jnp.sum(module.apply({"params": params}, x)[1])

    def many(params):
        return jax.lax.scan(lambda c, _: (c + loss(params), None), 0.0, None, length=2)[0]

    for function in (loss, many):
        slope = jax.grad(lambda p, f=function: jax.grad(f)(p)["norm"]["scale"].sum())
        forward = jax.jacfwd(lambda p, f=function: jax.grad(f)(p)["norm"]["scale"].sum())
        for second in (slope, forward):
            with pytest.raises(ValueError, match=r"first derivatives .*backend='masked'"):
                jax.eval_shape(second, params)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
@pytest.mark.parametrize("switch", ["rhythm", "event"])
def test_on_a_mesh_it_gives_the_same(kind, switch):
    module = block(switch=switch)
    params, x, _, _ = case(module, "")

    def run(params, x):
        carry, y, trace = module.apply({"params": params}, x)
        return jnp.sum(y**2) + trace.rate, (y, carry)

    @jax.jit
    def slopes(params, x):
        return jax.value_and_grad(run, has_aux=True)(params, x)

    alone = slopes(params, x)
    axis = getattr(jax.sharding.AxisType, kind)
    with jax.set_mesh(jax.make_mesh((2,), ("data",), axis_types=(axis,))):
        sharded = jax.device_put(x, jax.P("data"))
        close(slopes(params, sharded), alone, rtol=1e-4, atol=1e-3)


@pytest.mark.full
@pytest.mark.parametrize("backend", ["auto", "masked"])
def test_inside_shard_map_it_gives_the_same(backend):
    module = block(switch="event", backend=backend)
    params, x, _, _ = case(module, "")
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def loss(params, x):
        return jnp.sum(module.apply({"params": params}, x)[1] ** 2)

    def shared(params, x):
        rows = jax.P("data")
        total = jax.shard_map(
            lambda params, x: jax.lax.psum(loss(params, x), "data"),
            mesh=mesh,
            in_specs=(jax.P(), rows),
            out_specs=jax.P(),
        )
        return total(params, x)

    found, wanted = (jax.jit(jax.value_and_grad(f, (0, 1)))(params, x) for f in (shared, loss))
    close(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.full
def test_a_stack_is_calibrated_trained_and_exported():
    options = Options(switches.event(STEPS, rate=0.25))
    model = Classifier(
        Backbone(("sugru", "s4d", "sugru"), 8, options=options, skip="block", dropout=0.1), 3
    )
    x = data(32, STEPS, 5)
    variables = calibrate(model, model.init(jax.random.key(0), jnp.ones((2, STEPS, 5))), x)
    found = model.apply(variables, x)
    assert len(found.traces) == 2
    for trace in found.traces:
        assert abs(trace.rate - 0.25) < 0.03

    def loss(params, x):
        rngs = {"dropout": jax.random.key(1)}
        return model.apply({"params": params}, x, train=True, rngs=rngs).outputs.sum()

    slopes = jax.jit(jax.grad(loss))(variables["params"], x)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    many = jax.vmap(jax.grad(loss), (None, 0))(variables["params"], jnp.stack([x, x[::-1]]))
    close(jax.tree.map(lambda leaf: leaf[0], many), slopes, rtol=1e-4, atol=1e-4)

    model = Classifier(Backbone("sugru", 8, options=options, skip="block"), 3)
    variables = model.init(jax.random.key(0), x)
    call = jax.export.deserialize(
        bytearray(export.sequence(model, variables, x, platforms=("cpu",)))
    ).call
    lengths = jnp.full((32,), STEPS, jnp.int32)
    close(call(x, lengths), model.apply(variables, x, lengths).outputs, rtol=1e-4, atol=1e-5)
