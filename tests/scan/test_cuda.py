"""The CUDA kernel's text as an emulation: the answer of the plain loop, in any order of threads."""

import functools
import itertools
import shutil
import subprocess
import types
from pathlib import Path

import chex
import core_case
import cuda_case
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from kernel_case import GATES, KNOWN, TABLES, WINDOW, assert_same, make, solver
from tiers import full, tiered

from surnn_jax import cells, selective, switches
from surnn_jax.scan import BACKENDS, ScanInputs, ScanSpec, masked, reference
from surnn_jax.scan.cuda import build, call
from surnn_jax.scan.native.build import compiler

pytestmark = [
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler"),
    pytest.mark.usefixtures("float64", "_natural_order"),
]
GRU = cells.GRU


@pytest.fixture(scope="module")
def emulation(request):
    """All cells if a test of the full tier runs, GRU alone if not: it compiles in a third."""
    items = [item for item in request.session.items if item.module is request.module]
    every = any(item.get_closest_marker("full") for item in items)
    return cuda_case.Emulation(None if every else 1)


@pytest.fixture
def _natural_order(emulation):
    yield
    emulation.order(0)


@pytest.mark.parametrize(
    ("cell", "table"),
    tiered(itertools.product(KNOWN, TABLES), [(GRU, "shared"), (GRU, "example")]),
    ids=lambda value: getattr(value, "name", value),
)
def test_promise_1_equals_the_loop(cell, table):
    gate = GATES[(KNOWN.index(cell) + TABLES.index(table)) % 3]
    problem = make(cell, 0, table, (3, 3, 2, 7))
    assert_same(cuda_case.scan(), cell, problem, gate, oracle=reference.scan)


@pytest.mark.parametrize(
    ("cell", "table"),
    tiered(itertools.product(KNOWN, TABLES), [(GRU, "example")]),
    ids=lambda value: getattr(value, "name", value),
)
def test_pieces_of_a_sequence(cell, table):
    """Carries, cotangents and resets cross from one to the next."""
    problem = make(cell, 4, table, (6, 3, 2, 7))
    assert_same(cuda_case.scan(piece=2), cell, problem, oracle=reference.scan)


UNITS = [
    (cell, kind, gate, frozen)
    for i, cell in enumerate(KNOWN)
    for gate, frozen, kind in (
        (None, False, None),
        *((GATES[(i + j) % 3], False, kind) for j, kind in enumerate(core_case.SWITCHES)),
        (WINDOW, True, core_case.SWITCHES[i]),
    )
]


@pytest.mark.full
@pytest.mark.parametrize(
    ("cell", "kind", "gate", "frozen"), UNITS, ids=lambda v: core_case.label(v) if v else "-"
)
def test_promise_1_of_units(cell, kind, gate, frozen, monkeypatch):
    """By the public call: lengths, masks, resets, clocks and switches of every kind."""
    emulated = types.SimpleNamespace(scan=cuda_case.scan())
    monkeypatch.setitem(BACKENDS, "cuda", emulated)
    own = None if kind is None else core_case.switch(kind, gate=gate, frozen=frozen)
    unit = selective(cell, own)
    for resets in (True, False):  # without them the batch shares a rhythm's table
        task = core_case.problem(unit, 3, resets=resets)
        (want, want_grad), (got, grad) = (
            core_case.gradients(unit, task, 3, name, reverse=resets)
            for name in ("reference", "cuda")
        )
        core_case.assert_close(got, want)
        core_case.assert_close(grad, want_grad)
        if kind is not None:
            assert 0 < want.rate < 1


