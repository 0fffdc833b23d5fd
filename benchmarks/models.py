"""Time of a training step of a whole model against the share of open switches.

    python -m benchmarks.models --features=64 --inputs=16 --batch=16 --steps=1024

Times classifiers of two blocks with suGRUs (norm, recurrence, residual, feed-forward layer), from
the encoder to the updated parameters: loss, gradient, clipping and AdamW. The same model runs at
every rate, frozen and learned; the base has GRUs without a switch. All take turns, round by round.
`rate` is counted; `computed` is not for learned switches. With the schedules ``block`` (one rhythm
a block) and ``block-event`` the whole block rests while its switch is closed. Beside them run the
models of ``--others``: blocks of attention, S4D or Mamba, and the base in Flax alone (`nn.RNN`).

With ``--streaming=20`` it times so many steps of a stream instead, of encoder, blocks and final
norm under `jit`, each waiting for the one before.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import options
from benchmarks.case import Case, groups
from data import cli

BLOCKS, CLASSES = 2, 10

DENSE = {"schedule": "none", "switch": "none", "rate": 1.0, "computed": 1.0, "asked": 1.0}
"""What a record says of a model without a switch."""

RESTING = ("block", "block-event")
"""Schedules with which whole blocks rest."""

OTHERS = ("flax", "attention", "s4d", "mamba")
"""Models without a switch: the base in Flax alone, and other mixers in the same blocks."""


def switch_of(case: Case, schedule: str, kind: str, rate: float) -> Any:
    """A switch that is ``frozen``, ``learned``, or learned from a ``share`` of the batch."""
    from surnn_jax.switches import event, fourier, triangular

    options = {"gate": triangular(0.25, 1 / 8 if kind == "share" else 1.0)}
    options |= {"rate": rate, "frozen": kind == "frozen", "groups": groups(schedule)}
    if schedule.endswith("event"):
        return event(case.steps, **options, init_std=case.features**-0.5)
    return fourier(case.steps, **options)


def make_optimizer() -> Any:
    """AdamW behind a limit for the norm of the gradient."""
    import optax

    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


def pose(
    case: Case,
    rates: list[float],
    switches: list[str],
    backend: str,
    schedules: Sequence[str] = ("neuron",),
    others: Sequence[str] = (),
    streamed: int = 0,
) -> dict[str, Any]:
    """The entrants: ``"GRU"``, one for each schedule, kind of switch and rate, and the others.

    Each takes a training step, or `streamed` steps of a stream if that is not 0.
    """
    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks.flax_model import FlaxModel
    from benchmarks.timing import Entrant, stream
    from surnn_jax.layers import Backbone, Classifier, Options

    data, labels, start = jax.random.split(jax.random.key(case.seed), 3)
    x = jax.random.normal(data, (case.batch, case.steps, case.inputs))
    y = jax.random.randint(labels, (case.batch,), 0, CLASSES)
    optimizer = make_optimizer()

    def entrant(schedule, kind, rate):
        switch = None if rate is None else switch_of(case, schedule, kind, rate)
        inside = Options(switch=switch, backend=backend)
        model = classifier("gru" if switch is None else "sugru", inside, schedule in RESTING)
        seen = x if schedule.endswith("event") else x[:1, :2]  # for the thresholds
        params = jax.jit(model.init)(start, seen)["params"]

        facts = dict(DENSE)
        if switch is not None:
            traces = jax.jit(lambda params: model.apply({"params": params}, x).traces)(params)
            counted = float(jnp.mean(jnp.stack([trace.rate for trace in traces])))
            computed = counted if kind == "frozen" else None
            facts = {"schedule": schedule, "switch": kind, "rate": counted, "computed": computed}
            facts["asked"] = rate
        call = timed(model, params, lambda params: model.apply({"params": params}, x).outputs)
        return Entrant(backend, call, facts, ("GRU",) if rate else ())

    def timed(model, params, scores):
        return streaming(model, params) if streamed else stepping(scores, params)

    def streaming(model, params):
        backbone, own = model.backbone, {"params": params["backbone"]}
        step = jax.jit(lambda own, carry, frame: backbone.apply(own, carry, frame, method="step"))
        begin = backbone.apply(own, (case.batch,), method="initial_carry")
        frames = list(jnp.swapaxes(x, 0, 1)[:streamed])
        return lambda: stream(functools.partial(step, own), begin, frames)

    def classifier(kind, inside, rests):
        skip = "block" if rests else "mixer"
        backbone = Backbone((kind,) * BLOCKS, case.features, options=inside, skip=skip)
        return Classifier(backbone, CLASSES, "mean")

    def other(name):
        if name == "flax":
            model = FlaxModel(case.features, BLOCKS, CLASSES)
        else:
            model = classifier(name, Options(), False)
        params = jax.jit(model.init)(start, x[:1, :2])["params"]

        def scores(params):
            found = model.apply({"params": params}, x)
            return found if name == "flax" else found.outputs

        return Entrant(name, timed(model, params, scores), DENSE, ("GRU",))

    def stepping(scores, params):
        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(scores(params), y).mean()

        @jax.jit
        def step(params, state):
            value, slopes = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(slopes, state, params)
            return value, optax.apply_updates(params, updates), state

        state = optimizer.init(params)
        return lambda: step(params, state)

    found = {"GRU": entrant("none", "none", None)}
    for schedule, kind, rate in itertools.product(schedules, switches, rates):
        name = f"{kind} {rate:g}"
        name = name if schedule == "neuron" else f"{schedule} {name}"
        found[name] = entrant(schedule, kind, rate)
    return found | {name: other(name) for name in others}


def main() -> None:
    """Runs the race that the flags ask for."""
    rates, switches = options.numbers("rates", float, 0.9), options.names("switches")
    (backend,) = options.names("backends")
    schedules = options.names("schedules", *RESTING)
    others = flags.FLAGS.others
    if not set(others) <= set(OTHERS):
        raise ValueError(
            f"--others must list some of {', '.join(OTHERS)}, got {','.join(others)!r}"
        )
    streamed = flags.FLAGS.streaming
    if streamed and "flax" in others:
        raise ValueError("--streaming: the model in Flax alone has no step")
    more = f", {streamed} steps of a stream" if streamed else ""

    def measured(case, progress):
        def entrants(_):
            return pose(case, rates, switches, backend, schedules, others, streamed)

        lines = options.race("models", entrants)(case, progress)
        return [{**line, "model": f"two blocks, H = {case.features}{more}"} for line in lines]

    # All rates of a size are in one race.
    cases = {dataclasses.replace(case, asked=1.0) for case in options.cases()}
    options.run_all(sorted(cases, key=str), measured)


if __name__ == "__main__":
    options.define(
        rounds=9,
        features="64",
        batch="16",
        steps="1024",
        inputs="16",
        rates="0.05,0.1,0.25,0.5",
        schedules="neuron,event,block,block-event",
        switches="frozen,learned",
        backends="native",
    )
    flags.DEFINE_list("others", [], f"Models to time beside them, of {', '.join(OTHERS)}")
    flags.DEFINE_integer("streaming", 0, "Time so many steps of a stream instead.", lower_bound=0)
    flags.adopt_module_key_flags(options)
    cli.run(main)
