"""Units whose switch reads the state, Skip RNN and SA-RNN, against their published equations."""

import core_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_case import assert_close, compiled
from core_oracle import sigmoid
from neighbour_case import BATCH, FEATURES, INPUTS, plain, run, setting

from surnn_jax import cells, selective, switches
from surnn_jax.scan import ScanInputs, ScanSpec

pytestmark = pytest.mark.usefixtures("float64")


def _skip(params, x, h0, still=None):
    """Outputs, ũ and u of every step. With ũ and u of an earlier call in `still`, u is not rounded
    but moves from there as ũ does."""
    U, p = params["recurrent"], params["vector"]
    outputs, urges, opened = [], [], []
    urge, h = np.ones((len(h0), 1)), h0
    for t, frame in enumerate(x):
        u = np.round(urge) if still is None else still[1][t] + urge - still[0][t]
        (new,) = core_oracle.step("gru", params, (h,), frame)
        h = u * new + (1 - u) * h
        outputs.append(h)
        urges.append(urge)
        opened.append(u)
        more = sigmoid(h @ U["p"] + p["b_p"])
        urge = u * more + (1 - u) * (urge + np.minimum(more, 1 - urge))
    return np.array(outputs), np.array(urges), np.array(opened)


def _adaptive(params, x, h0, still=None):
    W, p = params["input"], params["vector"]
    outputs, urges, opened, h = [], [], [], h0
    for t, frame in enumerate(x):
        urge = np.clip((frame @ W["s"] + p["v_s"] * h + p["b_s"] + 1) / 2, 0, 1)
        u = np.round(urge) if still is None else still[1][t] + urge - still[0][t]
        (new,) = core_oracle.step("gru", params, (h,), frame)
        h = u * new + (1 - u) * h
        outputs.append(h)
        urges.append(urge)
        opened.append(u)
    return np.array(outputs), np.array(urges), np.array(opened)


LOOPS = {"skip_gru": _skip, "sa_gru": _adaptive}
each_loop = pytest.mark.parametrize("name", LOOPS)


def _deciding(name, dtype="float64", **sizes):
    """A unit that decides for itself, of which some steps are open and some closed."""
    made = selective(name, None)
    params, x = setting(made, seed=4, steps=9, dtype=dtype, **sizes)
    if name == "skip_gru":
        params["cell"]["vector"]["b_p"] = jnp.full_like(params["cell"]["vector"]["b_p"], -0.3)
    return made, params, x


@each_loop
def test_deciding_units_are_their_equations(name):
    made, params, x = _deciding(name)
    done = run(made, params, x)
    outputs, urges, opened = LOOPS[name](
        plain(params["cell"]), np.asarray(x), np.zeros((BATCH, FEATURES))
    )
    assert 0.1 < opened[1:].mean() < 0.9
    np.testing.assert_allclose(done.outputs, outputs, rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(done.carries.open, np.broadcast_to(opened, outputs.shape))
    if name == "skip_gru":
        assert opened[0].all()
        np.testing.assert_allclose(done.carries.wait, np.broadcast_to(1 - urges, outputs.shape))
    assert done.update_mask is None
    assert done.rate == pytest.approx(opened.mean())


@each_loop
def test_their_gradient_is_straight_through(name):
    """Finite differences of a loop that moves u as ũ moves, from where `round` left it."""
    made, params, x = _deciding(name, features=3)
    weights = np.random.default_rng(7).normal(size=(9, BATCH, 3))

    @jax.jit
    @jax.grad
    def ours(cell):
        done = run(made, {"cell": cell}, x)
        return jnp.sum(weights * done.outputs) + 5 * done.rate

    theirs, rest = plain(params["cell"]), np.zeros((BATCH, 3))
    still = LOOPS[name](theirs, np.asarray(x), rest)[1:]

    def loss(cell):
        outputs, _, opened = LOOPS[name](cell, np.asarray(x), rest, still)
        return np.sum(weights * outputs) + 5 * opened.mean()

    eps, grads = 1e-6, ours(params["cell"])
    leaves, form = jax.tree.flatten(theirs)
    for n, (leaf, grad) in enumerate(zip(leaves, jax.tree.leaves(grads), strict=True)):
        assert grad.shape == leaf.shape
        for place in np.ndindex(leaf.shape):
            sides = []
            for d in (eps, -eps):
                moved = leaf.copy()
                moved[place] += d
                sides.append(loss(form.unflatten([*leaves[:n], moved, *leaves[n + 1 :]])))
            difference = (sides[0] - sides[1]) / (2 * eps)
            np.testing.assert_allclose(grad[place], difference, rtol=1e-5, atol=1e-7)
    decide = {"skip_gru": ("recurrent", "p"), "sa_gru": ("input", "s")}[name]
    assert grads[decide[0]][decide[1]].all()


@each_loop
def test_closed_is_bit_identical(name):
    """In float32, for a whole number of neurons and not: where closed, the bits of before."""
    made, params, x = _deciding(name, dtype="float32", features=37)
    start = made.initial_carry(params, (BATCH,))
    odd = jnp.asarray([-0.0, 1e-40, 0.7, -0.4], jnp.float32)
    start = start._replace(h=jnp.resize(odd, start.h.shape))
    if name == "skip_gru":  # not at a start, so that the first step may be closed
        start = start._replace(wait=jnp.ones_like(start.wait))
    done = run(made, params, x, carry=start)
    h, opened = (np.asarray(leaf) for leaf in (done.carries.h, done.carries.open))
    before = np.concatenate([np.asarray(start.h)[None], h[:-1]])
    np.testing.assert_array_equal(h[opened == 0].view("u4"), before[opened == 0].view("u4"))
    assert 0.1 < opened.mean() < 0.9
    assert (opened[0] == 0).any()
    if name == "skip_gru":  # one switch, though every neuron computes it
        for leaf in (done.carries.open, done.carries.wait):
            np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[..., :1], leaf.shape))


