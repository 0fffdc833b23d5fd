"""The unit, parameters and data of a case, and a training step on them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import baselines
from benchmarks.case import Case, groups
from surnn_jax import scan, selective, switches
from surnn_jax.scan import Unit, indexing, native, rows

Params = dict[str, Any]
Forward = Callable[[Params, jax.Array], jax.Array]

_SHARE = 1 / 8
_WINDOW = 0.25


class Problem(NamedTuple):
    """A unit with all that it is given.

    Attributes:
        unit: the unit.
        params: its parameters.
        x: ``[T, B, D]``, the inputs.
        target: ``[T, B, H]``, what the loss compares the outputs with.
        facts: fields of every record about it. ``rate`` is the share of open switches, counted;
            ``asked`` what was asked for; ``computed`` the share of candidates that a training
            step has to compute: those of the open neurons, and of the nearly open ones in the
            rows from which the switch learns.
    """

    unit: Unit
    params: Params
    x: jax.Array
    target: jax.Array
    facts: dict[str, Any]


def unit(case: Case, switch: str) -> Unit:
    """The unit of a case, its switch one of :data:`.case.SWITCHES`."""
    if case.schedule is None:
        return selective(case.cell, None)
    options = {
        # A switch cannot be asked for 1; its biases are raised afterwards.
        "rate": 0.5 if case.asked == 1 else case.asked,
        "frozen": switch == "frozen",
        "gate": switches.triangular(_WINDOW, share=_SHARE if switch == "share" else 1.0),
    }
    if case.schedule == "event":
        return selective(case.cell, switches.event(case.steps, read="counts", **options))
    rhythm = switches.fourier(case.steps, groups=groups(case.schedule), **options)
    return selective(case.cell, rhythm)


def pose(case: Case, switch: str = "frozen") -> Problem:
    """The problem of a case; the same numbers for every `switch`."""
    made = unit(case, switch)
    data, other, start = jax.random.split(jax.random.key(case.seed), 3)
    x = jax.random.normal(data, (case.steps, case.batch, case.inputs))
    target = jax.random.normal(other, (case.steps, case.batch, case.features))
    params = made.init(start, x, case.features)
    facts = {"schedule": "none", "switch": "none", "rate": 1.0, "computed": 1.0, "asked": 1.0}
    if made.switch is None:
        return Problem(made, params, x, target, facts)
    table = jax.jit(lambda switch: baselines.logits(made, switch, x, case.features))
    params["switch"] = (_open if case.asked == 1 else _apart)(params["switch"], table)
    a, gate = table(params["switch"]), made.switch.gate
    rate = computed = float(indexing.opened(gate, a).mean())
    if not made.switch.frozen:
        near = float(indexing.needed(gate, a, learned=True).mean()) - rate
        computed += near * gate.teachers(case.batch) / case.batch
    facts = {"schedule": case.schedule, "switch": switch, "rate": rate, "computed": computed}
    # The rate has done its work; without it, all rates share what is compiled.
    made = dataclasses.replace(made, switch=dataclasses.replace(made.switch, rate=0.5))
    return Problem(made, params, x, target, {**facts, "asked": case.asked})


def _apart(switch: Params, table: Callable[[Params], jax.Array]) -> Params:
    """The switch with biases at which no logit is next to 0; the rate stays but for 0.2 %.

    Two programs round a sine in two ways. At a logit next to 0 one would open and the other not,
    and the answers of two right variants could not be compared.
    """
    bias = np.asarray(switch["b"])

    def rows(bias):
        a = np.asarray(table({**switch, "b": jnp.asarray(bias)}))
        return a.reshape(-1, a.shape[-1])[:, :: a.shape[-1] // bias.size]

    a = rows(bias)
    slope = (rows(bias + 1) - a).mean(0)
    a = np.sort(a, axis=0)
    reach = max(2, len(a) // 500)
    middles = np.zeros_like(bias)
    for i, column in enumerate(a.T):
        place = np.searchsorted(column, 0)
        near = column[max(place - reach, 0) : place + reach]
        widest = np.argmax(np.diff(near))
        middles[i] = near[widest : widest + 2].mean()
    return {**switch, "b": jnp.asarray(bias - middles / slope)}


def _open(switch: Params, table: Callable[[Params], jax.Array]) -> Params:
    """The switch with biases at which every neuron is open at every step, and none nearly so."""
    bias = jnp.ones_like(switch["b"])
    while table({**switch, "b": bias}).min() < 2 * _WINDOW:
        bias = 2 * bias
    return {**switch, "b": bias}


def serves(backend: str, unit: Unit) -> bool:
    """Whether the back end runs this unit itself: what it hands on is not timed under its name."""
    gate = None if unit.switch is None else unit.switch.gate
    if backend == "native":
        return native.available() and native.supports(unit.cell, gate, jnp.float32)
    shared = unit.switch is not None and not unit.switch.per_example
    return backend != "rows" or rows.serves(unit.cell, gate, shared)


@functools.cache
def ours(unit: Unit, backend: str, chunk: int | None = None) -> Forward:
    """Parameters and inputs to outputs, by one of our back ends."""
    return lambda params, x: scan.run(unit, params, x, backend=backend, chunk=chunk).outputs


@functools.cache
def theirs(baseline: Callable[[Unit, Params, jax.Array], jax.Array], unit: Unit) -> Forward:
    """The same by one of the selective :mod:`.baselines`."""
    return lambda params, x: baseline(unit, params, x)


def loss(forward: Forward) -> Callable[[Params, jax.Array, jax.Array], jax.Array]:
    """Of parameters, inputs and target: the mean squared error.

    What flows back depends on the outputs, so that no derivative is known before they are.
    """
    return lambda params, x, target: jnp.mean(jnp.square(forward(params, x) - target))


@functools.cache
def _compiled(forward: Forward) -> Callable[..., Any]:
    return jax.jit(jax.value_and_grad(loss(forward), argnums=(0, 1)))


def step(forward: Forward, problem: Problem) -> Callable[[], Any]:
    """A training step: the loss, and its gradient for every parameter and for the inputs.

    Compiled at its first call. Everything is an argument; nothing can be computed beforehand.
    """
    arguments = jax.block_until_ready((problem.params, problem.x, problem.target))
    return lambda: _compiled(forward)(*arguments)
