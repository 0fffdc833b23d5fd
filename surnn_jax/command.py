"""The command ``surnn-jax``: the programs of a clone, from any folder.

``surnn-jax music --preset=chorales`` is ``python -m experiments.music --preset=chorales`` without
being in the clone. Programs outside `experiments` are named with their package:
``surnn-jax data.prepare jsb``.
"""

import importlib.util
import os
import runpy
import sys
from pathlib import Path

from surnn_jax.names import unknown

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> None:
    """Runs a program; arguments as on the command line, without the command itself."""
    given = sys.argv[1:] if arguments is None else arguments
    name, *rest = given or ["--help"]
    found = programs()
    if name in ("--help", "-h"):
        print(f"usage: surnn-jax PROGRAM [--help] [flags]\n\nprograms: {', '.join(found)}")
        return
    if not found:
        sys.exit(
            "error: the experiments are not part of the package; clone the repository and install "
            "it with: pip install -e ."
        )
    if name not in found:
        sys.exit(f"error: {unknown('program', name, found)}")
    # Also of the processes that the program starts.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    )
    sys.path.insert(0, str(ROOT))
    module = name if "." in name else f"experiments.{name}"
    sys.argv = [importlib.util.find_spec(module).origin, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def programs() -> list[str]:
    """What can be run: files that say so, beside the package; none without a clone."""
    found = []
    for package in ("experiments", "data", "benchmarks"):
        for path in sorted((ROOT / package).glob("*.py")):
            if '__name__ == "__main__"' in path.read_text("utf-8"):
                found.append(path.stem if package == "experiments" else f"{package}.{path.stem}")
    return found
