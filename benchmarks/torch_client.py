"""`torch.nn.GRU` in a process of its own, as seen from here. The other side is `torch_gru`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import baselines
from benchmarks.problem import Problem

_GATES = "rzn"


class TorchGRU:
    """A context: the process starts with it and ends with it.

    Args:
        problem: what both sides compute; a GRU without a switch.
        threads: of PyTorch.
    """

    def __init__(self, problem: Problem, threads: int):
        self._problem, self._threads = problem, threads

    def __enter__(self) -> "TorchGRU":
        self._folder = tempfile.TemporaryDirectory()
        given, self._found = (Path(self._folder.name, n) for n in ("given.npz", "found.npz"))
        np.savez(given, **_stacked(self._problem))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.torch_gru", given, self._found, str(self._threads)],
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
        """Loss and gradients of the last step, by Flax's names, as the other baseline's."""
        self._say("answer")
        with np.load(self._found) as found:
            names = ("input", "recurrent", "input_bias", "recurrent_bias")
            w, u, b, c = (np.split(found[name], 3) for name in names)
            cell = {
                "input": {k: w[i].T for i, k in enumerate(_GATES)},
                "recurrent": {k: u[i].T for i, k in enumerate(_GATES)},
                "vector": {**{f"b_{k}": b[i] for i, k in enumerate(_GATES)}, "c_n": c[2]},
            }
            return found["loss"], (baselines.for_flax(cell), found["x"])

    def _say(self, word: str) -> None:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        self._listen()

    def _listen(self) -> None:
        if self._process.stdout.readline() != "done\n":
            raise ValueError("the process of torch.nn.GRU died; what it said stands above")


def _stacked(problem: Problem) -> dict[str, np.ndarray]:
    """Parameters as PyTorch stacks them: r, z, n; a second bias of which only n's is ours."""
    cell = problem.params["cell"]
    vector = cell["vector"]
    none = np.zeros_like(vector["c_n"])
    return {
        "input": np.concatenate([cell["input"][k].T for k in _GATES]),
        "recurrent": np.concatenate([cell["recurrent"][k].T for k in _GATES]),
        "input_bias": np.concatenate([vector[f"b_{k}"] for k in _GATES]),
        "recurrent_bias": np.concatenate([none, none, vector["c_n"]]),
        "x": np.asarray(problem.x),
        "target": np.asarray(problem.target),
    }
