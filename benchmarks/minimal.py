"""A training step of a minimal selective unit, whose candidate does not read the state: minGRU.

    python -m benchmarks.minimal --features=256 --batch=16 --steps=1024 --inputs=64 --rates=0.1

It is a linear recurrence, so the baselines are `associative_scan`, parallel over time, and a scan
that holds the state with `where`, both with JAX's own derivative. The switch is frozen.
"""

from absl import flags

from benchmarks import options
from benchmarks.case import Case
from data import cli

ASSOCIATIVE, WHERE = "associative_scan", "where in lax.scan"


def make_entrants(case: Case, backends: list[str]) -> dict:
    """The entrants of a case."""
    import functools

    from benchmarks import baselines, problem
    from benchmarks.timing import Entrant

    posed = problem.pose(case, "frozen")
    plain = problem.step(problem.theirs(baselines.associative_scan, posed.unit), posed)
    where = problem.step(problem.theirs(baselines.where_scan, posed.unit), posed)
    wanted = functools.cache(plain)
    entrants = {
        ASSOCIATIVE: Entrant(ASSOCIATIVE, plain, posed.facts),
        WHERE: Entrant(WHERE, where, posed.facts, (ASSOCIATIVE,), wanted),
    }
    for backend in backends:
        if problem.supports(backend, posed.unit, case):
            call = problem.step(problem.ours(posed.unit, backend), posed)
            entrants[backend] = Entrant(backend, call, posed.facts, (ASSOCIATIVE, WHERE), wanted)
    return entrants


def main() -> None:
    """Runs the sweep that the flags ask for."""
    backends, schedules = options.names("backends"), options.names("schedules")
    race = options.race("minimal", lambda case: make_entrants(case, backends))
    options.run_all(options.cases(schedules, "min_gru"), race)


if __name__ == "__main__":
    options.define(
        features="256", batch="16", steps="1024", inputs="64", rates="0.05,0.1,0.25",
        schedules="neuron",
    )  # fmt: skip
    flags.adopt_module_key_flags(options)
    cli.run(main)