@pytest.mark.parametrize(
    ("cell", "table", "rows"),
    [
        (GRU, "shared", 1),
        full(GRU, "shared", 2),
        full(GRU, "dense", 4),
        full(cells.LSTM_PEEPHOLE, "shared", 4),
        full(cells.LSTM, "example", 1),
        full(cells.TANH, "shared", 4),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_any_order_of_threads_gives_the_same_bits(cell, table, rows, emulation):
    """Two blocks or more, and more neurons than threads that take one each."""
    problem = make(cell, 1, table, (5, 5, 2, 150), dtype=jnp.float32)
    solve = solver(cuda_case.scan(rows), cell, WINDOW)
    wanted = solve(*problem)
    for seed in (1, 2**40 + 7, 2**63 - 5):
        emulation.order(seed)
        chex.assert_trees_all_equal(solve(*problem), wanted)


@pytest.mark.full
def test_what_the_emulation_notices(tmp_path):
    """It says what no barrier divides, whatever the order: `cuda_races.cc`."""
    program = tmp_path / "races"
    source = Path(__file__).parents[1] / "support" / "cuda_races.cc"
    flags = ["-std=c++17", "-Wno-unknown-pragmas", f"-I{build.SOURCES}", str(source)]
    subprocess.run([*compiler().split(), *flags, "-o", str(program)], check=True)
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    found = [line.partition(" by thread")[0] for line in said.splitlines()]
    natural, drawn = found[:6], found[6:]
    assert natural == [
        "neighbours with a barrier: nothing",
        "neighbours without: a race: a write",
        "two writers: a race: a write",
        "unwritten: a read of what nobody wrote",
        "outside: a write outside an array",
        "too much memory: more shared memory than was asked for",
    ]
    assert [line[:24] for line in drawn] == [line[:24] for line in natural]


@pytest.mark.full
@pytest.mark.parametrize("cell", KNOWN, ids=lambda cell: cell.name)
def test_as_many_neurons_as_fit(cell):
    """The most that the back end takes needs no more memory than a block may have."""
    widths = range(64, 8192, 16)
    most = max(h for h in widths if call.memory(cell, h, 4, 1) <= call.MOST_BYTES)
    problem = make(cell, 0, "shared", (1, 1, 1, most), shift=-2.0, dtype=jnp.float32)
    assert_same(cuda_case.scan(1), cell, problem, tolerance=2e-5)
    for rows in (2, 4):
        most = max(h for h in widths if call.memory(cell, h, 4, rows) <= call.MOST_BYTES)
        problem = make(cell, 0, "shared", (1, 3, 1, most), shift=-2.0, dtype=jnp.float32)
        assert_same(cuda_case.scan(rows), cell, problem, tolerance=2e-5)


@pytest.mark.full
@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("cell", KNOWN, ids=lambda cell: cell.name)
def test_float32(cell, rows):
    """The last block is not full, and some rows are masked where others of the block are not."""
    for table in TABLES[:2] if rows > 1 else TABLES:
        problem = make(cell, 2, table, (12, 7, 5, 21), dtype=jnp.float32)
        assert_same(cuda_case.scan(rows), cell, problem, tolerance=2e-5)


@pytest.mark.full
@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("cell", KNOWN, ids=lambda cell: cell.name)
def test_bfloat16(cell, rows):
    """Operands are rounded as the dense scan rounds them; recomputed sums may round otherwise."""
    problem = make(cell, 2, "shared", (6, 5, 3, 21), dtype=jnp.float32)
    assert_same(cuda_case.scan(rows), cell, problem, tolerance=0.03, dtype="bfloat16")
    wanted, found = (
        solver(one, cell, WINDOW, dtype="bfloat16")(*problem)[0][1]
        for one in (masked.scan, cuda_case.scan(rows))
    )
    chex.assert_trees_all_close(found, wanted, atol=2e-3, rtol=0)
    whole = solver(masked.scan, cell, WINDOW)(*problem)[0][1]
    assert max(float(abs(w - f).max()) for w, f in zip(whole, found, strict=True)) > 1e-3


@pytest.mark.full
@pytest.mark.parametrize("table", TABLES[1:])
def test_few_rows_teach_the_switch(table):
    problem = make(cells.LSTM_PEEPHOLE, 1, table, (5, 11, 2, 9))
    gate = switches.triangular(0.5, gradient_fraction=0.25)
    assert_same(cuda_case.scan(), cells.LSTM_PEEPHOLE, problem, gate, oracle=reference.scan)
    problem = make(GRU, 1, table, (5, 11, 2, 9), dtype=jnp.float32)
    rows = 4 if table == "shared" else 1
    assert_same(cuda_case.scan(rows), GRU, problem, gate, tolerance=2e-5)


@pytest.mark.full
@pytest.mark.parametrize("table", TABLES[1:])
def test_a_frozen_switch(table):
    assert_same(cuda_case.scan(), GRU, make(GRU, 3, table, (6, 5, 3, 9)), learned=False)


shapes = st.tuples(
    st.sampled_from([0, 1, 2, 7]),
    st.sampled_from([1, 2, 5]),
    st.sampled_from([1, 8]),
    st.sampled_from([1, 3, 32, 33, 261, 530]),
)


# Every shape is compiled.
@pytest.mark.full
@settings(max_examples=12)
@given(
    st.integers(0, 2**20),
    shapes,
    st.sampled_from(TABLES),
    st.booleans(),
    st.sampled_from([-9.0, -0.6, 0.0, 9.0]),  # never open, seldom, half, always
)
def test_any_shape_and_rate(seed, shape, table, masks, shift):
    problem = make(GRU, seed, table, shape, masks=masks, shift=shift)
    assert_same(cuda_case.scan(), GRU, problem)


@pytest.mark.full
@pytest.mark.parametrize("table", TABLES[1:])
def test_promise_2_a_closed_switch_leaves_the_state_alone(table):
    free, *_ = make(cells.LSTM, 6, table, (9, 4, 2, 11), masks=False, dtype=jnp.float32)
    inputs = ScanInputs(*free)
    for leaf in inputs.initial_carry:
        leaf[0, 0] = -0.0
    start, a = inputs.initial_carry, inputs.logits
    found = jax.jit(cuda_case.scan(), static_argnums=0)(
        ScanSpec(cells.LSTM, WINDOW, jnp.float32), inputs
    )
    closed = np.asarray(a <= 0) if a.ndim == 3 else np.asarray(a <= 0)[:, None]
    closed = np.broadcast_to(closed, (9, 4, 11))
    for s, c in zip(start, found, strict=True):
        old = np.concatenate([s[None], c[:-1]]).view(np.uint32)
        np.testing.assert_array_equal(np.asarray(c).view(np.uint32)[closed], old[closed])
    assert 0 < closed.mean() < 1


@pytest.mark.full
@pytest.mark.parametrize("table", TABLES[1:])
def test_broken_numbers_pass_through(table):
    params, x, a, start, fresh = make(GRU, 7, table, (6, 5, 3, 9))[0]
    _, masks, weight = make(GRU, 7, "shared", (6, 5, 3, 9))  # they hide none of what is broken

    def put(array, *entries):
        array = array.copy()
        for place, value in entries:
            array[place] = value
        return array

    for free in (
        (params, put(x, ((1, 0, 1), np.nan), ((3, 1, 0), np.inf)), a, start, fresh),
        (params, x, put(a, ((2, ..., 4), np.nan)), start, fresh),
        (params, x, a, start._replace(h=put(start.h, ((0, 4), np.nan))), fresh),
        (params, x, a, start._replace(h=put(start.h, ((1, 2), -np.inf))), fresh),
    ):
        (_, wanted), dw = solver(masked.scan, GRU, WINDOW)(free, masks, weight)
        (_, found), df = solver(cuda_case.scan(), GRU, WINDOW)(free, masks, weight)
        assert not np.isfinite(wanted.h).all()
        np.testing.assert_allclose(found.h, wanted.h, rtol=1e-9, atol=1e-9)
        # The dense scan multiplies NaN by the zeros of closed neurons; the kernel leaves them out.
        for w, f in zip(jax.tree.leaves(dw), jax.tree.leaves(df), strict=True):
            f, w = np.asarray(f), np.asarray(w)
            fine = np.isfinite(w)
            np.testing.assert_allclose(f[fine], w[fine], rtol=1e-8, atol=1e-8)
        assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(df))
        if (nowhere := np.isnan(free[2])).any():
            assert np.isnan(np.asarray(df[2])[nowhere]).any()
            assert np.isnan(np.asarray(df[3].h)[:, 4]).any()


@pytest.mark.full
def test_remat_vmap_and_second_order():
    free, masks, _ = make(GRU, 8, "shared", (5, 2, 2, 6))
    params, _, a, *_ = free

    emulated = cuda_case.scan()

    def loss(params, logits, scan=emulated):
        inputs = ScanInputs(*free, *masks)._replace(params=params, logits=logits)
        return jnp.sum(jnp.sin(scan(ScanSpec(GRU, WINDOW, jnp.float64), inputs).h))

    dense = functools.partial(loss, scan=masked.scan)
    wanted = jax.jit(jax.grad(dense, (0, 1)))
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-9)
    close(jax.jit(jax.grad(jax.checkpoint(loss), (0, 1)))(params, a), wanted(params, a))
    both = np.stack([a, a - 0.5])
    found = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, 0)))(params, both)
    for n in range(2):
        close(jax.tree.map(lambda leaf, n=n: leaf[n], found), wanted(params, both[n]))

    def twice(loss):
        return jax.jit(jax.grad(lambda p: jnp.sum(jax.grad(loss)(p, a)["input"]["n"] ** 2)))

    close(twice(loss)(params), twice(dense)(params))
