"""Chooses the back end with the lowest expected cost, and says why.

Under `jit` the update mask of a learned switch is not known when the program is made, so the
choice depends on what is known then: the cell, the switch's declared rate and who shares a
schedule, the sizes, the platform. It only affects speed: all back ends give the same answer, to
rounding. What each back end can run and what it costs is its own knowledge
(:class:`.spec.Backend`).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from surnn_jax.scan.backends import BACKENDS
from surnn_jax.scan.spec import ScanShape, ScanSpec, UpdateRates
from surnn_jax.scan.unit import Unit

# Share of logits within the support of `triangular`, over its half-width; measured for Fourier
# switches at rates of 5 to 30 %.
_NEARLY_OPEN = 0.4


class Choice(NamedTuple):
    """A chosen back end.

    Attributes:
        backend: its name in :data:`surnn_jax.scan.BACKENDS`.
        reason: one line.
        costs: expected costs of all back ends that could run the unit, 1 for all neurons at all
            steps.

    Examples:
        >>> from surnn_jax import scan, selective
        >>> choice = scan.choose(selective("gru", None), features=64, steps=1, batch=8)
        >>> choice.backend, choice.reason
        ('masked', 'one step has nothing to skip in time or to batch')
    """

    backend: str
    reason: str
    costs: dict[str, float]


def choose(
    unit: Unit,
    features: int,
    steps: int,
    batch: int,
    platform: str | None = None,
    dtype: Any = "float32",
) -> Choice:
    """The back end for a unit of these sizes.

    Args:
        unit: the unit to run.
        features: H.
        steps: T, an integer or a symbol of `jax.export`.
        batch: B, all batch axes together; likewise.
        platform: "cpu", "gpu" or "tpu"; None for the one JAX computes on.
        dtype: of the operands of products.

    Examples:
        >>> from surnn_jax import scan, selective, switches
        >>> unit = selective("gru", switches.fourier(784, rate=0.05, groups=1))
        >>> scan.choose(unit, features=128, steps=784, batch=16, platform="gpu").backend
        'compact'
    """
    spec, shape = _describe(unit, features, steps, batch, platform, dtype)
    if shape.symbolic:
        return Choice("masked", "the sizes are symbols, as in an export", {})
    rates = update_rates(unit, features)
    costs = {
        name: backend.cost(spec, shape, rates)
        for name, backend in BACKENDS.items()
        if backend.unsupported(spec, shape) is None
    }
    costs = {name: cost for name, cost in costs.items() if cost < math.inf}
    if steps == 1:
        return Choice("masked", "one step has nothing to skip in time or to batch", costs)
    best = min(costs, key=costs.__getitem__)
    reason = "lowest expected cost"
    if shape.platform != "cpu":
        reason += f" (not measured on {shape.platform})"
    return Choice(best, reason, costs)


def explain(unit: Unit, features: int, steps: int, batch: int, platform: str | None = None) -> str:
    """Explains :func:`choose`; arguments as there.

    Returns:
        A few lines: the unit, its rates, each back end's expected cost or why it does not run the
        unit, the choice and the reason.

    Examples:
        >>> from surnn_jax import scan, selective, switches
        >>> unit = selective("gru", switches.fourier(784, rate=0.1))
        >>> text = scan.explain(unit, features=128, steps=784, batch=16)
        >>> text.splitlines()[0]
        'gru, H = 128, B = 16, T = 784'
    """
    choice = choose(unit, features, steps, batch, platform)
    lines = [f"{unit.cell.name}, H = {features}, B = {batch}, T = {steps}"]
    if unit.switch is None:
        lines.append("no switch: every neuron updates at every step")
    else:
        rates = update_rates(unit, features)
        lines.append(
            f"{type(unit.switch).__name__.lower()} switch, declared rate {rates.open:.3g}, about "
            f"{rates.computed:.3g} of candidates computed, {rates.schedules} schedules"
            + (f" for each of {batch} examples" if unit.switch.per_example else "")
        )
        if unit.switch.groups == 1:
            lines.append(
                "one schedule: in a residual block, skip='block' lets the rest rest as well"
            )
    described = _describe(unit, features, steps, batch, platform, "float32")
    for name, backend in BACKENDS.items():
        refused = backend.unsupported(*described)
        if refused is not None:
            lines.append(f"{name}: {refused}")
        elif name in choice.costs:
            lines.append(f"{name}: {choice.costs[name]:.2f} of the dense cost expected")
        else:
            lines.append(f"{name}: runs only if asked for by name")
    return "\n".join([*lines, f"-> {choice.backend}: {choice.reason}"])


def update_rates(unit: Unit, features: int) -> UpdateRates:
    """What the unit's switch declares."""
    switch = unit.switch
    if switch is None or not switch.gate.hard:
        return UpdateRates(1.0, 1.0, features)
    computed = switch.rate
    if not switch.frozen:
        computed = min(1.0, computed + _NEARLY_OPEN * switch.gate.support)
    return UpdateRates(switch.rate, computed, switch.groups or features)


def _describe(unit, features, steps, batch, platform, dtype) -> tuple[ScanSpec, ScanShape]:
    """The arguments of a back end's questions; the state is as wide as the operands."""
    spec = ScanSpec(unit.cell, None if unit.switch is None else unit.switch.gate, dtype)
    double = spec.dtype == jnp.dtype(jnp.float64)
    carry_dtype = jnp.dtype(jnp.float64 if double else jnp.float32)
    per_example = unit.switch is not None and unit.switch.per_example
    platform = platform or jax.default_backend()
    return spec, ScanShape(steps, batch, features, carry_dtype, per_example, platform)
