"""A prepared unit: bit by bit the native scan, in one call, in pieces and step by step."""

import copy
import functools
from concurrent.futures import ThreadPoolExecutor

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import full, tiered

from surnn_jax import scan, selective, switches
from surnn_jax.scan import native
from surnn_jax.scan.native import library

pytestmark = pytest.mark.skipif(
    not native.available(), reason=f"no compiled kernel: {library.load()}"
)

STEPS, WIDTH, FEATURES = 12, 3, 19
SWITCHES = {
    "none": None,
    "every": switches.every(3, n=2),
    "fourier": switches.fourier(12, rate=0.3),
    "event": switches.event(12, rate=0.3),
    "pair": switches.event(12, rate=0.3, event_features="pair"),
    "trace": switches.event(12, rate=0.3, event_features="trace"),
}
CELLS = ("tanh", "gru", "lstm", "lstm_peephole")
CASES = [(cell, switch) for cell in CELLS for switch in SWITCHES]


@pytest.fixture(autouse=True)
def _undo():
    before = native.kernels()
    yield
    native.select(before)


@functools.cache
def make(cell="gru", switch="fourier", batch=(1,)):
    """A unit, parameters of which none is zero, and inputs."""
    unit = selective(cell, SWITCHES[switch])
    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS, *batch, WIDTH)).astype(np.float32)
    params = jax.jit(lambda x: unit.init(jax.random.key(1), x, FEATURES))(x)
    shaken = jax.tree.map(lambda v: v + random.normal(0, 0.1, v.shape).astype(v.dtype), params)
    return unit, {**params, "cell": shaken["cell"]}, x


def assert_same_bits(found, wanted):
    """Values, shapes, dtypes and form."""
    chex.assert_trees_all_equal_shapes_and_dtypes(found, wanted)
    chex.assert_trees_all_equal(found, wanted)


@functools.cache
def native_run(unit):
    def run(params, x, carry=None):
        return scan.run(unit, params, x, carry=carry, backend="native")

    return jax.jit(run)


def stream(ready, carry, frames):
    outputs = []
    for frame in frames:
        carry, h = ready.step(carry, frame)
        outputs.append(h)
    return carry, np.stack(outputs)


@pytest.mark.parametrize(
    ("cell", "switch"),
    tiered(CASES, [("gru", "none"), ("gru", "fourier"), ("lstm", "event")]),
)
def test_the_bits_of_the_native_scan(cell, switch):
    unit, params, x = make(cell, switch)
    wanted = native_run(unit)(params, x)
    ready = scan.prepare(unit, params)
    carry, outputs = ready.run(x)
    assert_same_bits(outputs, np.asarray(wanted.outputs))
    assert_same_bits(carry, wanted.carry)
    middle, first = ready.run(x[:5])
    end, rest = ready.run(x[5:], middle)
    assert_same_bits((end, np.concatenate([first, rest])), (carry, outputs))
    assert_same_bits(stream(ready, None, x), (carry, outputs))


def test_equals_the_loop():
    unit, params, x = make(batch=(2, 3))
    wanted = jax.jit(lambda params, x: scan.run(unit, params, x, backend="reference"))(params, x)
    ready = scan.prepare(unit, params)
    for carry, outputs in (ready.run(x), stream(ready, None, x)):
        chex.assert_trees_all_close(outputs, np.asarray(wanted.outputs), atol=1e-5)
        chex.assert_trees_all_equal_shapes_and_dtypes(carry, wanted.carry)
        chex.assert_trees_all_close(carry, wanted.carry, atol=1e-5)


@pytest.mark.parametrize("switch", [full("every"), "fourier"])
def test_carries_go_to_and_from_run(switch):
    unit, params, x = make(switch=switch)
    whole = native_run(unit)(params, x)
    begun = native_run(unit)(params, x[:4]).carry
    ready = scan.prepare(unit, params)
    carry, outputs = ready.run(x[4:9], begun)
    chex.assert_trees_all_equal(outputs, np.asarray(whole.outputs[4:9]))
    rest = native_run(unit)(params, x[9:], carry)
    chex.assert_trees_all_equal(rest.outputs, whole.outputs[9:])


@pytest.mark.parametrize("clock", [[5, 5], [2, 7], 4])
def test_clocks_of_rows(clock):
    """One for both, different ones, and a scalar, which stays one."""
    unit, params, x = make(switch="every", batch=(2,))
    zero = unit.initial_carry(params, (2,))
    carry = zero._replace(clock=jnp.asarray(clock, jnp.int32))
    wanted = native_run(unit)(params, x, carry)
    end, outputs = scan.prepare(unit, params).run(x, carry)
    chex.assert_trees_all_close(outputs, np.asarray(wanted.outputs), atol=1e-6)
    assert_same_bits(end.clock, wanted.carry.clock)


@pytest.mark.parametrize("clock", [1020, 2**31 - 4, -6])
def test_a_stream_goes_on_where_tables_and_the_clock_end(clock):
    """A table ends at 1,024; the clock is unsigned, in 32 bits that JAX has signed."""
    _, params, x = make(switch="every")
    unit = selective("gru", switches.every(9, n=3))  # no divisor of 1,024
    carry = unit.initial_carry(params, (1,))._replace(clock=jnp.full(1, clock, jnp.int32))
    wanted = native_run(unit)(params, x, carry)
    ready = scan.prepare(unit, params)
    for found in (ready.run(x, carry), stream(ready, carry, x)):
        assert_same_bits(found, (wanted.carry, np.asarray(wanted.outputs)))


