"""Calls exports where neither this library nor Flax can be imported, and keeps what they say.

    python -I tests/support/export_loader.py FOLDER

Every folder in FOLDER holds ``sequence.jax``, maybe ``step.jax`` and ``begin.jax``, and inputs
``N.npz`` with the arguments ``0``, ``1``, … of a sequence. Results go to ``N.out.npz``:
``sequence_I`` and ``step_I``, the leaves of what was returned.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from jax import export

for hidden in ("surnn_jax", "flax", "experiments"):
    sys.modules[hidden] = None  # whoever imports it now gets a ModuleNotFoundError


def load(path):
    return jax.jit(export.deserialize(bytearray(path.read_bytes())).call)


def streamed(step, carry, x):
    outputs = []
    for t in range(x.shape[1]):
        carry, y = step(carry, x[:, t])
        outputs.append(y)
    return jax.tree.map(lambda *ys: np.stack(ys, axis=1), *outputs)


def main(home):
    try:
        import surnn_jax  # noqa: F401
    except ModuleNotFoundError:
        print("surnn_jax cannot be imported")
    for folder in sorted(path for path in home.iterdir() if path.is_dir()):
        sequence = load(folder / "sequence.jax")
        streams = (folder / "step.jax").exists()
        step, begin = (load(folder / f"{n}.jax") if streams else None for n in ("step", "begin"))
        for path in sorted(folder.glob("?.npz")):
            given = [array for _, array in sorted(np.load(path).items())]
            x, out = given[0], {}
            if folder.name == "text":  # in two windows, the second from where the first ended
                cut = x.shape[1] // 2
                carry, first = sequence(begin(x[:, 0]), *(a[:, :cut] for a in given))
                _, second = sequence(carry, *(a[:, cut:] for a in given))
                out["sequence"] = np.concatenate([first, second], axis=1)
            else:
                out["sequence"] = sequence(*given)
            if streams:
                out["step"] = streamed(step, begin(x[:, 0]), x)
            arrays = {
                f"{name}_{i}": leaf
                for name, tree in out.items()
                for i, leaf in enumerate(jax.tree.leaves(tree))
            }
            np.savez(path.with_suffix(".out.npz"), **arrays)


main(Path(sys.argv[1]))
