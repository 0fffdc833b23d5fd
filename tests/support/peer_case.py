"""One of two processes that train the net of :mod:`train_case` together, to be told or killed.

``python tests/support/peer_case.py WORKDIR PORT NUMBER [FAULT STEP]``: as the batch of step STEP is
asked for, ``term`` sends SIGTERM to this very process, ``kill`` SIGKILL.
"""

import os
import signal
import sys

import jax

jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_numpy_dtype_promotion", "strict")

from surnn_jax import train  # noqa: E402

FAULTS = {"term": signal.SIGTERM, "kill": signal.SIGKILL}


def main(workdir, port, number, fault="", when="0"):
    """Trains, and prints the digest of what it comes to."""
    train.initialize_distributed(f"127.0.0.1:{port},{number},2")
    from train_case import batch, digest, evaluation, fit

    wanted = set()

    def part(whole, rows):
        wanted.add((rows.start, rows.stop))
        # Of the rows of the other process nothing is known here.
        return jax.tree.map(lambda leaf: leaf[rows], whole)

    def asked(step, rows=slice(None)):
        if fault and step == int(when):
            os.kill(os.getpid(), FAULTS[fault])
        return part(batch(step), rows)

    def scored(rows):
        return [part(whole, rows) for whole in evaluation()]

    # Saved about every step, but at the same steps by both.
    done = fit(
        workdir,
        mesh=train.make_mesh("data:2"),
        batches=asked,
        evaluation=scored,
        save_seconds=0.05,
    )
    here = 2 * int(number)
    # The whole batch once, for its shapes.
    assert wanted == {(None, None), (here, here + 2)}, wanted
    print(digest((done.params, done.last_params)), done.best_epoch, done.best_value)


if __name__ == "__main__":
    main(*sys.argv[1:])
