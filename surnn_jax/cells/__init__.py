"""Cells: what one step computes. They know nothing of time, switches or Flax."""

from surnn_jax.cells.cell import Cell
from surnn_jax.cells.clockwork import CLOCKWORK, clockwork
from surnn_jax.cells.gru import GRU, GRU_BEFORE, GRU_CARRY, GRUCarry
from surnn_jax.cells.lstm import LSTM, LSTM_PEEPHOLE, LSTMCarry
from surnn_jax.cells.minimal import MIN_GRU, MIN_GRU_LOG, MIN_LSTM, MinimalCarry
from surnn_jax.cells.skip import SA_GRU, SKIP_GRU, SACarry, SkipCarry
from surnn_jax.cells.tanh import TANH, TanhCarry

CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in (
        *(TANH, GRU, GRU_BEFORE, LSTM, LSTM_PEEPHOLE, MIN_GRU, MIN_LSTM),
        *(GRU_CARRY, CLOCKWORK, SKIP_GRU, SA_GRU, MIN_GRU_LOG),
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
        ValueError: unknown cell 'grux'; one of: ...
    """
    if isinstance(cell, Cell):
        return cell
    if cell not in CELLS:
        raise ValueError(f"unknown cell {cell!r}; one of: {', '.join(CELLS)}")
    return CELLS[cell]


__all__ = [
    "CELLS",
    "CLOCKWORK",
    "GRU",
    "GRU_BEFORE",
    "GRU_CARRY",
    "LSTM",
    "LSTM_PEEPHOLE",
    "MIN_GRU",
    "MIN_GRU_LOG",
    "MIN_LSTM",
    "SA_GRU",
    "SKIP_GRU",
    "TANH",
    "Cell",
    "GRUCarry",
    "LSTMCarry",
    "MinimalCarry",
    "SACarry",
    "SkipCarry",
    "TanhCarry",
    "clockwork",
    "get",
]
