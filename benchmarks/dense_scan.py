"""A training step of a plain GRU: the cost of our back ends when there is nothing to skip.

    python -m benchmarks.dense_scan --features=256 --batch=16 --steps=1024 --inputs=64 --rounds=7

The baselines are `flax.linen.RNN(GRUCell)` and `torch.nn.GRU`. The latter runs in a separate
process (in one process the thread pools of XLA and PyTorch slow each other down many times over),
takes its turn in every round and gets the same numbers; its time includes a message of 0.1 ms at
most. Without PyTorch it is left out, and a line on stderr says so. PyTorch's threads spin while
they wait, so it slows down disproportionately if other programs compete for the processors: run
this benchmark on a quiet machine.
"""

import contextlib
import importlib.util
import sys
from typing import Any

from absl import flags

from benchmarks import options
from benchmarks.case import Case
from data import cli

FLAX, TORCH = "flax.linen.RNN", "torch.nn.GRU"


def make_entrants(
    case: Case, backends: list[str], stack: contextlib.ExitStack, threads: int
) -> dict:
    """The entrants of a case; PyTorch's process lives as long as `stack`."""
    import functools

    from benchmarks import baselines, problem
    from benchmarks.timing import Entrant

    posed = problem.pose(case)
    renamed = posed._replace(params=baselines.for_flax(posed.params["cell"]))
    plain = problem.step(baselines.flax_rnn, renamed)
    wanted = functools.cache(plain)
    entrants = {FLAX: Entrant(FLAX, plain, posed.facts)}
    against: tuple[str, ...] = (FLAX,)
    if importlib.util.find_spec("torch") is not None:
        from benchmarks.torch_client import Torch

        other = stack.enter_context(Torch(posed, threads=threads))
        entrants[TORCH] = Entrant(
            TORCH, other.step, posed.facts, against, wanted, lambda a: _by_flax(other.answer(a))
        )
        against = (FLAX, TORCH)
    for backend in backends:
        if problem.supports(backend, posed.unit, case):
            call = problem.step(problem.ours(posed.unit, backend), posed)
            entrants[backend] = Entrant(backend, call, posed.facts, against, wanted, _by_flax)
    return entrants


def _by_flax(answer: Any) -> Any:
    """Our loss and gradients, under Flax's names."""
    from benchmarks import baselines

    value, (params, x) = answer
    return value, (baselines.for_flax(params["cell"]), x)


def main() -> None:
    """Runs the sweep that the flags ask for."""
    backends, threads = options.names("backends"), flags.FLAGS.torch_threads
    if importlib.util.find_spec("torch") is None:
        print("torch.nn.GRU is left out: torch is not installed", file=sys.stderr)

    def measure(case, progress):
        with contextlib.ExitStack() as stack:
            race = options.race(
                "dense_scan", lambda case: make_entrants(case, backends, stack, threads)
            )
            return race(case, progress)

    options.run_all(options.cases(), measure)


if __name__ == "__main__":
    options.define(features="256", batch="16", steps="1024", inputs="64")
    flags.DEFINE_integer("torch_threads", 2, "Threads of PyTorch", lower_bound=1)
    flags.adopt_module_key_flags(options)
    cli.run(main)
