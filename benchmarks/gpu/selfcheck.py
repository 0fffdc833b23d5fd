"""Every back end and cell on the device, in float32, against float64 on the CPU.

    python -m benchmarks.gpu.selfcheck --output=selfcheck.jsonl

One line a check: the largest difference of values and gradients, as a share of the norm. Products
are computed in float32, not TF32. Programs are compiled several at a time.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from absl import flags

from data import cli

STEPS, BATCH, INPUTS, FEATURES = 19, 4, 5, 64

_TOLERANCE = 2e-5

# Steps and tolerance for the CUDA kernel, which runs so many in two pieces. Now and then a logit is
# so close to 0 that its sign is another in float32.
_LONG = 520, 2e-4


def checks(cells: list[str]) -> list[tuple[str, str, str]]:
    """Back end, cell and kind of switch; those that a back end does not run itself are not in."""
    import jax
    import jax.numpy as jnp

    from surnn_jax import scan

    found = []
    for name, backend in scan.BACKENDS.items():
        if name == "reference" or (name == "pallas" and jax.default_backend() == "cpu"):
            continue  # the one is what all are tested with; the other is interpreted on a CPU
        for cell in cells:
            for kind in ("none", "neuron", "event", "group"):
                unit = _unit(cell, kind)
                gate = None if unit.switch is None else unit.switch.gate
                shape = scan.spec.ScanShape(
                    STEPS, BATCH, FEATURES, jnp.dtype("float32"), kind == "event",
                    jax.default_backend(),
                )  # fmt: skip
                spec = scan.ScanSpec(unit.cell, gate, "float32")
                if backend.unsupported(spec, shape) is None and _is_worth_it(name, cell, kind):
                    found.append((name, cell, kind))
    return found


def _is_worth_it(name: str, cell: str, kind: str) -> bool:
    """`masked` and `compact` are plain JAX: not every cell with every switch."""
    if name in ("cuda", "native"):
        return True
    if name == "masked":
        return kind == "event" or cell in ("gru", "lstm")
    return cell in ("gru", "lstm", "min_gru") and kind != "none"


def _unit(cell: str, kind: str):
    from surnn_jax import selective, switches

    if kind == "none":
        return selective(cell, None)
    if kind == "event":
        return selective(cell, switches.event(16, rate=0.4))
    return selective(cell, switches.fourier(16, rate=0.4, groups=1 if kind == "group" else None))


def compare(backend: str, cell: str, kind: str) -> dict[str, Any]:
    """One check."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from surnn_jax import scan

    unit, cpu = _unit(cell, kind), jax.devices("cpu")[0]
    steps, tolerance = _LONG if backend == "cuda" else (STEPS, _TOLERANCE)
    random = np.random.default_rng(0)
    x = random.normal(size=(steps, BATCH, INPUTS)).astype(np.float32)
    weight = random.normal(size=(steps, BATCH, FEATURES)).astype(np.float32)
    with jax.default_device(cpu):
        params = jax.jit(lambda x: unit.init(jax.random.key(0), x, FEATURES))(x)
        params = jax.tree.map(np.asarray, params)

    def run(params, x, weight, backend):
        def loss(params, x):
            out = scan.run(unit, params, x, backend=backend).outputs
            return jnp.sum(jnp.sin(out) * weight), out

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    program = jax.jit(run, static_argnums=3)
    # Masked, because it takes a second to compile; tests hold it against the reference.
    with jax.enable_x64(True), jax.default_device(cpu):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, x, weight))
        wanted = jax.device_get(program(*wide, "masked"))
    found = jax.device_get(program(params, x, weight, backend))
    worst = 0.0
    for w, f in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        apart = np.linalg.norm(np.asarray(f, np.float64) - w) / max(np.linalg.norm(w), 1e-6)
        worst = max(worst, float(apart)) if np.isfinite(apart) else float("inf")
    good = worst <= tolerance
    return {"difference": worst if np.isfinite(worst) else None, "good": bool(good)}


def main() -> None:
    """Runs all checks."""
    import jax

    from surnn_jax import cells

    jax.config.update("jax_default_matmul_precision", "highest")
    values = flags.FLAGS
    names = values.cells or list(cells.CELLS)
    # CPUs are quick to compile one at a time; for a GPU it takes seconds, on any number of cores.
    waiting, bad = checks(names), 0
    with (
        open(values.output, "a", encoding="utf-8") as output,
        ThreadPoolExecutor(values.threads) as pool,
    ):
        jobs = {pool.submit(compare, *check): check for check in waiting}
        for job in as_completed(jobs):
            check = dict(zip(("backend", "cell", "switch"), jobs[job], strict=True))
            try:
                line = check | job.result()
            except Exception as error:
                text = " ".join(str(error).split())[:200]
                line = check | {"good": False, "error": f"{type(error).__name__}: {text}"}
            output.write(json.dumps(line) + "\n")
            output.flush()
            if not line["good"]:
                bad += 1
                print("differs: ", line, flush=True)
    print(f"{len(waiting)} checks, {bad} differ")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    flags.DEFINE_list("cells", "", "Only these cells")
    flags.DEFINE_integer("threads", 12, "Programs compiled at a time", lower_bound=1)
    cli.define_path("output", "selfcheck.jsonl", "A file to add lines to")
    cli.run(main)