def test_a_step_without_an_opening_copies_nothing():
    unit, params, x = make(switch="every")  # at the steps 0, 2, 4, …
    unit = selective("gru", switches.every(3, n=2, staggered=False))
    ready = scan.prepare(unit, params)
    opened, h = ready.step(None, x[0])
    closed, same = ready.step(opened, x[1])
    assert same is h is closed.cell.h
    assert closed.clock == 2


def test_it_keeps_the_instruction_set_it_was_packed_for():
    unit, params, x = make()
    native.select("portable")
    ready = scan.prepare(unit, params)
    wanted = ready.run(x)
    native.select(library.load().surnn_kernels().decode())
    for name in ("avx2", "avx512", "neon"):
        if library.load().surnn_select(name.encode()):
            assert_same_bits(ready.run(x), wanted)


@pytest.mark.parametrize("same", [copy.copy, copy.deepcopy])
def test_copies_pack_anew(same):
    """A copy that shared the memory would read it after it is freed."""
    unit, params, x = make()
    ready = scan.prepare(unit, params)
    wanted = ready.run(x)
    other = same(ready)
    del ready
    assert_same_bits(other.run(x), wanted)


def test_threads_share_one():
    unit, params, x = make("lstm")
    ready = scan.prepare(unit, params)
    wanted = stream(ready, None, x)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: stream(ready, None, x), range(16)):
            assert_same_bits(found, wanted)


@pytest.mark.parametrize(
    ("shape", "switch"),
    tiered(
        [
            ((0, 1, WIDTH), "fourier"), ((4, 0, WIDTH), "fourier"), ((4, WIDTH), "fourier"),
            ((4, 0, WIDTH), "pair"), ((0, 1, WIDTH), "trace"),
        ],
        [((4, WIDTH), "fourier"), ((0, 1, WIDTH), "trace")],
    ),
)  # fmt: skip
def test_no_steps_no_rows_no_axis(shape, switch):
    unit, params, _ = make(switch=switch)
    x = np.ones(shape, np.float32)
    wanted = native_run(unit)(params, x)
    assert_same_bits(scan.prepare(unit, params).run(x), (wanted.carry, np.asarray(wanted.outputs)))


@pytest.mark.full
@pytest.mark.usefixtures("float64")
def test_float64():
    unit, params, x = make()
    params = jax.tree.map(lambda v: v.astype(jnp.float64), params)
    wanted = native_run(unit)(params, x.astype(np.float64))
    outputs = scan.prepare(unit, params).run(x.astype(np.float64))[1]
    assert_same_bits(outputs, np.asarray(wanted.outputs))


@pytest.mark.parametrize("switch", ["fourier", full("event")])
def test_it_keeps_the_parameters_that_it_was_given(switch):
    """All of them: the switch's as well as the packed weights, also in a copy."""
    unit, params, x = make(switch=switch)
    params = jax.tree.map(np.array, params)
    ready, wanted = scan.prepare(unit, params), scan.prepare(unit, params).run(x)
    for leaf in jax.tree.leaves(params):
        leaf[...] = 7
    params["switch"]["b"] = np.full(FEATURES, -100, np.float32)
    assert_same_bits(ready.run(x), wanted)
    assert_same_bits(copy.deepcopy(ready).run(x), wanted)


def test_what_cannot_be_prepared_says_why(monkeypatch):
    x = jnp.ones((2, 1, WIDTH))
    for unit, reason in (
        (selective("min_gru"), "the kernel does not know the cell min_gru"),
        (selective("gru", switches.fourier(9, gate=switches.soft(2.0))), "switches"),
    ):
        params = jax.eval_shape(lambda unit=unit: unit.init(jax.random.key(0), x, 4))
        with pytest.raises(ValueError, match=f"the unit cannot be prepared: .*{reason}"):
            scan.prepare(unit, params)
    unit, params, _ = make()
    for wrong, reason in (
        ({"params": params}, r"entry 'cell', got \['params'\]; those of a layer are variables"),
        ({"cell": params["cell"]}, "no entry 'switch'"),
        ({**params, "cell": make("tanh")[1]["cell"]}, "another cell than gru: 'input' has no r, z"),
    ):
        with pytest.raises(ValueError, match=reason):
            scan.prepare(unit, wrong)
    unit, params, _ = make(switch="none")
    monkeypatch.setattr(library, "load", lambda: "switched off")
    with pytest.raises(ValueError, match=r"no compiled kernel \(switched off\)"):
        scan.prepare(unit, params)


def test_what_does_not_fit_is_said():
    unit, params, x = make()
    ready = scan.prepare(unit, params)
    carry = ready.step(None, x[0])[0]
    for wrong, says in (
        (lambda: ready.run(x[..., :2]), r"shape \[T, \*batch, 3\], got \(12, 1, 2\)"),
        (lambda: ready.step(None, x[0, :, :2]), r"shape \[\*batch, 3\]"),
        (lambda: ready.run(x.astype(int)), "floating point, got int"),
        (lambda: ready.step(carry.cell, x[0]), "must be a SelectiveCarry, got GRUCarry"),
        (lambda: jax.jit(lambda x: ready.run(x)[1])(x), "runs past JAX, not inside jit"),
        (lambda: ready.step(carry, x[0, 0]), r"shape \(19,\), got \(1, 19\)"),
    ):
        with pytest.raises(ValueError, match=says):
            wrong()
