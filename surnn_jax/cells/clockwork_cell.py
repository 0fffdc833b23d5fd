"""The cell of Clockwork RNN: fast modules read slow ones, not the other way."""

import dataclasses

import jax.numpy as jnp

from surnn_jax.cells.cell import Cell
from surnn_jax.cells.tanh import TANH
from surnn_jax.typing import Params


@dataclasses.dataclass(frozen=True)
class _Triangle:
    """Recurrent kernels without what a slow module would read of a faster one."""

    modules: int

    def __call__(self, params: Params) -> Params:
        kernels = params["recurrent"]
        features = next(iter(kernels.values())).shape[-1]
        module = jnp.arange(features) * self.modules // features
        read = module[:, None] >= module[None, :]
        masked = {k: jnp.where(read, kernel, 0) for k, kernel in kernels.items()}
        return {**params, "recurrent": masked}


def clockwork(modules: int = 8) -> Cell:
    """The tanh cell of Clockwork RNN (Koutník et al. 2014, equation 2).

        h[m] = tanh(W[m] x[t] + Σ_{n >= m} U[m,n] h[n] + b[m])

    Neuron i belongs to module m = ⌊i M / H⌋ (fewer neurons than modules leave some empty). It
    becomes a Clockwork RNN with the switch :class:`surnn_jax.switches.Clockwork` of as many
    periods in rising order: a module reads those of equal or longer period. Without that switch
    it is a tanh cell with a block-triangular kernel. The blocks that are not read are masked,
    stored and counted as parameters, and get no gradient.

    Args:
        modules: M.

    Raises:
        ValueError: if `modules` is not positive.

    Examples:
        >>> from surnn_jax import cells, selective, switches
        >>> unit = selective(cells.clockwork(3), switches.clockwork(100, periods=(1, 2, 4)))
        >>> params = unit.init(jax.random.key(0), jnp.ones((5, 2, 3)), features=6)
        >>> kernel = unit.cell.expanded(params["cell"])["recurrent"]["h"]
        >>> kernel[0, -1].item()  # what the slowest module would read of the fastest
        0.0
    """
    if modules < 1:
        raise ValueError(f"clockwork: modules must be at least 1, got {modules}")
    return dataclasses.replace(TANH, name="clockwork", expand=_Triangle(modules))


CLOCKWORK = clockwork()
"""The cell of Clockwork RNN with eight modules, see :func:`clockwork`."""
