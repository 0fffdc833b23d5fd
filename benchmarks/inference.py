"""Inference on one long sequence: forward pass only.

    python -m benchmarks.inference --features=256 --steps=784 --rates=0.17

One pixel a step, as in the task on which the paper of the suRNN times its C program (784 steps,
17 % updates, 5.3 times faster than its dense one; 1 / 0.17 = 5.88 is ideal). The baseline is our
own native kernel on the same cell without a switch, the fastest dense one that we have.

The call includes computing the switch's logits, which costs as much as many updates for a single
sequence. A rhythm's logits are the same for all sequences, so a server computes them once: the
variant `native, table given`. It also packs the weights once and calls past `jit`
(:func:`surnn_jax.scan.prepare`): the variant `prepared weights`, which keeps its table as well.
"""

from absl import flags

from benchmarks import options
from benchmarks.case import Case
from data import cli

DENSE, GIVEN, PREPARED = "native, no switch", "native, table given", "prepared weights"


def make_entrants(case: Case, backends: list[str]) -> dict:
    """The entrants of a case.

    Raises:
        ValueError: there is no native kernel.
    """
    import dataclasses

    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks import baselines, problem
    from benchmarks.timing import Entrant
    from surnn_jax.scan import ScanInputs, ScanSpec, native, prepare

    def call(forward, posed, *more):
        compiled, arguments = jax.jit(forward), (posed.params, posed.x, *more)
        return lambda: compiled(*arguments)

    dense = problem.pose(dataclasses.replace(case, schedule=None))
    if not problem.supports("native", dense.unit, case):
        raise ValueError(
            "the baseline is the native kernel, which is not built; "
            "python -m surnn_jax.scan.native.build builds it"
        )
    posed = problem.pose(case, "frozen")
    plain = call(problem.theirs(baselines.masked_scan, posed.unit), posed)
    entrants = {DENSE: Entrant(DENSE, call(problem.ours(dense.unit, "native"), dense), dense.facts)}
    for backend in backends:
        if problem.supports(backend, posed.unit, case):
            entrants[backend] = Entrant(
                backend,
                call(problem.ours(posed.unit, backend), posed),
                posed.facts,
                (DENSE,),
                plain,
            )
    if "native" in backends and not posed.unit.switch.per_example:
        spec = ScanSpec(posed.unit.cell, posed.unit.switch.gate, jnp.float32)

        def scan(params, x, logits):
            start = spec.cell.initial_carry(params["cell"], (case.batch,))
            return native.scan(spec, ScanInputs(params["cell"], x, logits, start, start)).h

        logits = jax.jit(lambda switch, x: baselines.logits(posed.unit, switch, x, case.features))(
            posed.params["switch"], posed.x
        )
        entrants[GIVEN] = Entrant(GIVEN, call(scan, posed, logits), posed.facts, (DENSE,), plain)
    if "native" in backends:
        ready, x = prepare(posed.unit, posed.params), np.asarray(posed.x)
        entrants[PREPARED] = Entrant(
            PREPARED, lambda: ready.run(x)[1], posed.facts, (DENSE,), plain
        )
    return entrants


def main() -> None:
    """Runs the sweep that the flags ask for."""
    backends, schedules = options.names("backends"), options.names("schedules")
    # One sequence after another, as in streaming or sampling.
    race = options.race("inference", lambda case: make_entrants(case, backends), warm=2)
    options.run_all(options.cases(schedules), race)


if __name__ == "__main__":
    options.define(
        rounds=25, features="256", batch="1", steps="784", inputs="1", rates="0.17",
        schedules="neuron",
    )  # fmt: skip
    flags.adopt_module_key_flags(options)
    cli.run(main)
