"""Where the time of a training step of a whole model goes.

    python -m benchmarks.parts --features=64 --inputs=1 --batch=32 --steps=1024 --rates=0.1

Times the step of a classifier of :mod:`.models`, and each of its parts alone on arrays of the same
sizes, forward and backward; all take turns, round by round. A part that the model has several
times counts that often. Of a recurrent layer `table` is what its switch says (and the gradient of
that, if it learns), `scan, forward` and `scan, backward` are the rest. The last line, `rest`, is
what the step takes beyond its parts: residuals, and copies between parts. It is below 0 if they
take less together than alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks import options
from benchmarks.case import Case
from benchmarks.records import Record
from data import cli

TIMES = {
    "input": 1, "norm": 3, "table, forward": 2, "table": 2, "layer, forward": 2, "layer": 2,
    "norm and feed-forward": 2, "head": 1, "optimizer": 1, "whole": 1,
}  # fmt: skip
"""What is timed, and how often a model of two blocks has it."""


def pose(case: Case, switch: str, backend: str) -> dict[str, Any]:
    """The entrants, by the names of :data:`TIMES`."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks import models
    from benchmarks.timing import Entrant
    from surnn_jax.layers import Recurrent, fused
    from surnn_jax.scan import sequence, switching

    kind = "event" if case.schedule == "event" else "neuron"
    posed = models.pose(case, [case.asked], [switch], backend, [kind])
    whole = next(entrant for name, entrant in posed.items() if name != "GRU")
    unit = models.switch_of(case, kind, switch, case.asked)
    keys = iter(jax.random.split(jax.random.key(case.seed), 9))
    hidden = jax.random.normal(next(keys), (case.batch, case.steps, case.features))
    x = jax.random.normal(next(keys), (case.batch, case.steps, case.inputs))

    def entrant(call: Callable, *arguments: Any) -> Any:
        compiled = jax.jit(call)
        return Entrant(backend, lambda: compiled(*arguments), whole.facts)

    def both(function: Callable, *arguments: Any) -> Any:
        """Of the outputs, and the gradients by all arguments, what both directions compute."""
        owed = jax.random.normal(jax.random.key(1), jax.eval_shape(function, *arguments).shape)

        def call(owed, *arguments):
            out, back = jax.vjp(function, *arguments)
            return out, back(owed)

        return entrant(call, owed, *arguments)

    def of(module: nn.Module, inputs: Any) -> tuple[Callable, Any]:
        params = jax.jit(module.init)(next(keys), inputs)["params"]
        return lambda params, inputs: module.apply({"params": params}, inputs), params

    dense, encoder = of(nn.Dense(case.features), x)
    norm, scale = of(fused.LayerNorm(), hidden)
    layer, weights = of(Recurrent("gru", case.features, unit, backend=backend), hidden)
    classify, head = of(nn.Dense(models.CLASSES), hidden[:, 0])
    params = whole.call()[1]
    labels = jnp.zeros(case.batch, jnp.int32)

    def loss(head, y):
        scores = classify(head, y.mean(1))
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    def table(own, y):
        made = Recurrent("gru", case.features, unit).unit
        sequences = sequence.prepare(jnp.swapaxes(y, 0, 1), None, None, None, False)
        clock = jnp.arange(case.steps, dtype=jnp.int32)
        seen = switching.switch_inputs(made, sequences, None, None, clock, None, case.features)
        return switching.logits(made, {"switch": own}, seen)

    def feed_forward(own, y):
        return fused.feed_forward_of_many(own, y, 2 * case.features)

    ffn = {
        "norm_ffn": scale,
        "ffn": {
            name: {"kernel": jax.random.normal(next(keys), shape) / 8}
            for name, shape in (
                ("gate", (case.features, 2 * case.features)),
                ("value", (case.features, 2 * case.features)),
                ("out", (2 * case.features, case.features)),
            )
        },
    }
    tx = models.make_optimizer()
    state = tx.init(params)

    def update(slopes, state, params):
        updates, state = tx.update(slopes, state, params)
        return optax.apply_updates(params, updates), state

    return {
        "input": both(lambda own: dense(own, x), encoder),
        "norm": both(norm, scale, hidden),
        "table, forward": entrant(table, weights["switch"], hidden),
        "table": both(table, weights["switch"], hidden),
        "layer, forward": entrant(layer, weights, hidden),
        "layer": both(layer, weights, hidden),
        "norm and feed-forward": both(feed_forward, ffn, hidden),
        "head": entrant(jax.value_and_grad(loss, (0, 1)), head, hidden),
        "optimizer": entrant(update, params, state, params),
        "whole": dataclasses.replace(whole, against=()),
    }


def shares(lines: list[Record]) -> list[Record]:
    """Records of :data:`TIMES` as those of the parts, which add up to ``whole``."""
    import numpy as np

    by_name = dict(zip(TIMES, lines, strict=True))
    took = {name: TIMES[name] * line["milliseconds"] for name, line in by_name.items()}
    layer, forward = took["layer"], took["layer, forward"]
    table, first = took["table"], took["table, forward"]
    whole = took["whole"]
    parts = {
        "input": took["input"],
        "norm": took["norm"],
        "table": table,
        "scan, forward": forward - first,
        "scan, backward": layer - forward - (table - first),
        "norm and feed-forward": took["norm and feed-forward"],
        "head": took["head"],
        "optimizer": took["optimizer"],
    }
    parts["rest"] = whole - float(np.sum(list(parts.values())))
    parts["whole"] = whole
    like = {k: v for k, v in by_name["whole"].items() if k not in ("spread", "speedup")}
    return [
        {**like, "part": name, "milliseconds": ms, "of_step": ms / whole}
        for name, ms in parts.items()
    ]


def main() -> None:
    """Runs the races that the flags ask for."""
    (switch,) = options.names("switches")
    (backend,) = options.names("backends")

    def measured(case, progress):
        race = options.race("parts", lambda case: pose(case, switch, backend))
        return shares(race(case, progress))

    options.run_all(options.cases(options.names("schedules")), measured)


if __name__ == "__main__":
    options.define(
        rounds=9,
        features="64",
        batch="32",
        steps="1024",
        inputs="1",
        rates="0.1",
        schedules="neuron,event",
        switches="learned",
        backends="native",
    )
    flags.adopt_module_key_flags(options)
    cli.run(main)
