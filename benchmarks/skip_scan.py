"""A training step of a selective GRU against its update rate.

    python -m benchmarks.skip_scan --features=256 --batch=16 --steps=1024 --inputs=64 \\
        --rates=0.05,0.1,0.25,1 --rounds=7 --output=skip.jsonl --plot=skip.png

Forward and backward pass with the gradient of every parameter (the switch's if it learns) and of
the inputs. The baseline is a masked `lax.scan` with JAX's own derivative; Flax's plain GRU is timed
too. Computing the switch's logits is part of the step. At rate 1 there is a switch, always open.

Each schedule and rate is one race: all back ends, frozen and learned, take turns. `computed` is
the share of candidates that the schedule needs, nearly open ones included; masked scans need all.
"""

from typing import Any

from absl import flags

from benchmarks import options
from benchmarks.case import Case
from data import cli

BASE, DENSE = "masked lax.scan", "flax.linen.RNN"


def make_entrants(case: Case, learning: list[str], backends: list[str]) -> dict[str, Any]:
    """The entrants of a case: ``frozen/native``, ``learned/masked lax.scan`` and so on."""
    import dataclasses
    import functools

    from benchmarks import baselines, problem
    from benchmarks.timing import Entrant

    entrants = {}
    for switch in learning:
        posed = problem.pose(case, switch)
        plain = problem.step(problem.theirs(baselines.masked_scan, posed.unit), posed)
        wanted, against = functools.cache(plain), (f"{switch}/{BASE}",)
        if switch == "share":  # a masked scan gains nothing by it
            against = (f"learned/{BASE}",)
        else:
            entrants[f"{switch}/{BASE}"] = Entrant(BASE, plain, posed.facts)
        for backend in backends:
            if problem.supports(backend, posed.unit, case):
                call = problem.step(problem.ours(posed.unit, backend), posed)
                entrants[f"{switch}/{backend}"] = Entrant(
                    backend, call, posed.facts, against, wanted
                )
    dense = problem.pose(dataclasses.replace(case, schedule=None))
    dense = dense._replace(params=baselines.for_flax(dense.params["cell"]))
    entrants[DENSE] = Entrant(DENSE, problem.step(baselines.flax_rnn, dense), dense.facts)
    return entrants


def main() -> None:
    """Runs the sweep that the flags ask for."""
    learning, backends = options.names("switches"), options.names("backends")
    if "share" in learning and "learned" not in learning:
        raise ValueError("--switches: share is compared with learned, which is not listed")
    schedules = options.names("schedules")
    race = options.race("skip_scan", lambda case: make_entrants(case, learning, backends))
    options.run_all(options.cases(schedules), race)


if __name__ == "__main__":
    options.define(
        features="256", batch="16", steps="1024", inputs="64", rates="0.05,0.1,0.25,1",
        schedules="neuron,group,event", switches="frozen,learned,share",
    )  # fmt: skip
    flags.adopt_module_key_flags(options)
    cli.run(main)
