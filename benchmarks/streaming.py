"""A stream of one sequence, step by step: what a step takes beside its own arithmetic.

    python -m benchmarks.streaming --features=256 --inputs=64 --rates=0.17

The baseline is the arithmetic of a step without a switch: the products with all weights by NumPy on
one core, of the state (3 H² multiplications for a GRU) and of the input. Each call of a variant
takes ``--steps`` steps one after another, every one waiting for the one before.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported

from absl import flags

from benchmarks import options
from benchmarks.case import Case
from data import cli

PRODUCTS, JITTED, PREPARED = "products alone", "step under jit", "prepared step"


def make_entrants(case: Case) -> dict:
    """The entrants of a case: without a switch, and with a frozen one.

    Raises:
        ValueError: there is no native kernel.
    """
    import dataclasses

    import jax
    import numpy as np

    from benchmarks import problem
    from benchmarks.timing import Entrant

    dense = problem.pose(dataclasses.replace(case, schedule=None))
    if not problem.supports("native", dense.unit, case):
        raise ValueError(
            "a prepared unit needs the native kernel, which is not built; "
            "python -m surnn_jax.scan.native.build builds it"
        )
    weights = {
        kind: np.concatenate([np.asarray(w) for w in dense.params["cell"][kind].values()], -1)
        for kind in ("input", "recurrent")
    }
    h, frames = np.ones((case.batch, case.features), np.float32), np.asarray(dense.x)

    def products():
        for frame in frames:
            out = h @ weights["recurrent"], frame @ weights["input"]
        return out

    entrants = {PRODUCTS: Entrant(PRODUCTS, products, dense.facts)}
    for posed in (dense, problem.pose(case, "frozen")):
        whole = jax.jit(problem.ours(posed.unit, "masked"))
        for name, call in _streams(posed).items():
            entrants[f"{name}/{posed.facts['schedule']}"] = Entrant(
                name,
                call,
                posed.facts,
                (PRODUCTS,),
                functools.partial(
                    lambda whole, posed: whole(posed.params, posed.x)[-1], whole, posed
                ),
            )
    return entrants


def _streams(posed: Any) -> dict[str, Callable[[], Any]]:
    """Both ways to take the steps of a problem; each returns the last output."""
    import jax
    import numpy as np

    from benchmarks.timing import stream
    from surnn_jax import scan

    unit, params, frames = posed.unit, posed.params, np.asarray(posed.x)
    jitted = jax.jit(lambda params, carry, x: scan.step(unit, params, carry, x))
    ready, arrays = scan.prepare(unit, params), list(posed.x)
    begin = unit.initial_carry(params, frames.shape[1:-1])

    def under_jit():
        return stream(functools.partial(jitted, params), begin, arrays)

    def prepared():
        carry = None
        for frame in frames:
            carry, out = ready.step(carry, frame)
        return out

    return {JITTED: under_jit, PREPARED: prepared}


def main() -> None:
    """Runs the sweep that the flags ask for."""
    schedules = options.names("schedules")
    race = options.race("streaming", make_entrants, warm=1)
    options.run_all(options.cases(schedules), race)


if __name__ == "__main__":
    options.define(
        rounds=101, features="256", batch="1", steps="20", inputs="64", rates="0.17",
        schedules="neuron",
    )  # fmt: skip
    flags.adopt_module_key_flags(options)
    cli.run(main)
