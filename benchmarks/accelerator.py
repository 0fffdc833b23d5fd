"""A training step on a GPU or TPU: our back ends against what others run, and against cuDNN.

    python -m benchmarks.first_gpu                   # this and more, on a GPU, in one command
    python -m benchmarks.accelerator --features=256 --batch=64 --steps=4096 --inputs=64 \\
        --rates=0.05,0.1,0.25 --schedules=group,8,neuron --output=accelerator.jsonl
    python -m benchmarks.accelerator --cell=lstm --schedules=none --rates=1 --features=512

Forward and backward pass, gradient for every parameter and for the inputs. The baseline is
`lax.scan` over the cell, masked where there is a switch, with JAX's own derivative. The schedule
``none`` is a unit without a switch, which cuDNN runs as well: its LSTM through
`jax.experimental.rnn`, its GRU and LSTM through PyTorch, in a process of its own; so does Flax's
`nn.RNN(GRUCell)`. What is not installed, fails or answers something else is left out, and a line on
stderr says so.

A record also has the number of steps at which some neuron opens (`busy`), the time of one of them,
and the shares it reaches of two ceilings: that of products, measured with one large product, and
that of memory, measured with one large copy, both in the same process. On a CPU the kernels are
interpreted, which is only good for a trial at small sizes.
"""

import contextlib
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks import options
from benchmarks.case import Case
from benchmarks.records import Record
from data import cli

BASE, CUDNN, TORCH = "lax.scan", "cuDNN, jax.experimental.rnn", "cuDNN, PyTorch"
FLAX = "flax.linen.RNN"

# Operands of 8 or 11 bits, rounded in different orders. A missing term still shows.
_ROUNDED = 0.03


def make_entrants(case: Case, backends: list[str], dtype: str, stack: contextlib.ExitStack) -> dict:
    """The entrants of a case; PyTorch's process lives as long as `stack`."""
    import functools

    import jax
    import jax.numpy as jnp

    from benchmarks import baselines, problem
    from benchmarks.timing import Entrant
    from surnn_jax import scan

    posed = problem.pose(case)
    unit, operands = posed.unit, jnp.dtype(dtype)
    facts = {**posed.facts, "cell": case.cell, "dtype": dtype, "busy": busy(posed)}
    plain = problem.step(problem.theirs(baselines.cell_scan(operands), unit), posed)
    wanted, against = functools.cache(plain), (BASE,)
    entrants = {BASE: Entrant(BASE, plain, facts)}
    for backend in backends:
        if backend != "masked" and not problem.supports(backend, unit, case):
            print(f"{backend} is left out: it does not run {case}", file=sys.stderr)
            continue

        def forward(params, x, backend=backend):
            outputs = scan.run(unit, params, x, backend=backend, dtype=operands).outputs
            return outputs.astype(x.dtype)

        entrants[backend] = Entrant(backend, problem.step(forward, posed), facts, against, wanted)
    if unit.switch is None and dtype == "float32":
        if case.cell == "gru":
            renamed = posed._replace(params=baselines.for_flax(posed.params["cell"]))
            call = problem.step(baselines.flax_rnn, renamed)
            entrants[FLAX] = Entrant(FLAX, call, facts, against, functools.cache(flaxed(plain)))
        if case.cell == "lstm" and jax.default_backend() == "gpu":
            call = problem.step(baselines.cudnn_lstm, posed)
            entrants[CUDNN] = Entrant(CUDNN, call, facts, against, wanted)
        if _torch_device(jax.default_backend()):
            from benchmarks.torch_client import Torch

            device = _torch_device(jax.default_backend())
            try:
                other = stack.enter_context(Torch(posed, device=device))
            except Exception as error:
                leave_out(TORCH, error)
            else:
                entrants[TORCH] = Entrant(TORCH, other.step, facts, against, wanted, other.answer)
    return entrants


def flaxed(call: Callable[[], Any]) -> Callable[[], Any]:
    """A call whose answer, ours, comes under Flax's names."""
    from benchmarks import baselines

    def renamed():
        value, (params, x) = call()
        return value, (baselines.for_flax(params["cell"]), x)

    return renamed


def leave_out(name: str, error: Exception) -> None:
    """Says why something is not raced."""
    text = " ".join(str(error).split())[:300]
    print(f"{name} is left out: {type(error).__name__}: {text}", file=sys.stderr, flush=True)


def sound(entrants: dict, tolerance: float) -> dict:
    """The entrants that run and agree; the others are left out. All need the base.

    Raises:
        Exception: that of the base.
    """
    import jax

    from benchmarks import timing

    found = {}
    for key, entrant in entrants.items():
        try:
            answer = entrant.read(jax.block_until_ready(entrant.call()))
            if entrant.wanted is not None:
                timing.agree(key, answer, entrant.wanted(), tolerance)
        except Exception as error:
            if key == BASE:
                raise
            leave_out(key, error)
        else:
            found[key] = entrant
    return found


