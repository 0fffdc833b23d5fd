"""The compiled kernel: the answer of the plain loop, whatever the shape, table and processor."""

import functools
import itertools

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import kernel_case
import numpy as np
import pytest
from hypothesis import given, settings
from kernel_case import GATES, KNOWN, TABLES, WINDOW, make, solver
from tiers import tiered

from surnn_jax import cells, switches
from surnn_jax.scan import ScanInputs, ScanSpec, masked, native, reference
from surnn_jax.scan.native import build, library

assert_same = functools.partial(kernel_case.assert_same, native.scan)


needs_kernel = pytest.mark.skipif(
    not native.available(), reason=f"no compiled kernel: {library.load()}"
)


@pytest.fixture(autouse=True)
def _undo():
    before = native.kernels()
    yield
    native.threads(0)
    if native.available():
        native.select(before)


def _label(value):
    return getattr(value, "name", value)


# Every cell and every kind of table; `test_float32` has the other half of the pairs.
@needs_kernel
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("cell", "table"),
    tiered(
        itertools.product(KNOWN, TABLES),
        [
            (cells.TANH, "shared"),
            (cells.GRU, "shared"),
            (cells.GRU, "example"),
            (cells.LSTM, "example"),
            (cells.LSTM_PEEPHOLE, "dense"),
        ],
    ),
    ids=_label,
)
def test_promise_1_equals_the_loop(cell, table):
    gate = GATES[(KNOWN.index(cell) + TABLES.index(table)) % 3]
    assert_same(cell, make(cell, 0, table, (3, 3, 2, 7)), gate, oracle=reference.scan)


@needs_kernel
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("shape", "table", "masks", "shift"),
    [
        ((0, 2, 8, 3), "example", True, 0.0),
        ((7, 35, 8, 33), "shared", True, -0.6),
        ((40, 5, 19, 1), "example", False, -0.6),
        ((7, 1, 19, 16), "dense", False, 0.0),
    ],
)
def test_some_shapes_and_rates(shape, table, masks, shift):
    assert_same(cells.GRU, make(cells.GRU, 11, table, shape, masks=masks, shift=shift))


shapes = st.tuples(
    st.sampled_from([0, 1, 7, 40]),
    st.sampled_from([1, 2, 5, 17, 35]),
    st.sampled_from([1, 8, 19]),
    st.sampled_from([1, 3, 16, 33]),
)


# Every shape is compiled.
@pytest.mark.full
@needs_kernel
@pytest.mark.usefixtures("float64")
@settings(max_examples=10)
@given(
    st.integers(0, 2**20),
    shapes,
    st.sampled_from(TABLES),
    st.booleans(),
    st.sampled_from([-9.0, -0.6, 0.0, 9.0]),  # never open, seldom, half, always
)
def test_any_shape_and_rate(seed, shape, table, masks, shift):
    problem = make(cells.GRU, seed, table, shape, masks=masks, shift=shift)
    assert_same(cells.GRU, problem)


@needs_kernel
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("table", TABLES[1:])
def test_a_sequence_of_many_chunks(table):
    # 256 KiB of states or 256 steps are a chunk, 64 entries of a neuron are a block, 64 neurons are
    # read at once, and 8 rows go through time together.
    problem = make(cells.GRU, 1, table, (300, 9, 2, 70))
    assert_same(cells.GRU, problem)


@needs_kernel
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("table", TABLES[1:])
def test_few_rows_teach_the_switch(table):
    # 3 of 11: some rows of a tile, and of those that go through time together.
    problem = make(cells.LSTM_PEEPHOLE, 1, table, (5, 11, 2, 9))
    gate = switches.triangular(0.5, gradient_fraction=0.25)
    assert_same(cells.LSTM_PEEPHOLE, problem, gate, oracle=reference.scan)


@needs_kernel
@pytest.mark.parametrize(
    ("cell", "table"),
    tiered(
        itertools.product(KNOWN, TABLES),
        [
            (cells.TANH, "example"),
            (cells.GRU, "dense"),
            (cells.LSTM, "shared"),
            (cells.LSTM_PEEPHOLE, "shared"),
        ],
    ),
    ids=_label,
)
def test_float32(cell, table):
    # Sums of a few hundred float32 terms, in another order.
    problem = make(cell, 2, table, (12, 19, 5, 21), dtype=jnp.float32)
    assert_same(cell, problem, tolerance=2e-5)


@needs_kernel
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("table", TABLES[1:])
def test_a_frozen_switch(table):
    problem = make(cells.GRU, 3, table, (6, 5, 3, 9))
    assert_same(cells.GRU, problem, learned=False)


@needs_kernel
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_every_instruction_set(isa):
    try:
        native.select(isa)
    except ValueError as error:
        pytest.skip(str(error))
    # 31 rows are cut into tiles of all widths: 16, 8, 4, 2 and 1.
    for cell in (cells.GRU, cells.LSTM_PEEPHOLE):
        assert_same(cell, make(cell, 4, "shared", (6, 31, 3, 13)))
    for table in ("shared", "example"):
        problem = make(cells.GRU, 4, table, (6, 31, 3, 13), dtype=jnp.float32)
        assert_same(cells.GRU, problem, tolerance=2e-5)


@needs_kernel
def test_an_unknown_instruction_set():
    with pytest.raises(ValueError, match="no kernels named 'sse9'"):
        native.select("sse9")


