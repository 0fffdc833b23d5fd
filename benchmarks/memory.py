"""Bytes that a scan keeps between its forward and its backward pass.

    python -m benchmarks.memory --features=256 --batch=16 --steps=1024 --inputs=64 --rates=0.1

`kept_bytes` is the size of the arrays that the forward pass, run under `jax.vjp` and `jit`, saves
for its backward pass. Arrays equal to an argument or to one already counted take no extra memory in
a training step and do not count. The outputs count if a back end saves them; the baseline saves its
states in addition.

`temporary_bytes` is XLA's peak memory of a compiled training step besides arguments and results. It
includes the workspace of the backward pass, but not what the native kernel allocates itself.

`reads` is what the loss reads. With `--chunks` (steps a chunk) a scan saves one state a chunk and
recomputes the others. A loss that reads all outputs then holds them itself until the backward pass,
so `temporary_bytes` is the fairer figure there. The baseline is the masked `lax.scan` with JAX's
own derivative.
"""

from absl import flags

from benchmarks import options
from benchmarks.case import Case
from data import cli

BASE = "masked lax.scan"
READS = ("outputs", "last")


def measure(case: Case, progress: options.Progress) -> list[dict]:
    """The records of a case."""
    from benchmarks import baselines, problem, saved_memory
    from benchmarks.records import sizes

    chunks = [None, *(options.numbers("chunks", int) if flags.FLAGS["chunks"].value else ())]
    learning, lines = options.names("switches"), []
    variants = [(b, chunk) for b in options.back_ends("pallas", "cuda") for chunk in chunks]
    progress.case(case, len(learning) * len(READS) * (len(variants) + 1))
    for switch in learning:
        posed = problem.pose(case, switch)
        for reads in READS:
            plain = problem.theirs(baselines.masked_scan, posed.unit)
            base = saved_memory.measure(plain, posed, reads)
            found = {(BASE, None): base}
            progress.tick()
            for backend, chunk in variants:
                if problem.supports(backend, posed.unit, case):
                    forward = problem.ours(posed.unit, backend, chunk)
                    now = saved_memory.measure(forward, posed, reads)
                    saved_memory.agree(f"{switch}/{backend}", now, base)
                    found[backend, chunk] = now
                progress.tick()
            for (backend, chunk), now in found.items():
                line = {"benchmark": "memory", "backend": backend, **posed.facts, **sizes(case)}
                line |= {"reads": reads, "chunk": chunk}
                line |= {"kept_bytes": now.kept, "temporary_bytes": now.temporary}
                lines.append({**line, "baseline": BASE, "saving": base.kept / now.kept})
    return lines


def main() -> None:
    """Runs the sweep that the flags ask for."""
    options.run_all(options.cases(options.names("schedules")), measure)


if __name__ == "__main__":
    options.define(
        rounds=0, features="256", batch="16", steps="1024", inputs="64", rates="0.05,0.1,0.25,1",
        schedules="neuron", switches="frozen",
    )  # fmt: skip
    flags.DEFINE_list("chunks", "32", "Steps a chunk of a second run of each; empty for none")
    flags.adopt_module_key_flags(options)
    cli.run(main)
