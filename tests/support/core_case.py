"""What the tests of cells, switches and scans go through, and the problems they solve."""

import functools
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import surnn_jax
from surnn_jax import SelectiveCarry, cells, selective, switches
from surnn_jax.scan import BACKENDS, native

STEPS, BATCH, INPUTS, FEATURES = 4, 3, 2, 6
HORIZON = 9

NEIGHBOURS = ("gru_carry", "clockwork", "skip_gru", "sa_gru", "min_gru_log")
ZOO = ("mgu", "ind_rnn", "rg_lru", "slstm", "gru_layer_norm", "lstm_layer_norm")
CELLS = tuple(cell for cell in cells.CELLS.values() if cell.name not in NEIGHBOURS + ZOO)
"""Those that differ in what back ends do; `test_neighbours`, `test_deciding` and `test_zoo` have
the others."""
GATES = (
    switches.triangular(1.0, gradient_fraction=0.4),
    switches.sigmoid(),
    switches.straight_through(),
    switches.soft(3.0),
)
SWITCHES = (
    ("fourier", {"harmonics": 2}),
    ("fourier", {"harmonics": 3, "per_neuron": True}),
    ("event", {"event_features": "input", "harmonics": 0}),
    ("event", {"event_features": "pair", "harmonics": 2, "per_neuron": True}),
    ("event", {"event_features": "counts", "harmonics": 1}),
)
"""Every kind of switch: its name and what sets it off from the others."""
TRACE = ("event", {"event_features": "trace", "time_constants": (1.0, 2.5), "harmonics": 1})
"""One that keeps averages, of other form in the carry alone; back ends do not see it."""

BACK_ENDS = tuple(
    name for name in BACKENDS if name != "cuda" and (name != "native" or native.available())
)
"""All that differ: if the kernel has not been built, `native` is `masked` and says so. On a CPU
`cuda` is, too; `test_cuda` has its text as an emulation."""

_BACKENDS = dict(BACKENDS)

run = jax.jit(
    surnn_jax.run,
    static_argnums=0,
    static_argnames=("reverse", "keep_order", "backend", "chunk", "dtype"),
)
"""The public call, compiled whole: operation by operation, each shape takes dozens of programs."""

step = jax.jit(surnn_jax.step, static_argnums=0, static_argnames="dtype")


@functools.cache
def compiled(name: str):
    """The back end, its scan compiled once for each specification and shape."""
    backend = _BACKENDS[name]
    return types.SimpleNamespace(
        scan=jax.jit(backend.scan, static_argnums=0),
        unsupported=backend.unsupported,
        cost=backend.cost,
    )


def switch(kind: tuple[str, dict], **options: Any) -> switches.Switch:
    name, own = kind
    return switches.SWITCHES[name](HORIZON, **own, **options)


def label(value: Any) -> str:
    """A readable test id."""
    if isinstance(value, tuple):
        name, own = value
        return "-".join([name, *(f"{k}={v}" for k, v in own.items())])
    return value if isinstance(value, str) else getattr(value, "name", str(value))


def random_like(random: np.random.Generator, tree: Any, scale: float = 1.0) -> Any:
    """The tree with every floating leaf drawn anew; nothing stays at a special value."""
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(scale * random.normal(size=leaf.shape), leaf.dtype)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
            else leaf
        ),
        tree,
    )


UNITS = {
    "dense": selective("tanh", None),
    "fourier": selective("lstm", switch(SWITCHES[1])),
    "event": selective("gru_before", switch(SWITCHES[3])),
}
"""A few that differ in carry, table and products."""


class Problem(NamedTuple):
    """A run with everything given. ``free`` is differentiated, ``given`` is not."""

    free: dict
    given: dict


