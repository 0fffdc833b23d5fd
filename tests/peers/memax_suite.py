"""memax's own test of resets, run on our layers.

``make test-peers MEMAX=FOLDER``, or ``python tests/peers/memax_suite.py FOLDER``: the folder is a
checkout of memax. Its test is loaded as it is; the models that it asks memax for are ours. It
compares one row of 2,048 steps, in which a sequence begins every 32 steps, with the same steps cut
into 32 rows. The exit status is the number of failures.
"""

import importlib.util
import sys
import types
from pathlib import Path
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp

from surnn_jax import switches
from surnn_jax.layers import Backbone, Options, mixers

TEST = "tests/test_reset_linen.py"
TOLD_BY = "memax.linen.train_utils"
"""The module of memax whose functions the test calls."""


class Model(nn.Module):
    """A stack of two layers with memax's calls, for one sequence at a time.

    Attributes:
        kind: of the layers.
        features: their width.
        output: numbers a step.
        options: of the layers.
    """

    kind: str
    features: int
    output: int
    options: Options

    def setup(self):
        self.backbone = Backbone((self.kind,) * 2, self.features, options=self.options)
        self.head = nn.Dense(self.output)

    def zero_carry(self):
        """Nothing: to initialise the parameters no carry is needed."""

    def initialize_carry(self):
        """The carry from which a sequence begins."""
        return self.backbone.initial_carry((1,))

    def __call__(self, carry, inputs):
        """``(x [T, D], start [T])`` to the carry and ``[T, output]``."""
        x, start = inputs
        encoded = self.backbone(x[None], carry=carry, resets=start[None])
        return encoded.carry, self.head(encoded.outputs)[0]


def models(hidden: int, output: int, num_layers: int) -> dict[str, Model]:
    """Our layers, three of the selective ones; memax's function of this name returns its own."""
    assert num_layers == 2
    found = {}
    for kind in mixers.names():
        if not mixers.is_selective(kind):
            found[kind] = Model(kind, hidden, output, Options(num_heads=2, window=64))
    for cell in ("gru", "lstm", "min_gru"):
        for name in ("fourier", "event"):
            options = Options(switches.get(name))
            found[f"su{cell}, {name}"] = Model(f"su{cell}", hidden, output, options)
    return found


def add_batch_dim(carry, batch_size):
    """The carry `batch_size` times, along a new first axis."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], batch_size, axis=0), carry)


def main(folder: Path) -> int:
    """Runs the test on every model; returns how many failed.

    Raises:
        FileNotFoundError: the folder has no such test.
    """
    path = folder / TEST
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; name a checkout of memax")
    ours = types.SimpleNamespace(
        get_residual_memory_models=models, add_batch_dim=add_batch_dim, __name__=TOLD_BY
    )
    # It imports equinox as well, and uses nothing of it.
    names = {"equinox": types.ModuleType("equinox"), TOLD_BY: ours}
    for parent in ("memax", "memax.linen"):
        names[parent] = types.ModuleType(parent)
    with mock.patch.dict(sys.modules, names):
        spec = importlib.util.spec_from_file_location("memax_test_reset", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    failed = 0
    tried = models(8, 10, 2)
    for name, model in tried.items():
        try:
            module.test_reset(name, model)
        except (AssertionError, ValueError, TypeError) as error:
            failed += 1
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}")
        jax.clear_caches()
    print(f"{len(tried)} layers, {len(tried) - failed} pass, {failed} fail")
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
