"""Scores the parameters of a finished run again and compares with its record.

    python -m experiments.evaluate --checkpoint=runs/music/jsb-gru-0 [--data_dir=FOLDER]

The folder holds checkpoints, as that of a run does, or ``params.npz``, as that of a winner of a
search does. With ``--show=FOLDER`` the pictures and sounds of the best epoch are written there.

Exit code 0 if every figure agrees with ``result.json`` to a relative 1e-5 (nats also to an absolute
1e-5), 1 if one does not, 2 for bad input. On the machine that wrote the record the figures agree to
the last bit.
"""

import math
import sys
from pathlib import Path

from data import cli

_CHECKPOINT = cli.define_path("checkpoint", None, "The workdir of a finished run.")
_DATA_DIR = cli.define_path("data_dir", None, "Folder of the originals; else SURNN_DATA.")
_SHOW = cli.define_path("show", None, "Folder for pictures and sounds of it; made if missing.")

TOLERANCE = 1e-5
"""Other machines add in another order."""


def main() -> None:
    """Prints a line for each figure: recorded, again, and whether they agree."""
    if _CHECKPOINT.value is None:
        raise ValueError("--checkpoint is missing: name the workdir of a finished run")
    shown = None if _SHOW.value is None else Path(_SHOW.value)
    if shown is not None:  # Before scoring, which can take minutes.
        shown.mkdir(parents=True, exist_ok=True)
    from experiments.runner.experiment import scores
    from experiments.tasks import registry

    run = registry.restore(Path(_CHECKPOINT.value), _DATA_DIR.value)
    again, _ = scores(run.prepared, run.params)
    agree = True
    for name, value in run.record.metrics.items():
        # A zero of nats depends on the units: near it no relative error is small.
        absolute = TOLERANCE if name.endswith("nll") else 0.0
        same = math.isclose(value, again[name], rel_tol=TOLERANCE, abs_tol=absolute)
        verdict = "identical" if value == again[name] else "agrees" if same else "DIFFERS"
        print(f"{name:<20}recorded {value:.6f}  again {again[name]:.6f}  {verdict}")
        agree = agree and same
    if shown is not None:
        run.prepared.draw(run.record, run.params, shown)
        print(f"pictures and sounds: {shown}")
    if not agree:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