def _torch_device(platform: str) -> str:
    """Where PyTorch is to compute; empty where it is not installed or has no such device."""
    if platform != "gpu" or importlib.util.find_spec("torch") is None:
        return ""
    return "cuda"


def busy(posed: Any) -> int:
    """Steps at which some neuron of some example opens."""
    from benchmarks import baselines
    from surnn_jax.scan import indexing

    steps, _, features = posed.target.shape
    if posed.unit.switch is None:
        return steps
    logits = baselines.logits(posed.unit, posed.params["switch"], posed.x, features)
    opened = indexing.open_mask(posed.unit.switch.gate, logits)
    return int(indexing.active_mask(opened, None, None, steps).sum())


def ceilings(dtype: str, rounds: int = 5) -> tuple[float, float]:
    """Operations a second of one large product, and bytes a second of one large copy."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks import timing

    small = jax.default_backend() == "cpu"
    side, numbers = (512, 2**22) if small else (8192, 2**28)
    matrix = jnp.ones((side, side), dtype)
    product = jax.jit(lambda m: jnp.matmul(m, m, preferred_element_type=jnp.float32))
    copy = jax.jit(lambda v: v + 1)
    vector = jnp.zeros(numbers)
    entrants = {
        "product": timing.Entrant("product", lambda: product(matrix), {}),
        "copy": timing.Entrant("copy", lambda: copy(vector), {}),
    }
    times, _ = timing.race(entrants, rounds)
    seconds = {name: np.median(values) / 1e3 for name, values in times.items()}
    return 2 * side**3 / seconds["product"], 8 * numbers / seconds["copy"]


def shares(line: Record, roof: tuple[float, float]) -> Record:
    """A record with the time of a busy step, and what it reaches of both ceilings.

    Counts what any program must do: the products of the computed candidates, forward and twice
    backward; and reading or writing inputs, their gradient, states and their cotangents once each.
    """
    gates = {"tanh": 1, "gru": 3, "lstm": 4}[line["cell"]]
    rows, h, d = line["batch"] * line["steps"], line["features"], line["inputs"]
    operations = 6 * rows * line["computed"] * gates * h * (h + d)
    moved = 4 * rows * (2 * h + 2 * d)
    seconds = line["milliseconds"] / 1e3
    return {
        **line,
        "microseconds_per_busy_step": 1e6 * seconds / max(line["busy"], 1),
        "product_ceiling": roof[0],
        "memory_ceiling": roof[1],
        "product_share": operations / seconds / roof[0],
        "memory_share": moved / seconds / roof[1],
    }


def main() -> None:
    """Runs the sweep that the flags ask for."""
    values = flags.FLAGS
    backends = options.back_ends("pallas", "cuda", "parallel")
    schedules = [None if name == "none" else name for name in options.names("schedules", "none")]

    import jax

    from benchmarks import records, timing

    if values.dtype == "float32":
        jax.config.update("jax_default_matmul_precision", values.precision)
    exact = values.dtype == "float32" and values.precision == "highest"
    tolerance = timing.TOLERANCE if exact else _ROUNDED
    if jax.default_backend() == "cpu":
        print("no accelerator here: kernels are interpreted, times mean nothing", file=sys.stderr)
    elif not _torch_device(jax.default_backend()):
        print("PyTorch is left out: it is not installed, or this is no GPU", file=sys.stderr)
    roof = ceilings(values.dtype)
    facts = {"device": jax.devices()[0].device_kind, "precision": values.precision}
    if given := os.environ.get("XLA_FLAGS"):
        facts["xla_flags"] = given

    def measure(case: Case, progress: options.Progress) -> list[Record]:
        with contextlib.ExitStack() as stack:
            try:
                entrants = make_entrants(case, backends, values.dtype, stack)
                entrants = sound(entrants, tolerance)
            except Exception as error:
                leave_out(f"{case}", error)
                return []
            progress.case(case, len(entrants) * (values.rounds + 2))
            results = timing.race(
                entrants, values.rounds, values.seed, progress.tick, tolerance=tolerance
            )
            lines = records.timed("accelerator", case, entrants, *results)
        return [{**shares(line, roof), **facts} for line in lines]

    cases = options.cases(schedules, values.cell)
    # Without a switch there is one rate.
    dense = (c if c.schedule else dataclasses.replace(c, asked=1.0) for c in cases)
    seen = dict.fromkeys(dense)
    options.run_all(list(seen), measure)


if __name__ == "__main__":
    options.define(
        features="256", batch="64", steps="4096", inputs="64", rates="0.05,0.1,0.25,1",
        schedules="none,group,neuron", backends="pallas,compact,masked",
    )  # fmt: skip
    flags.DEFINE_enum("cell", "gru", ["tanh", "gru", "lstm"], "The cell")
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Operands of products")
    flags.DEFINE_enum(
        "precision", "default", ["default", "highest"],
        "Of float32 products: as JAX does them on this device (TF32 on a GPU), or exact",
    )  # fmt: skip
    flags.adopt_module_key_flags(options)
    cli.run(main)