def problem(
    unit,
    seed: int,
    *,
    resets: bool = True,
    steps: int = STEPS,
    batch: int = BATCH,
    inputs: int = INPUTS,
    features: int = FEATURES,
) -> Problem:
    """Random parameters (all away from their initial values), inputs, carries and lengths.

    Inputs that nobody may look at are NaN, and resets are drawn in the padding too.
    """
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(
        lambda key, x: unit.init(key, x, features, jnp.float64),
        jax.random.key(0),
        jax.ShapeDtypeStruct((max(steps, 1), batch, inputs), jnp.float64),
    )
    params = random_like(random, shapes, 0.7)
    if unit.switch is not None:  # thresholds among the logits: some switches open, some close
        params["switch"]["b"] *= 0.3
    x = random.normal(size=(steps, batch, inputs))
    lengths = random.integers(0, steps + 1, batch)
    lengths[random.integers(batch)] = steps
    mask = random.random((steps, batch)) < 0.8
    inside = np.arange(steps)[:, None] < lengths
    x[~(inside & mask)] = np.nan
    carry = random_like(random, jax.eval_shape(lambda p: unit.initial_carry(p, (batch,)), params))
    cell = carry if unit.switch is None else carry.cell
    free = {
        "params": params,
        "x": jnp.asarray(x),
        "cell": cell,
        "reset_carry": random_like(random, jax.tree.map(lambda leaf: leaf[0], cell)),
    }
    given = {"lengths": jnp.asarray(lengths, jnp.int32), "mask": jnp.asarray(mask)}
    if resets:
        given["resets"] = jnp.asarray(random.random((steps, batch)) < 0.3)
    if unit.switch is not None:
        free["previous"] = carry.previous
        # Clocks that differ give every example a table of its own, and so do resets.
        clock = random.integers(0, 5, (batch,)) if resets else 3
        given["clock"] = jnp.asarray(clock, jnp.int32)
    return Problem(free, given)


def solve(unit, free: dict, given: dict, backend: str, **options: Any):
    """The public call on a problem, operation by operation; inside `jit` it is compiled."""
    carry = free["cell"]
    if unit.switch is not None:
        carry = SelectiveCarry(carry, given["clock"], free["previous"])
    flags = {k: v for k, v in given.items() if k != "clock"}
    return surnn_jax.run(
        unit,
        free["params"],
        free["x"],
        carry=carry,
        reset_carry=free["reset_carry"],
        backend=backend,
        **flags,
        **options,
    )


def cotangents(seed: int, result) -> Any:
    """Random weights for all that a run returns and a gradient flows through; shapes will do."""
    random = np.random.default_rng(seed + 1)
    end = result.carry
    previous = None
    if isinstance(end, SelectiveCarry):
        end, previous = end.cell, end.previous
    return random_like(random, (result.outputs, end, previous, result.carries, result.rate))


def weigh(result, weights) -> jax.Array:
    """``Σ weight · value`` over all that :func:`cotangents` has weights for."""
    end, previous = result.carry, None
    if isinstance(end, SelectiveCarry):
        end, previous = end.cell, end.previous
    parts = (result.outputs, end, previous, result.carries, result.rate)
    return sum(jax.tree.leaves(jax.tree.map(lambda w, v: jnp.sum(w * v), weights, parts)))


def gradients(unit, problem: Problem, weights, backend: str, **options: Any):
    """The run, and the gradient of its weighted sum with respect to everything free.

    `weights` are those of :func:`cotangents`, or the seed for them.
    """

    def loss(free):
        result = solve(unit, free, problem.given, backend, **options)
        own = cotangents(weights, result) if isinstance(weights, int) else weights
        return weigh(result, own), result

    return jax.grad(loss, has_aux=True)(problem.free)[::-1]


answer = jax.jit(
    gradients,
    static_argnums=(0, 3),
    static_argnames=("reverse", "keep_order", "chunk"),
)
"""The same, compiled whole; `weights` must be a tree then."""


def assert_close(got: Any, want: Any, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    """Same tree, same shapes and dtypes, same numbers to rounding."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, one), two in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        assert one.dtype == two.dtype, jax.tree_util.keystr(path)
        np.testing.assert_allclose(
            np.asarray(one), np.asarray(two), rtol, atol, err_msg=jax.tree_util.keystr(path)
        )


def setting(unit, steps=6, batch=3, seed=0, **sizes):
    """Parameters, finite inputs, and a carry to start from."""
    free, given = problem(unit, seed, steps=steps, batch=batch, **sizes)
    carry = free["cell"]
    if unit.switch is not None:
        carry = SelectiveCarry(carry, given["clock"], free["previous"])
    x = jnp.asarray(np.random.default_rng(seed).normal(size=free["x"].shape))
    return free["params"], x, carry, free["reset_carry"], given