@needs_kernel
def test_threads_change_nothing_but_rounding():
    # Large enough to be divided.
    problem = make(cells.GRU, 5, "shared", (60, 12, 8, 64), dtype=jnp.float32)

    def solve():  # a call still under way must not see the number change
        return jax.block_until_ready(solver(native.scan, cells.GRU, WINDOW)(*problem))

    many, again = solve(), solve()
    native.threads(1)
    one = solve()
    chex.assert_trees_all_equal(many, again)
    # The threads' parts of the batch are cut into other tiles, which sum in another order.
    chex.assert_trees_all_close(many, one, rtol=1e-3, atol=1e-3)
    gradients = zip(jax.tree.leaves(many[1]), jax.tree.leaves(one[1]), strict=True)
    assert any(
        (np.asarray(m) != np.asarray(o)).any() for m, o in gradients
    )  # or both ran on one thread


@needs_kernel
@pytest.mark.parametrize("table", TABLES[1:])
def test_promise_2_a_closed_switch_leaves_the_state_alone(table):
    inputs = ScanInputs(
        *make(cells.LSTM, 6, table, (9, 4, 2, 11), masks=False, dtype=jnp.float32)[0]
    )
    for leaf in inputs.initial_carry:
        leaf[0, 0] = -0.0
    start, a = inputs.initial_carry, inputs.logits
    scan = jax.jit(native.scan, static_argnums=0)
    found = scan(ScanSpec(cells.LSTM, WINDOW, jnp.float32), inputs)
    closed = np.broadcast_to(
        np.asarray(a <= 0) if a.ndim == 3 else np.asarray(a <= 0)[:, None], (9, 4, 11)
    )
    for s, c in zip(start, found, strict=True):
        old = np.concatenate([s[None], c[:-1]]).view(np.uint32)
        np.testing.assert_array_equal(np.asarray(c).view(np.uint32)[closed], old[closed])
    assert closed.any()
    assert not closed.all()


def _broken():
    def put(array, *entries):
        array = array.copy()
        for place, value in entries:
            array[place] = value
        return array

    for table in TABLES[1:]:
        free, _, _ = make(cells.GRU, 7, table, (6, 5, 3, 9))
        params, x, logits, start, reset_carry = free
        spoilt = put(x, ((1, 0, 1), np.nan), ((3, 1, 0), np.inf))
        yield (params, spoilt, logits, start, reset_carry)
        yield (params, x, put(logits, ((2, ..., 4), np.nan)), start, reset_carry)
        for h in (put(start.h, ((0, 4), np.nan)), put(start.h, ((1, 2), -np.inf))):
            yield (params, x, logits, start._replace(h=h), reset_carry)


@needs_kernel
@pytest.mark.usefixtures("float64")
def test_broken_numbers_pass_through():
    _, masks, weight = make(cells.GRU, 7, "shared", (6, 5, 3, 9))
    for free in _broken():
        (_, wanted), dw = solver(masked.scan, cells.GRU, WINDOW)(free, masks, weight)
        (_, found), df = solver(native.scan, cells.GRU, WINDOW)(free, masks, weight)
        assert not np.isfinite(wanted.h).all()
        np.testing.assert_allclose(found.h, wanted.h, rtol=1e-9, atol=1e-9)
        # The dense scan multiplies NaN by the zeros of closed neurons; the kernel leaves them out.
        for w, f in zip(jax.tree.leaves(dw), jax.tree.leaves(df), strict=True):
            f, w = np.asarray(f), np.asarray(w)
            fine = np.isfinite(w)
            np.testing.assert_allclose(f[fine], w[fine], rtol=1e-8, atol=1e-8)
        assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(df))
        nowhere = np.isnan(free[2])
        if nowhere.any():  # the logit's own gradient where a row looks, the state's before it
            assert np.isnan(np.asarray(df[2])[nowhere]).any()
            assert np.isnan(np.asarray(df[3].h)[:, 4]).any()


@needs_kernel
@pytest.mark.usefixtures("float64")
def test_remat_and_vmap():
    free, masks, _ = make(cells.GRU, 8, "shared", (5, 2, 2, 6))
    params, _, a, *_ = free

    def loss(params, logits, scan=native.scan):
        inputs = ScanInputs(*free, *masks)._replace(params=params, logits=logits)
        return jnp.sum(jnp.sin(scan(ScanSpec(cells.GRU, WINDOW, jnp.float64), inputs).h))

    wanted = jax.jit(jax.grad(functools.partial(loss, scan=masked.scan), (0, 1)))
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-9)
    close(jax.jit(jax.grad(jax.checkpoint(loss), (0, 1)))(params, a), wanted(params, a))
    both = np.stack([a, a - 0.5])
    found = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, 0)))(params, both)
    for n in range(2):
        close(jax.tree.map(lambda leaf, n=n: leaf[n], found), wanted(params, both[n]))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("cell", "gate", "dtype"),
    [
        (cells.GRU_BEFORE, WINDOW, jnp.float64),
        (cells.GRU, switches.soft(3.0), jnp.float64),
        (cells.GRU, WINDOW, jnp.bfloat16),
        (cells.GRU, WINDOW, jnp.float32),
    ],
)
def test_what_it_does_not_know_runs_dense(cell, gate, dtype):
    free, masks, _ = make(cell, 9, "shared", (5, 3, 2, 6))
    args = ScanSpec(cell, gate, dtype), ScanInputs(*free, *masks)
    scans = (jax.jit(back_end.scan, static_argnums=0) for back_end in (native, masked))
    chex.assert_trees_all_equal(*(scan(*args) for scan in scans))


def test_no_compiler_is_said_in_one_line(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        build.Unavailable, match=r"no C\+\+ compiler found \(tried no-such-compiler\)"
    ):
        build.compiler()


@needs_kernel
@pytest.mark.full
def test_sanitizers():
    build.check()


@pytest.mark.full
def test_arm_in_an_emulator():
    try:
        build.arm_compilers()
    except build.Unavailable as error:
        pytest.skip(str(error))
    build.check_arm()
