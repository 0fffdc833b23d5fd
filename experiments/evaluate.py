"""Scores a checkpoint again and compares with its record.

    python -m experiments.evaluate --checkpoint=runs/music/jsb-gru-0 [--data_dir=FOLDER]

With ``--show=FOLDER`` it also leaves there the pictures and sounds that a run makes of its best
epoch: what a search found can be looked at and listened to, too.

Exit code 0 if every figure agrees with ``result.json`` to a relative 1e-5, or nats to an absolute
one (on the machine that wrote it they agree to the last bit), 1 if one does not, 2 for bad input.
"""

import math
import sys
from pathlib import Path

from absl import flags

from data import cli

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The workdir of a finished run.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the originals; else SURNN_DATA.")
_SHOW = flags.DEFINE_string("show", None, "Folder for pictures and sounds of it; made if missing.")

TOLERANCE = 1e-5
"""Relative; other machines add in other orders."""


def main() -> None:
    """Prints a line a figure: recorded, again, and whether they agree."""
    if _CHECKPOINT.value is None:
        raise ValueError("--checkpoint is missing: name the workdir of a finished run")
    shown = None if _SHOW.value is None else Path(_SHOW.value)
    if shown is not None:  # Before all is scored, which can take minutes.
        shown.mkdir(parents=True, exist_ok=True)
    from experiments.tasks import registry

    record, run, params = registry.restore(Path(_CHECKPOINT.value), _DATA_DIR.value)
    again = run.metrics(params)
    agree = True
    for name, value in record.metrics.items():
        # Where nats are zero is an accident of the units: near it no relative error is small.
        least = TOLERANCE if name.endswith("nll") else 0.0
        same = math.isclose(value, again[name], rel_tol=TOLERANCE, abs_tol=least)
        verdict = "identical" if value == again[name] else "agrees" if same else "DIFFERS"
        print(f"{name:<20}recorded {value:.6f}  again {again[name]:.6f}  {verdict}")
        agree = agree and same
    if shown is not None:
        run.show(record, params, shown)
        print(f"pictures and sounds: {shown}")
    if not agree:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
