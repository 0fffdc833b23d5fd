"""``experiments.search`` and ``experiments.evaluate`` on a tiny data set that is made up.

    python tests/support/search_case.py search|evaluate FOLDER FLAGS...

FOLDER holds ``tiny.mat``, which stands in the place of the original of ``jsb``.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

import data_case
import jax
import numpy as np

from data.sets import music
from data.source import SPLITS
from experiments.tuning import protocols

WILD = (1e-3, 1e46)


def main(program, folder, *flags):
    random = np.random.default_rng(5)
    rolls = {
        # Of one padded length, which is compiled for once.
        split: [(random.random((random.integers(8, 13), 88)) < 0.05).astype(np.uint8)] * size
        for split, size in zip(SPLITS, (9, 3, 3), strict=True)
    }
    counts = {split: data_case.figures(sequences) for split, sequences in rolls.items()}
    if not os.path.exists(f"{folder}/tiny.mat"):
        data_case.write_mat(f"{folder}/tiny.mat", rolls)
    files = ("tiny.mat", "tiny.pickle")
    music.SOURCES = [music.rolls_source("jsb", files, "a tiny set", "none", "a test", counts)]
    # A space in which some draws are bound to diverge.
    chung = protocols.PROTOCOLS["chung"]._replace(drawn={"learning_rate": WILD})
    protocols.PROTOCOLS["chung"] = chung
    protocols.FIRST_HALVING["jsb"] = 1
    _kill_at(os.environ.get("DIE_AT", ""))
    sys.argv = [f"experiments.{program}", *flags, f"--data_dir={folder}"]
    try:
        runpy.run_module(f"experiments.{program}", run_name="__main__")
    finally:
        if count := os.environ.get("COUNT_PROGRAMS"):
            Path(count).write_text(str(len(jax.devices()[0].client.live_executables())))


def _kill_at(when):
    """Kills this very process in a population's second epoch, or within a line of the journal."""
    if not when:
        return
    from experiments.tuning import journal, run
    from surnn_jax.train import checkpoint

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    if when == "training":
        run._SAVE_SECONDS = 0.0
        save, saves = checkpoint.Writer.save, []

        def saving(*args):
            save(*args)
            saves.append(args)
            if len(saves) == 4:
                die()

        checkpoint.Writer.save = saving
    if when == "journal":
        write = journal._write

        def half(file, lines):
            write(file, lines[:1])
            if len(lines) > 1:
                file.write(b'{"dataset": "jsb", "unit": "tanh", "se')
                file.flush()
                die()

        journal._write = half


if __name__ == "__main__":
    main(*sys.argv[1:])
