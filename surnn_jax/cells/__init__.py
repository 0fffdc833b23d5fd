"""Cells: what one step computes. They know nothing of time, switches or Flax."""

from surnn_jax.cells.cell import Cell
from surnn_jax.cells.clockwork_cell import CLOCKWORK, clockwork
from surnn_jax.cells.gru import GRU, GRU_BEFORE, GRU_CARRY, MGU, GRUCarry
from surnn_jax.cells.independent import IND_RNN, IndCarry
from surnn_jax.cells.layer_norm import GRU_LAYER_NORM, LSTM_LAYER_NORM
from surnn_jax.cells.lstm import LSTM, LSTM_PEEPHOLE, LSTMCarry
from surnn_jax.cells.minimal import MIN_GRU, MIN_GRU_LOG, MIN_LSTM, MinimalCarry
from surnn_jax.cells.rg_lru import RG_LRU, RGLRUCarry
from surnn_jax.cells.skip import SA_GRU, SKIP_GRU, SACarry, SkipCarry
from surnn_jax.cells.slstm import SLSTM, SLSTMCarry
from surnn_jax.cells.tanh import TANH, TanhCarry
from surnn_jax.cells.variants import variant
from surnn_jax.names import lookup

CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in (
        *(TANH, GRU, GRU_BEFORE, LSTM, LSTM_PEEPHOLE, MIN_GRU, MIN_LSTM),
        *(GRU_CARRY, CLOCKWORK, SKIP_GRU, SA_GRU, MIN_GRU_LOG),
        *(MGU, IND_RNN, RG_LRU, SLSTM, GRU_LAYER_NORM, LSTM_LAYER_NORM),
    )
}
"""Every cell by its name."""


def get(cell: str | Cell) -> Cell:
    """The cell of that name (a cell passes through).

    Raises:
        ValueError: if there is no such cell.

    Examples:
        >>> from surnn_jax import cells
        >>> cells.get("lstm") is cells.LSTM
        True
        >>> cells.get("grux")
        Traceback (most recent call last):
        ValueError: unknown cell 'grux'; did you mean 'gru'? One of: ...
    """
    return cell if isinstance(cell, Cell) else lookup("cell", cell, CELLS)


__all__ = [
    "CELLS",
    "CLOCKWORK",
    "GRU",
    "GRU_BEFORE",
    "GRU_CARRY",
    "GRU_LAYER_NORM",
    "IND_RNN",
    "LSTM",
    "LSTM_LAYER_NORM",
    "LSTM_PEEPHOLE",
    "MGU",
    "MIN_GRU",
    "MIN_GRU_LOG",
    "MIN_LSTM",
    "RG_LRU",
    "SA_GRU",
    "SKIP_GRU",
    "SLSTM",
    "TANH",
    "Cell",
    "GRUCarry",
    "IndCarry",
    "LSTMCarry",
    "MinimalCarry",
    "RGLRUCarry",
    "SACarry",
    "SLSTMCarry",
    "SkipCarry",
    "TanhCarry",
    "clockwork",
    "get",
    "variant",
]
