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
from surnn_jax.scan import BACKENDS, ScanSpec, Unit, indexing
from surnn_jax.scan.spec import ScanShape

Params = dict[str, Any]
Forward = Callable[[Params, jax.Array], jax.Array]

_FRACTION = 1 / 8
_WINDOW = 0.25


class Problem(NamedTuple):
    """A unit with its parameters and data.

    Attributes:
        unit: the unit.
        params: its parameters.
        x: ``[T, B, D]``, the inputs.
        target: ``[T, B, H]``, what the loss compares the outputs with.
        facts: fields of every record about it. ``rate`` is the counted share of open switches;
            ``asked`` the share asked for; ``computed`` the share of candidates that a training
            step has to compute: open neurons, and nearly open ones in the rows that give the
            switch its gradient.
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
        "gate": switches.triangular(_WINDOW, _FRACTION if switch == "share" else 1.0),
    }
    if case.schedule == "event":
        return selective(case.cell, switches.event(case.steps, event_features="counts", **options))
    rhythm = switches.fourier(case.steps, groups=groups(case.schedule), **options)
    return selective(case.cell, rhythm)


def pose(case: Case, switch: str = "frozen") -> Problem:
    """The problem of a case; the same numbers for every `switch`."""
    made = unit(case, switch)
    data, other, start = jax.random.split(jax.random.key(case.seed), 3)
    x = jax.random.normal(data, (case.steps, case.batch, case.inputs))
    target = jax.random.normal(other, (case.steps, case.batch, case.features))
    # Operation by operation, every shape would take dozens of programs.
    params = jax.jit(lambda start, x: made.init(start, x, case.features))(start, x)
    facts = {"schedule": "none", "switch": "none", "rate": 1.0, "computed": 1.0, "asked": 1.0}
    if made.switch is None:
        return Problem(made, params, x, target, facts)
    logits_of = jax.jit(lambda switch: baselines.logits(made, switch, x, case.features))
    params["switch"] = (_open if case.asked == 1 else _apart)(params["switch"], logits_of)
    logits, surrogate = logits_of(params["switch"]), made.switch.gate
    rate = computed = float(indexing.open_mask(surrogate, logits).mean())
    if not made.switch.frozen:
        near = float(indexing.computed_mask(surrogate, logits, learned=True).mean()) - rate
        computed += near * surrogate.gradient_rows(case.batch) / case.batch
    facts = {"schedule": case.schedule, "switch": switch, "rate": rate, "computed": computed}
    # The rate is used up; with the same one in all, all rates share compiled programs.
    made = dataclasses.replace(made, switch=dataclasses.replace(made.switch, rate=0.5))
    return Problem(made, params, x, target, {**facts, "asked": case.asked})


def _apart(switch: Params, logits_of: Callable[[Params], jax.Array]) -> Params:
    """The switch with biases moved so that no logit is close to 0; the rate changes by 0.2 %.

    Two programs may round a sine differently. At a logit close to 0 one would open and the other
    not, and the answers of two correct variants would differ.
    """
    bias = np.asarray(switch["b"])

    def rows(bias):
        a = np.asarray(logits_of({**switch, "b": jnp.asarray(bias)}))
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


def _open(switch: Params, logits_of: Callable[[Params], jax.Array]) -> Params:
    """The switch with biases at which every neuron is open at every step, by a clear margin."""
    bias = jnp.ones_like(switch["b"])
    while logits_of({**switch, "b": bias}).min() < 2 * _WINDOW:
        bias = 2 * bias
    return {**switch, "b": bias}


def supports(backend: str, unit: Unit, case: Case) -> bool:
    """Whether the back end runs this unit itself; if not, it is not timed under its name."""
    dtype = jnp.dtype(jnp.float32)
    spec = ScanSpec(unit.cell, None if unit.switch is None else unit.switch.gate, dtype)
    per_example = unit.switch is not None and unit.switch.per_example
    platform = jax.default_backend()
    shape = ScanShape(case.steps, case.batch, case.features, dtype, per_example, platform)
    return BACKENDS[backend].unsupported(spec, shape) is None


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

    Its derivative depends on the outputs, so that no part of it can be computed before them.
    """
    return lambda params, x, target: jnp.mean(jnp.square(forward(params, x) - target))


@functools.cache
def _compiled(forward: Forward) -> Callable[..., Any]:
    return jax.jit(jax.value_and_grad(loss(forward), argnums=(0, 1)))


def step(forward: Forward, problem: Problem) -> Callable[[], Any]:
    """A training step: the loss, and its gradient for every parameter and for the inputs.

    Compiled at its first call. Everything is an argument, so nothing is computed beforehand.
    """
    arguments = jax.block_until_ready((problem.params, problem.x, problem.target))
    return lambda: _compiled(forward)(*arguments)
