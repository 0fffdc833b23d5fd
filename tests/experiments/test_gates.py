"""What happened inside: counted by plain loops, differentiated by a plain loop, drawn as given."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import tiered

from experiments.analysis import gates, plots
from experiments.analysis.gradients import Reach, gradient_reach
from surnn_jax import scan, selective, switches
from surnn_jax.scan.unit import previous_inputs
from surnn_jax.switches import SwitchInputs

BATCH, STEPS, NEURONS = 3, 14, 5
LENGTHS = np.array([9, 0, 14])


def table(shared, seed=0):
    """A random table; neuron 0 is never open, neuron 1 always, within the lengths."""
    random = np.random.default_rng(seed)
    found = random.random((STEPS, NEURONS) if shared else (BATCH, STEPS, NEURONS)) < 0.3
    found[..., 0], found[..., 1] = False, True
    if not shared:
        found[0, 9:, 0] = True  # beyond the end
    return found


def cells(own, lengths):
    """Every example as lists: ``examples[b][i][t]``."""
    if lengths is None:
        many = [own] if own.ndim == 2 else own
        return [many_.T.tolist() for many_ in many]
    many = [own] * len(lengths) if own.ndim == 2 else own
    return [one[:n].T.tolist() for one, n in zip(many, lengths, strict=True)]


def drawn(unit, inputs, features, dtype=np.float32):
    """Random parameters, which NumPy makes sooner than `init` compiles."""
    random = np.random.default_rng(1)
    x = jnp.zeros((STEPS, 1, inputs), dtype)
    shapes = jax.eval_shape(lambda: unit.init(jax.random.key(0), x, features, dtype))
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), dtype), shapes)


def data(*shape, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


every_kind = pytest.mark.parametrize("shared", [True, False], ids=["shared", "each"])
with_lengths = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])


@every_kind
@with_lengths
def test_rates_are_counted(shared, lengths):
    own = table(shared)
    found = gates.update_rate(own, lengths)
    examples = cells(own, lengths)
    steps = sum(len(example[0]) for example in examples)
    by_neuron = [sum(sum(e[i]) for e in examples) / steps for i in range(NEURONS)]
    np.testing.assert_allclose(found.by_neuron, by_neuron, rtol=1e-12)
    for t in range(STEPS):
        seen = [e[i][t] for e in examples for i in range(NEURONS) if t < len(e[i])]
        assert found.by_step[t] == pytest.approx(sum(seen) / len(seen), rel=1e-12)
    assert found.mean == pytest.approx(sum(by_neuron) / NEURONS, rel=1e-12)
    beyond = lengths is None and not shared  # where neuron 0 is open after all
    assert (found.dead, found.always) == (0 if beyond else 1 / 5, 1 / 5)


def test_the_rate_is_that_of_the_run():
    unit = selective("gru", switches.event(STEPS, rate=0.3))
    x = data(STEPS, BATCH, 2)
    params = drawn(unit, 2, NEURONS)
    run = jax.jit(lambda: scan.run(unit, params, x, lengths=jnp.asarray(LENGTHS)))()
    opened = np.moveaxis(np.asarray(run.update_mask) == 1, 0, 1)
    found = gates.update_rate(opened, LENGTHS)
    assert 0 < found.mean < 1
    assert found.mean == pytest.approx(float(run.rate), rel=1e-6)
    # The state is the same, bit for bit, just as long as `memory` says.
    h = np.moveaxis(np.asarray(run.outputs), 0, 1)
    stretches = []
    for own, states, n in zip(opened, h, LENGTHS, strict=True):
        for i in range(NEURONS):
            before = None
            for t in range(n):
                if own[t, i]:
                    assert before is None or states[t, i] != before
                    stretches.append(0)
                if before is not None and not own[t, i]:
                    assert states[t, i] == before
                if stretches and (before is not None or own[t, i]):
                    stretches[-1] += 1
                    before = states[t, i]
    counts = gates.memory(opened, LENGTHS).counts
    assert counts.tolist() == [stretches.count(n) for n in range(STEPS + 1)]


@every_kind
@with_lengths
def test_memory_lasts_to_the_next_update_or_the_end(shared, lengths):
    own = table(shared)
    stretches = []
    for example in cells(own, lengths):
        for neuron in example:
            at = [t for t, is_open in enumerate(neuron) if is_open]
            until = [*at[1:], len(neuron)]
            stretches += [after - t for t, after in zip(at, until, strict=False)]
    found = gates.memory(own, lengths)
    assert found.longest == max(stretches)
    for share in (0.1, 0.5, 0.9, 1.0):
        assert found.quantile(share) == np.quantile(stretches, share, method="inverted_cdf")
    for n in range(STEPS + 1):
        longer = [s for s in stretches if s >= n]
        assert found.survival[n] == pytest.approx(len(longer) / len(stretches), abs=1e-12)
        assert found.held[n] == pytest.approx(sum(longer) / sum(stretches), abs=1e-12)


def test_where_nothing_was_written_there_is_no_memory():
    found = gates.memory(np.zeros((4, 2), bool))
    assert found.longest == 0
    assert math.isnan(found.quantile(0.5))
    assert np.isnan([*found.survival, *found.held]).all()


@every_kind
@with_lengths
def test_depth_counts_updates_after_a_step(shared, lengths):
    own = table(shared)
    found = gates.effective_depth(own, lengths)
    for t in range(STEPS):
        rows = []
        for example in cells(own, lengths):
            if t < len(example[0]):
                after = [sum(neuron[t + 1 :]) for neuron in example]
                busy = sum(any(now) for now in zip(*(n[t + 1 :] for n in example), strict=True))
                left = len(example[0]) - t - 1
                rows.append([sum(after) / NEURONS, max(after), busy, left])
        np.testing.assert_allclose([f[t] for f in found], np.mean(rows, axis=0), atol=1e-12)
    assert found.mean[0] < found.longest[0]


def test_depth_is_unknown_where_no_example_is_that_long():
    found = gates.effective_depth(table(True), np.array([5, 3]))
    assert np.isnan(np.stack(found)).all(0).tolist() == [t >= 5 for t in range(STEPS)]


@every_kind
@with_lengths
def test_rates_at_events_and_elsewhere(shared, lengths):
    own, events = table(shared), np.random.default_rng(1).random((BATCH, STEPS)) < 0.4
    found = gates.rate_at_events(own, events, lengths)
    own = np.broadcast_to(own, (BATCH, STEPS, NEURONS))
    seen = {True: [], False: []}
    for b in range(BATCH):
        for t in range(STEPS if lengths is None else lengths[b]):
            seen[bool(events[b, t])].append(own[b, t])
    np.testing.assert_allclose(found.neurons_at, np.mean(seen[True], axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.neurons_elsewhere, np.mean(seen[False], axis=0), rtol=1e-12)
    assert found.at == pytest.approx(np.mean(seen[True]), rel=1e-12)
    assert found.elsewhere == pytest.approx(np.mean(seen[False]), rel=1e-12)
    assert math.isnan(gates.rate_at_events(own, events | True, lengths).elsewhere)


def test_periods_of_pulses_and_of_a_rhythm():
    steps = 400
    t = np.arange(steps)
    pulses = [t % 11 == 3, t % 50 < 10, np.sin(2 * np.pi * t / 33.4 + 1) > 0.2]
    slow = np.cos(2 * np.pi * t / 300) > 0.5
    noise = np.random.default_rng(0).random(steps) < 0.2
    opened = np.stack([*pulses, slow, noise, t < 0, t >= 0], axis=-1)
    found = gates.periods(opened)
    assert found.between[:2].tolist() == [11, 50]
    assert found.between[2] == pytest.approx(33.4, abs=0.6)  # whole steps
    assert np.isnan(found.between[[3, 5, 6]]).all()
    # A grid eight times as fine as the resolution, so P² / (16 T) off at most, here 0.4.
    np.testing.assert_allclose(found.dominant[:3], [11, 50, 33.4], rtol=0.008)
    assert np.isnan(found.dominant[[3, 5, 6]]).all()
    # The first line of pulses w steps long, P apart, as the discrete Fourier series has it.
    for i, (wide, apart) in enumerate([(1, 11), (10, 50)]):
        d = wide / apart
        ratio = math.sin(math.pi * d) / math.sin(math.pi / apart)
        first = 2 * (ratio / apart) ** 2 / (d * (1 - d))
        assert found.strength[i] == pytest.approx(first, rel=0.01)
    assert found.strength[4] < 0.1


def test_periods_within_examples_alone():
    opened = np.zeros((3, 12, 1), bool)
    opened[0, [1, 4, 11]], opened[1, [2, 5, 9], 0], opened[2, 3] = True, True, True
    found = gates.periods(opened, np.array([10, 12, 12]))
    assert found.between.tolist() == [3]  # of 3 | 3, 4; not 7, beyond the end
    # A table for all: its longest example, once.
    shared = gates.periods(opened[1], np.array([6, 12, 3]))
    np.testing.assert_array_equal(shared, gates.periods(opened[1]))


def test_a_summary_leaves_out_what_is_unknown():
    own, events = table(False), np.zeros((BATCH, STEPS), bool)
    events[:, ::4] = True
    found = gates.summary(own, LENGTHS, events)
    rate, split = gates.update_rate(own, LENGTHS), gates.rate_at_events(own, events, LENGTHS)
    assert found["update_rate"] == rate.mean
    assert found["rate_at_events"] == split.at
    assert found["memory_p90"] == gates.memory(own, LENGTHS).quantile(0.9)
    assert found["depth_dense"] == (8 + 13) / 2
    assert {type(value) for value in found.values()} == {float}
    assert "period_median" not in gates.summary(np.zeros((3, 2), bool))


@pytest.mark.parametrize(
    ("own", "lengths", "message"),
    [
        (np.ones((3, 2)), None, r"booleans \[T, H\] or \[B, T, H\], but is float64 \[3, 2\]"),
        (np.ones(3, bool), None, r"but is bool \[3\]"),
        (np.ones((2, 3, 2), bool), np.array([1]), r"integers \[2\], but are int64 \[1\]"),
        (np.ones((3, 2), bool), np.array([1.0]), r"integers \[B\], but are float64 \[1\]"),
        (np.ones((3, 2), bool), np.array([4]), r"lie in 0\.\.3"),
        (np.ones((3, 2), bool), np.array([-1]), r"lie in 0\.\.3"),
        (np.ones((3, 2), bool), np.array([0, 0]), "no valid step"),
    ],
)
def test_tables_are_refused(own, lengths, message):
    for function in (gates.update_rate, gates.memory, gates.periods, gates.effective_depth):
        with pytest.raises(ValueError, match=message):
            function(own, lengths)


def test_events_are_refused():
    own = np.ones((2, 3, 2), bool)
    with pytest.raises(ValueError, match=r"booleans \[B, T\], but are float64"):
        gates.rate_at_events(own, np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"events are \[2, 4\], but the table has 2 examples of 3"):
        gates.rate_at_events(own, np.ones((2, 4), bool), np.array([3, 3]))


def plain_reach(unit, params, x, loss, lengths, t):
    """|∂L/∂h[t]| of each example, by a Python loop that is cut after step t."""
    table, steps = None, x.shape[0]
    if unit.switch is not None:
        seen = SwitchInputs(x, previous_inputs(x, jnp.zeros_like(x[0])), jnp.arange(steps))
        table = unit.switch.logits(params["switch"], seen) > 0
    start = unit.cell.initial_carry(params["cell"], x.shape[1:2])

    def walk(carry, first, last):
        carries = []
        for s in range(first, last):
            new = unit.cell.step(params["cell"], carry, x[s])
            g = jnp.ones_like(carry.h, bool)
            if table is not None:
                g = jnp.broadcast_to(table[s][None] if table.ndim == 2 else table[s], g.shape)
            g = g & (s < lengths)[:, None]
            carry = jax.tree.map(lambda n, o, g=g: jnp.where(g, n, o), new, carry)
            carries.append(carry)
        return carries

    until = walk(start, 0, t + 1)

    def after(here):
        carries = [*until[:-1], here, *walk(here, t + 1, steps)]
        outputs = [jnp.where((s < lengths)[:, None], carry.h, 0) for s, carry in enumerate(carries)]
        return loss(jnp.stack(outputs), carries[-1])

    slopes = jax.grad(after)(until[-1])
    return np.sqrt(sum(np.square(np.asarray(leaf)).sum(-1) for leaf in slopes))


REACHES = {
    "dense": ("tanh", None, None),
    "fourier": ("gru", switches.fourier(11, rate=0.4), [7, 11]),
    "event": ("lstm", switches.event(11, rate=0.4, event_features="pair"), [11, 4]),
}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", tiered(REACHES, ["event"]))
def test_gradient_reach_is_that_of_a_plain_loop(name):
    cell, switch, lengths = REACHES[name]
    unit = selective(cell, switch)
    x, weight = data(11, 2, 3, dtype=np.float64), data(11, 2, 4, dtype=np.float64)
    params = drawn(unit, 3, 4, np.float64)

    def loss(outputs, carry):
        carry = getattr(carry, "cell", carry)
        return (jnp.sin(outputs) * weight).sum() + jnp.square(carry.h).sum()

    given = None if lengths is None else jnp.asarray(lengths)
    found = gradient_reach(unit, params, x, loss, times=4, lengths=given)
    assert found.times.tolist() == [2, 5, 8]
    ends = np.array(lengths or [11, 11])
    for t, norms in zip(found.times, found.norms, strict=True):
        wanted = plain_reach(unit, params, x, loss, jnp.asarray(ends), int(t))
        np.testing.assert_allclose(norms, np.where(t < ends, wanted, np.nan), rtol=1e-10)
    for b, end in enumerate(ends):
        wanted = plain_reach(unit, params, x, loss, jnp.asarray(ends), int(end) - 1)
        assert found.last[b] == pytest.approx(wanted[b], rel=1e-10)


def test_a_closed_switch_hands_the_gradient_on_unchanged():
    unit = selective("gru", switches.fourier(30))
    x, params = data(30, 2, 3), drawn(unit, 3, 4)
    params["switch"]["b"] = params["switch"]["b"] - 100
    found = gradient_reach(unit, params, x, lambda outputs, carry: outputs[-1].sum(), times=100)
    assert found.times.tolist() == list(range(29))
    assert (found.norms == 2).all()  # the root of 4 neurons
    assert (found.relative == 1).all()


def test_relative_is_the_median_of_those_left():
    norms = np.array([[1.0, 8.0, 3.0, 5.0], [2.0, np.nan, 3.0, 5.0], [np.nan] * 4])
    found = Reach(np.arange(3), norms, np.array([2.0, 2.0, 1.0, 0.0])).relative
    np.testing.assert_array_equal(found, [3.0, 2.0, np.nan])


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((5, 3), {}, r"x must have shape \[T, B, D\]"),
        ((5, 2, 3), {"times": 0}, "times must be at least 1"),
        ((5, 2, 3), {"lengths": jnp.array([3])}, r"lengths must be \[2\]"),
        ((5, 2, 3), {"lengths": jnp.array([3, 6])}, r"lie in 0\.\.5"),
        ((5, 2, 3), {}, "does not depend on the state after the last step"),
    ],
)
def test_reach_refuses(shape, arguments, message):
    unit = selective("gru", None)
    params = drawn(unit, 3, 4)
    with pytest.raises(ValueError, match=message):
        gradient_reach(unit, params, jnp.zeros(shape), lambda o, c: o[0].sum(), **arguments)


def test_figures_show_what_they_are_given(tmp_path):
    own = table(False)
    rate = gates.update_rate(own, np.array([9, 0, 12]))
    drawn = plots.rate_over_time({"layer 1": rate, "layer 2": rate}, tmp_path / "r.png")
    assert len(drawn.axes) == 2
    for axis in drawn.axes:
        heights, edges, _ = axis.patches[0].get_data()
        np.testing.assert_allclose(heights, 100 * rate.by_step[:12], rtol=1e-12)
        assert edges.tolist() == list(range(13))
        assert f"{100 * rate.mean:.1f} %" in axis.get_title(loc="left")

    between = np.array([2.0, 2.0, 40.0, 300.0, np.nan])
    drawn = plots.periods({"a": between, "b": between[:2]}, tmp_path / "p.png")
    for axis, wanted in zip(drawn.axes, ([2.0, 2.0, 40.0, 300.0], [2.0, 2.0]), strict=True):
        counts, edges, _ = axis.patches[0].get_data()
        np.testing.assert_array_equal(counts, np.histogram(wanted, edges)[0])
        assert counts.sum() == len(wanted)
    titles = [axis.get_title(loc="left") for axis in drawn.axes]
    assert titles == ["a: 5 neurons, 1 without a measurable period", "b: 2 neurons"]

    kept = gates.memory(own, LENGTHS)
    drawn = plots.memory_survival({"a": kept}, tmp_path / "m.png")
    for axis, share in zip(drawn.axes, (kept.survival, kept.held), strict=True):
        x, y = axis.lines[0].get_data()
        np.testing.assert_allclose(y, 100 * share[1 : kept.longest + 1], rtol=1e-12)
        assert list(x) == list(range(1, kept.longest + 1))

    norms = np.array([[1e-30, 1e-30], [0.0, 0.0], [1e-6, 4.0]])
    reach = Reach(np.array([1, 3, 7]), norms, np.array([1.0, 2.0]))
    (axis,) = plots.gradient_reach({"a": reach}, tmp_path / "g.png", steps=12).axes
    x, y = axis.lines[0].get_data()
    assert list(x) == [1, 3, 7, 11]
    np.testing.assert_allclose(y, [7.5e-31, np.nan, (1e-6 + 2) / 2, 1], rtol=1e-12)
    assert axis.get_yscale() == "log"
    assert axis.get_ylim()[0] == 1e-12
    assert "below" in axis.get_title(loc="left")
    for name in "rpmg":
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda path: plots.rate_over_time({}, path), "nothing to draw"),
        (lambda path: plots.periods({"a": np.array([np.nan])}, path), "no period"),
        (
            lambda path: plots.memory_survival({"a": gates.Memory(np.zeros(3))}, path),
            "a: nothing was ever written",
        ),
    ],
)
def test_figures_refuse(tmp_path, draw, message):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
