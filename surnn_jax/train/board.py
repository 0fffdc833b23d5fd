"""TensorBoard events of a run, beside its own files, for whoever watches many runs at once."""

from collections.abc import Mapping
from pathlib import Path

TENSORBOARD = "tensorboard"
"""Folder of the events; ``tensorboard --logdir`` takes it, or any folder above it."""


def check_installed() -> None:
    """Refuses to begin without the package that writes events.

    Raises:
        ModuleNotFoundError: naming it.
    """
    try:
        import tensorboardX  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "tensorboard: events are written by tensorboardX, which is missing; "
            "pip install 'surnn_jax[tensorboard]'"
        ) from None


class TensorBoardWriter:
    """Writes scalars.

    Args:
        workdir: the run's folder; the events go below it.
        wanted: whether to do anything at all.
        step: where the run begins or goes on; what an earlier process wrote of this step and later
            ones, TensorBoard no longer shows.
    """

    def __init__(self, workdir: Path, wanted: bool, step: int):
        self._writer = None
        if wanted:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(workdir / TENSORBOARD), purge_step=step, flush_secs=10)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Scalars by name, such as ``valid/nll``, after so many steps."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()
