"""Which back end to run, and why.

Under `jit` the table of a learned switch is not known when the program is made, so the choice
goes by what is: the cell, the switch's declared rate and who shares a schedule, the sizes, the
platform. It is a choice of speed alone; every back end gives the same answer, to rounding.
"""

import math
from typing import Any, NamedTuple

import jax
from jax.export import is_symbolic_dim

from surnn_jax.scan import native, pallas, rows
from surnn_jax.scan.unit import Unit

# Measured with a GRU on a CPU, forward and backward: one portion of `rows`, in units of one step
# of `compact` with all neurons open, by the size of a step's recurrent product, B · H².
_PORTION = ((2**16, 0.78), (2**18, 0.5), (2**20, 0.27), (2**22, 0.19))

# A step of the backward pass at which neurons are near the threshold but none is open.
_NEAR = 0.25

# Share of logits within the window, over its half-width; measured for Fourier switches at rates
# of 5 to 30 %.
_CROWD = 0.4


class Choice(NamedTuple):
    """What was chosen.

    Attributes:
        backend: its name in :data:`surnn_jax.scan.BACKENDS`.
        reason: one line.
        costs: what each back end is expected to take, as a share of all steps computed densely.
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
        unit: what is to run.
        features: H.
        steps: T, an integer or a symbol of `jax.export`.
        batch: B, all batch axes together; likewise.
        platform: "cpu", "gpu" or "tpu"; None for the one JAX computes on.
        dtype: of the operands of products.
    """
    if is_symbolic_dim(steps) or is_symbolic_dim(batch):
        return Choice("masked", "the sizes are symbols, as in an export", {})
    platform = platform or jax.default_backend()
    costs = _costs(unit, features, batch)
    if steps == 1:
        return Choice("masked", "one step has nothing to skip in time or to batch", costs)
    if platform != "cpu":
        # `pallas` waits for its first run on one.
        if costs["compact"] < 0.5:
            return Choice("compact", f"most steps are empty (not measured on {platform})", costs)
        return Choice("masked", f"few steps are empty (not measured on {platform})", costs)
    # Measured forward and backward. tanh, H of 32 to 1024, B of 1 to 32, one core and two: the
    # kernel had 0.46 to 1.03 of the speed of `masked`, and `compact` 0.53 to 1.02. GRU and LSTM,
    # one sequence, H of 256 and 512, one core: the kernel had 0.75 to 0.93; forward alone 0.93 to
    # 1.08.
    if unit.switch is None and (unit.cell.name == "tanh" or (batch == 1 and features >= 256)):
        return Choice("masked", "nothing to skip, and XLA's own loop is as fast or faster", costs)
    if _native(unit, dtype):
        return Choice("native", "the compiled kernel is there and knows this cell", costs)
    best = min(costs, key=costs.__getitem__)
    why = {
        "compact": "the fewest candidates are computed by running the steps that are not empty",
        "rows": "few neurons open at a step, and the batch shares them",
    }
    return Choice(best, f"{why[best]}; no compiled kernel for it here", costs)


def explain(unit: Unit, features: int, steps: int, batch: int, platform: str | None = None) -> str:
    """What :func:`choose` says, in words; arguments as there.

    Returns:
        A few lines: the unit, its rates, the expected costs, the choice and the reason.
    """
    choice = choose(unit, features, steps, batch, platform)
    lines = [f"{unit.cell.name}, H = {features}, B = {batch}, T = {steps}"]
    if unit.switch is None:
        lines.append("no switch: every neuron updates at every step")
    else:
        rate, share, groups = _schedule(unit, features)
        lines.append(
            f"{type(unit.switch).__name__.lower()} switch, declared rate {rate:.3g}, about "
            f"{share:.3g} of candidates computed, {groups} schedules"
            + (f" for each of {batch} examples" if unit.switch.per_example else "")
        )
    lines += [
        f"{name}: {cost:.2f} of the dense cost expected" for name, cost in choice.costs.items()
    ]
    platform = platform or jax.default_backend()
    if platform != "cpu":
        no = pallas.refusal(unit.cell, features, "float32", platform)
        lines.append(f"pallas: {no or f'kernels are there, never yet run on a {platform}'}")
    return "\n".join([*lines, f"-> {choice.backend}: {choice.reason}"])


def _schedule(unit: Unit, features: int) -> tuple[float, float, int]:
    """Open share, share of candidates a training step computes, and number of schedules."""
    switch = unit.switch
    if not switch.gate.hard:
        return 1.0, 1.0, features
    share = switch.rate
    if not switch.frozen:
        share = min(1.0, share + _CROWD * switch.gate.support)
    return switch.rate, share, switch.groups or features


def _costs(unit: Unit, features: int, batch: int) -> dict[str, float]:
    if unit.switch is None:
        return {"compact": 1.0}
    rate, share, groups = _schedule(unit, features)
    independent = groups * (batch if unit.switch.per_example else 1)
    busy, near = (1 - (1 - p) ** independent for p in (rate, share))
    costs = {"compact": busy + _NEAR * (near - busy)}
    if rows.serves(unit.cell, unit.switch.gate, not unit.switch.per_example):
        # Two thirds of the work are the backward pass, which takes the near ones along.
        wanted = features * (rate + 2 * share) / 3
        portions = max(wanted / rows.width(features) + 0.5, 1.0)
        costs["rows"] = busy * portions * _portion(batch * features**2)
    return costs


def _portion(work: int) -> float:
    """The cost measured at the nearest size."""
    return min(_PORTION, key=lambda entry: abs(math.log2(entry[0] / max(work, 1))))[1]


def _native(unit: Unit, dtype: Any) -> bool:
    gate = None if unit.switch is None else unit.switch.gate
    return native.available() and native.supports(unit.cell, gate, dtype)
