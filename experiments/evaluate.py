"""Scores the parameters of a finished run again and compares with its record.

    python -m experiments.evaluate --checkpoint=runs/music/jsb-gru-0 [--data_dir=FOLDER]

The folder holds checkpoints, as that of a run does, or ``params.npz``, as that of a winner of a
search does. If the own files of a run were moved, ``--data=PATH`` says where they are; files that
have changed are refused. With ``--show=FOLDER`` the pictures and sounds of the best epoch are
written there. With ``--beside=FOLDER``, a run of the same configuration but for its seed, it says
how far the switches of both open at the same steps, and adds it to ``inside.json`` in the folder of
``--show``.

Exit code 0 if every figure agrees with ``result.json`` to a relative 1e-5 (nats also to an absolute
1e-5), 1 if one does not, 2 for bad input. On the machine that wrote the record the figures agree to
the last bit.
"""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

from data import cli, columns

_CHECKPOINT = cli.define_path("checkpoint", None, "The workdir of a finished run.")
_DATA_DIR = cli.define_path("data_dir", None, "Folder of the originals; else SURNN_DATA.")
_DATA = cli.define_path("data", None, "Where the run's own files lie now, if they were moved.")
_SHOW = cli.define_path("show", None, "Folder for pictures and sounds of it; made if missing.")

_BESIDE = cli.define_path("beside", None, "A run of another seed: do both open alike?")

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

    run = registry.restore(Path(_CHECKPOINT.value), _DATA_DIR.value, _DATA.value)
    again, rate = scores(run.prepared, run.params)
    again["test_update_rate"] = rate
    recorded = {**run.record.metrics, "test_update_rate": run.record.update_rate}
    agree, rows = True, []
    for name, value in recorded.items():
        # A zero of nats depends on the units: near it no relative error is small.
        absolute = TOLERANCE if name.endswith("nll") else 0.0
        same = math.isclose(value, again[name], rel_tol=TOLERANCE, abs_tol=absolute)
        verdict = "identical" if value == again[name] else "agrees" if same else "DIFFERS"
        rows.append([name, f"recorded {value:.6f}", f"again {again[name]:.6f}", verdict])
        agree = agree and same
    print("\n".join(columns.lines(rows)))
    if shown is not None:
        run.prepared.draw(run.record, run.params, shown)
        print(f"pictures and sounds: {shown}")
    if _BESIDE.value is not None:
        compare(run, Path(_BESIDE.value), shown, _DATA_DIR.value)
    if not agree:
        sys.exit(1)


def compare(run: Any, beside: Path, shown: Path | None, data_dir: str | None) -> None:
    """Prints how far the switches of two runs agree, and adds it to ``inside.json``.

    Raises:
        ValueError: `beside` is a run of another configuration, or of an experiment that does not
            compare switches.
    """
    from experiments.tasks import registry
    from experiments.tasks.sequence.figures import FILE
    from surnn_jax.train.files import write_json

    other = registry.restore(beside, data_dir, _DATA.value)
    if run.prepared.agree is None:
        raise ValueError(f"beside: {run.record.experiment} does not compare switches")
    if dataclasses.replace(other.config, seed=run.config.seed) != run.config:
        raise ValueError(f"{beside} differs in more than its seed")
    found = run.prepared.agree(run.params, other.params)
    for label, value in found.items():
        print(f"{label:<20}  agrees with seed {other.config.seed}: {value:.3f}")
    if shown is not None:
        inside = json.loads((shown / FILE).read_text())
        for label, value in found.items():
            if not math.isnan(value):
                inside[label]["agreement"] = value
        write_json(shown / FILE, inside)


if __name__ == "__main__":
    cli.run(main)
