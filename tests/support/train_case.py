"""What the trainer's tests train: a small recurrent net with noise, on made-up sequences.

Run as a program it trains in a process of its own, to be killed:
``python tests/support/train_case.py WORKDIR [FAULT WHEN DELAY]``.
"""

import hashlib
import itertools
import os
import signal
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np

from surnn_jax import train
from surnn_jax.train import checkpoint

INPUTS, FEATURES, TIME = 3, 8, 6
STEPS = 6
CONFIG = {"cell": "tanh", "features": FEATURES, "optimiser": {"rate": 0.01}}
OPTIMIZER = train.make_optimizer(
    train.OptimizerConfig(
        learning_rate=0.01, schedule="cosine", total_steps=24, clip=1.0, switch_scale=0.5
    )
)


def batch(step):
    """Always of one shape, but never of the same weight."""
    random = np.random.default_rng((7, step))
    x = random.normal(size=(4, TIME, INPUTS)).astype(np.float32)
    return {
        "x": x,
        "y": np.tanh(x.sum((1, 2))).astype(np.float32),
        "weight": (random.random(4) < 0.7).astype(np.float32) + 0.25,
    }


def evaluation():
    return [batch(10_000 + i) for i in range(3)]


def init(key, example):
    inward, recurrent, outward = jax.random.split(key, 3)
    width = example["x"].shape[-1]
    return {
        "cell": {
            "w": jax.random.normal(inward, (width, FEATURES)) * 0.3,
            "u": jax.random.normal(recurrent, (FEATURES, FEATURES)) * 0.3,
            "switch": {"b": jnp.zeros(FEATURES)},
        },
        "out": {"w": jax.random.normal(outward, (FEATURES,)) * 0.3},
    }


def errors(params, example, noise):
    cell = params["cell"]
    gate = jax.nn.sigmoid(cell["switch"]["b"])[None, :]

    def step(h, x):
        return h + gate * (jnp.tanh(x @ cell["w"] + h @ cell["u"]) - h), None

    start = noise * jnp.ones((example["x"].shape[0], FEATURES))
    last, _ = jax.lax.scan(step, start, jnp.moveaxis(example["x"], 1, 0))
    total = jnp.sum(example["weight"] * (last @ params["out"]["w"] - example["y"]) ** 2)
    return total, jnp.sum(example["weight"]), jnp.mean(gate)


def loss(params, example, key):
    total, weight, rate = errors(params, example, 0.1 * jax.random.normal(key))
    return total / weight, {"mse": (total, weight), "update_rate": (rate, jnp.ones(()))}


def evaluate(params, example):
    total, weight, _ = errors(params, example, 0.0)
    return {"mse": (total, weight)}


TASK = train.Task(init, loss, evaluate)


def fit(workdir, **changes):
    """A run of four epochs of six steps, with `changes` to the arguments or the settings."""
    settings = {"max_epochs": 4, "monitor": "mse", "save_seconds": 0.0}
    for name in train.Settings.__dataclass_fields__:
        if name in changes:
            settings[name] = changes.pop(name)
    arguments = {
        "task": TASK,
        "optimizer": OPTIMIZER,
        "batches": batch,
        "steps_per_epoch": STEPS,
        "evaluation": evaluation,
        "settings": train.Settings(**settings),
        "config": CONFIG,
        "workdir": workdir,
    }
    return train.fit(**{**arguments, **changes})


def digest(tree):
    """SHA-256 of every bit of a tree of arrays."""
    whole = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        whole.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def main(workdir, fault="", when="0", delay="0"):
    """Trains; `fault` does this to this very process.

    ``start``, ``step``: a kill `delay` seconds after the start, or after the batch of step `when`
    was asked for; ``saving``: so long after the beginning of the save number `when`; ``unsealed``:
    at the end of that save, before its manifest. ``term``: SIGTERM as the batch of step `when` is
    asked for, or in ``compile``, ``step``, ``eval``, ``saving``. ``slow``: a tenth of a second a
    step. ``clock``: the time of day goes backwards.
    """
    seal, save, saves = checkpoint.seal, checkpoint.Writer.save, []

    def terminate(where):
        if (fault, when) == ("term", where):
            os.kill(os.getpid(), signal.SIGTERM)

    def sealing(folder):
        if fault == "unsealed" and len(saves) == int(when):
            _die()
        seal(folder)

    def saving(*args):
        saves.append(args)
        if fault == "saving" and len(saves) == int(when):
            threading.Timer(float(delay), _die).start()
        if len(saves) == 9:
            terminate("saving")
        save(*args)

    def asked(step):
        if fault == "step" and step == int(when):
            threading.Timer(float(delay), _die).start()
        if fault == "slow":
            time.sleep(0.1)
        terminate(str(step))
        if step == 9:
            terminate("step")
        return batch(step)

    def scored():
        for number, example in enumerate(evaluation()):
            if number == 1:
                terminate("eval")
            yield example

    def traced(*args):
        terminate("compile")
        return loss(*args)

    checkpoint.seal, checkpoint.Writer.save = sealing, saving
    if fault == "start":
        threading.Timer(float(delay), _die).start()
    if fault == "clock":
        ticks = itertools.count()
        time.time = lambda: 2e9 - 3600.0 * next(ticks)
    # What a signal saves must not have been saved before.
    seldom = {"save_seconds": 1e9} if fault == "term" and when != "saving" else {}
    task = train.Task(init, traced, evaluate)
    done = fit(workdir, batches=asked, evaluation=scored, task=task, **seldom)
    print(digest((done.params, done.last_params)), done.best_epoch, done.best_value)


if __name__ == "__main__":
    main(*sys.argv[1:])
