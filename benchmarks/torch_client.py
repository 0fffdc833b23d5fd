"""PyTorch's layers in a process of their own, as seen from here. The other side: `torch_layer`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.problem import Problem

_GATES = {"gru": "rzn", "lstm": "ifgo"}


class Torch:
    """A context: the process starts with it and ends with it.

    Args:
        problem: what both sides compute; a GRU or an LSTM without a switch.
        device: ``cpu``, or ``cuda`` for cuDNN.
        threads: of PyTorch.
    """

    def __init__(self, problem: Problem, device: str = "cpu", threads: int = 2):
        self._problem, self._device, self._threads = problem, device, threads
        self._gates = _GATES[problem.unit.cell.name]

    def __enter__(self) -> "Torch":
        self._folder = tempfile.TemporaryDirectory()
        given, self._found = (Path(self._folder.name, n) for n in ("given.npz", "found.npz"))
        np.savez(given, **_stacked(self._problem, self._gates))
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.torch_layer", given, self._found),
                *(self._problem.unit.cell.name.upper(), self._device, str(self._threads)),
            ],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._listen()
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def step(self) -> None:
        """One training step; returns when it is done."""
        self._say("step")

    def answer(self, _: None) -> Any:
        """Loss and gradients of the last step, by our names."""
        self._say("answer")
        with np.load(self._found) as found:
            names = ("input", "recurrent", "input_bias", "recurrent_bias")
            w, u, b, c = (np.split(found[name], len(self._gates)) for name in names)
            cell = {
                "input": {k: w[i].T for i, k in enumerate(self._gates)},
                "recurrent": {k: u[i].T for i, k in enumerate(self._gates)},
                "vector": {f"b_{k}": b[i] for i, k in enumerate(self._gates)},
            }
            if "n" in self._gates:
                cell["vector"]["c_n"] = c[self._gates.index("n")]
            return found["loss"], ({"cell": cell}, found["x"])

    def _say(self, word: str) -> None:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        self._listen()

    def _listen(self) -> None:
        if self._process.stdout.readline() != "done\n":
            raise ValueError("PyTorch's process died; what it said stands above")


def _stacked(problem: Problem, gates: str) -> dict[str, np.ndarray]:
    """Parameters as PyTorch stacks them; of its second bias only the GRU's n is ours."""
    cell = problem.params["cell"]
    vector = cell["vector"]
    return {
        "input": np.concatenate([cell["input"][k].T for k in gates]),
        "recurrent": np.concatenate([cell["recurrent"][k].T for k in gates]),
        "input_bias": np.concatenate([vector[f"b_{k}"] for k in gates]),
        "recurrent_bias": np.concatenate(
            [vector.get(f"c_{k}", np.zeros_like(vector[f"b_{k}"])) for k in gates]
        ),
        "x": np.asarray(problem.x),
        "target": np.asarray(problem.target),
    }