def test_rate_counts_valid_steps():
    made, params, x = _deciding("sa_gru")
    lengths, mask = jnp.array([9, 4, 0]), jnp.arange(27).reshape(9, 3) % 4 != 1
    done = run(made, params, x, lengths=lengths, mask=mask)
    valid = np.asarray(mask) & (np.arange(9)[:, None] < np.asarray(lengths))
    assert done.rate == pytest.approx(np.asarray(done.carries.open)[valid].mean())


@pytest.mark.parametrize(("name", "backend"), [("skip_gru", "rows"), ("sa_gru", "compact")])
def test_deciding_units_on_back_ends_that_skip(name, backend):
    """With a switch on top, so that there is something to skip."""
    made = selective(name, switches.Every(2, staggered=True))
    params, x = setting(made, steps=4)
    cell = made.cell.expanded(params["cell"])
    rest = made.cell.initial_carry(cell, (BATCH,))
    a = jnp.where(jnp.arange(4)[:, None] % 2 == jnp.arange(FEATURES)[None] % 2, 1.0, -1.0)
    spec = ScanSpec(made.cell, made.switch.gate, jnp.dtype("float64"))
    inputs = ScanInputs(cell, x, a, rest, rest, None, None)
    found, wanted = (compiled(name).scan(spec, inputs) for name in (backend, "reference"))
    assert_close(found, wanted)


def test_what_all_neurons_share_is_kept_once():
    params = cells.SKIP_GRU.init(jax.random.key(0), INPUTS, FEATURES)
    assert params["recurrent"]["p"].shape == (FEATURES, 1)
    assert params["vector"]["b_p"].tolist() == [1.0]
    gru = cells.GRU.count(INPUTS, FEATURES)
    assert cells.SKIP_GRU.count(INPUTS, FEATURES) == gru + FEATURES + 1
    assert cells.SA_GRU.count(INPUTS, FEATURES) == gru + (INPUTS + 2) * FEATURES
    shapes = jax.tree.map(jnp.shape, cells.SKIP_GRU.expanded(params))
    assert shapes["recurrent"]["p"] == (FEATURES, FEATURES)
    assert shapes["vector"]["b_p"] == (FEATURES,)
    for cell in (cells.SKIP_GRU, cells.CLOCKWORK):
        once = cell.expanded(cell.init(jax.random.key(0), INPUTS, FEATURES))
        jax.tree.map(np.testing.assert_array_equal, cell.expanded(once), once)
