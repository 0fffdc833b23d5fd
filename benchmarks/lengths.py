"""Time and memory of a training step of one layer against the length of the sequence.

    python -m benchmarks.lengths --features=128 --inputs=128 --batch=4 --steps=256,1024,4096

Times a suGRU whose switch learns, the GRU without a switch, causal attention over the whole
sequence, and S4D, as the layers that models are built of: batch-major, without the feed-forward
part between them. They compute different things, so only time and memory are compared. At each
length all take turns; the baseline is the GRU.

`kept_bytes` and `temporary_bytes` are as in `benchmarks.memory`. Attention saves T² numbers a head
and sequence: 1 GB at the sizes above. S4D's outputs are as wide as its inputs, so both sizes must
be equal.
"""

from typing import Any

from absl import flags

from benchmarks import options
from benchmarks.case import Case
from data import cli

MODELS = ("sugru", "gru", "attention", "s4d")
_NAMES = {"sugru": "suGRU", "gru": "GRU"}


def check_models(models: list[str]) -> list[str]:
    """The models, if they are known.

    Raises:
        ValueError: an unknown or repeated one, or none.
    """
    if not models or len(set(models)) < len(models) or not set(models) <= set(MODELS):
        raise ValueError(
            f"--models must list some of {', '.join(MODELS)}, got {','.join(models)!r}"
        )
    return models


def pose(case: Case, models: list[str], backends: list[str], heads: int) -> dict[str, Any]:
    """The entrants: ``"suGRU, native"`` and so on -> (forward, :class:`.problem.Problem`).

    Raises:
        ValueError: no back end listed can run a recurrent layer that is listed.
    """
    import dataclasses

    import jax
    import jax.numpy as jnp

    from benchmarks import problem
    from surnn_jax.layers import Recurrent

    cases = {"sugru": case, "gru": dataclasses.replace(case, schedule=None)}
    serving = {}
    for model in (model for model in models if model in cases):
        unit = problem.unit(cases[model], "learned")
        serving[model] = [
            backend for backend in backends if problem.supports(backend, unit, cases[model])
        ]
        if not serving[model]:
            raise ValueError(
                f"--backends: none of {', '.join(backends)} runs a {_NAMES[model]} here; native "
                "is built by python -m surnn_jax.scan.native.build"
            )
    bare = problem.pose(cases["gru"])
    x, target = (jnp.swapaxes(leaf, 0, 1) for leaf in (bare.x, bare.target))

    def recurrent(posed, backend):
        unit = posed.unit
        layer = Recurrent(unit.cell, case.features, unit.switch, backend=backend)
        return (
            lambda params, x: layer.apply({"params": params}, x),
            posed._replace(x=x, target=target),
        )

    def mixer(layer):
        params = jax.jit(layer.init)(jax.random.key(case.seed), x[:, :2])["params"]
        return (
            lambda params, x: layer.apply({"params": params}, x)[1],
            problem.Problem(None, params, x, target, bare.facts),  # it is no unit
        )

    found = {}
    for model in models:
        if model in cases:
            posed = problem.pose(case, "learned") if model == "sugru" else bare
            for backend in serving[model]:
                found[f"{_NAMES[model]}, {backend}"] = recurrent(posed, backend)
        elif model == "attention":
            from surnn_jax.layers.attention import Attention

            found["attention"] = mixer(Attention(case.features, num_heads=heads, window=case.steps))
        else:
            from surnn_jax.layers.s4d import S4D

            found["S4D"] = mixer(S4D(case.features))
    return found


def measure(case: Case, posed: dict[str, Any], progress: options.Progress) -> list[dict]:
    """The records of a case: a race, then the memory of each."""
    import jax

    from benchmarks import problem, saved_memory
    from benchmarks.timing import Entrant

    bases = tuple(name for name in posed if name.startswith("GRU"))[:1]
    entrants = {
        name: Entrant(name, problem.step(forward, own), own.facts, () if name in bases else bases)
        for name, (forward, own) in posed.items()
    }
    lines = options.race("lengths", lambda _: entrants)(case, progress)
    for line in lines:
        forward, own = posed[line["backend"]]
        found = saved_memory.measure(forward, own, "outputs")
        line |= {"kept_bytes": found.kept, "temporary_bytes": found.temporary}
        line["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(own.params))
    return lines


def main() -> None:
    """Runs the sweep that the flags ask for."""
    values = flags.FLAGS
    models, backends = check_models(values.models), options.names("backends")

    def measured(case, progress):
        import dataclasses

        case = dataclasses.replace(case, schedule="neuron", asked=values.rate)
        return measure(case, pose(case, models, backends, values.heads), progress)

    options.run_all(options.cases(), measured)


if __name__ == "__main__":
    options.define(
        features="128", batch="4", steps="256,512,1024,2048,4096", inputs="128", rounds=5
    )
    flags.FLAGS.set_default("backends", "native")
    flags.DEFINE_list("models", ",".join(MODELS), f"Of {', '.join(MODELS)}")
    flags.DEFINE_float("rate", 0.1, "Share of open switches of the suGRU, above 0 up to 1")
    cli.define_path("plot", None, "A PNG to draw: time and memory against the steps")
    flags.DEFINE_integer("heads", 4, "Heads of attention, a divisor of H", lower_bound=1)
    flags.adopt_module_key_flags(options)
    cli.run(main)
