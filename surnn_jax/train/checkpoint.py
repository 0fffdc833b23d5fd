"""Checkpoints that are whole or refused: Orbax writes them, SHA-256 sums seal them.

``checkpoints/<step>/`` holds Orbax's items ``state`` (`TrainState`), ``best`` (the best
parameters) and ``record`` (JSON: configuration, `Progress`, and the marks of the run's logs).
``MANIFEST.sha256``, in the format of ``sha256sum``, is written last: a folder without it is the
remainder of a killed save, not a checkpoint. Without these sums Orbax restores a flipped bit as a
wrong number and takes an empty folder for the latest step.
"""

import hashlib
import itertools
import logging
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from surnn_jax.train.distributed import barrier, is_first
from surnn_jax.train.files import write_text
from surnn_jax.typing import Params

MANIFEST = "MANIFEST.sha256"
_FORMAT = 2
_FORMATS = (1, 2)
"""Formats that can be read. In format 1 ``progress`` held the records of all epochs."""
_KEPT = 2


class CorruptCheckpointError(ValueError):
    """A file of a checkpoint, or of the logs that go with it, is not what was saved.

    Examples:
        >>> from surnn_jax import train
        >>> issubclass(train.CorruptCheckpointError, ValueError)
        True
    """


def seal(folder: Path) -> None:
    """Writes the manifest of a step folder, which makes it a checkpoint."""
    body = "".join(f"{_sum(folder / name)}  {name}\n" for name in _files(folder))
    write_text(folder / MANIFEST, f"# {hashlib.sha256(body.encode()).hexdigest()}\n{body}")


def verify(folder: Path) -> None:
    """Reads every file of a sealed step folder.

    Raises:
        CorruptCheckpointError: naming the first file that is missing, changed or unknown.
    """
    head, _, body = (folder / MANIFEST).read_bytes().partition(b"\n")
    if head != b"# " + hashlib.sha256(body).hexdigest().encode():
        raise CorruptCheckpointError(
            f"{folder / MANIFEST} is damaged: its first line is not its own SHA-256"
        )
    try:
        lines = [line.split("  ", 1) for line in body.decode().split("\n") if line]
        sums = {name: digest for digest, name in lines}
    except ValueError as error:
        raise CorruptCheckpointError(
            f"{folder / MANIFEST} is no list of sums, though its own is right"
        ) from error
    present = set(_files(folder))
    for name in sorted(sums.keys() | present):
        if name not in present:
            raise CorruptCheckpointError(f"{folder / name} is missing")
        if name not in sums:
            raise CorruptCheckpointError(f"{folder / name} is not in {MANIFEST}")
        if _sum(folder / name) != sums[name]:
            raise CorruptCheckpointError(
                f"{folder / name} is damaged: its SHA-256 is not that of {MANIFEST}"
            )


def find(workdir: str | os.PathLike, restore: str = "latest") -> Path | None:
    """The step folder to read, verified; None if nothing was ever saved.

    A folder without its seal counts as a save that was cut off, however the seal was lost. It is
    passed over for the one before, from which a run reaches the same bits.

    Args:
        workdir: the run's folder.
        restore: ``latest`` raises an error if the latest checkpoint is damaged; ``latest_good``
            skips it with a warning and takes the newest good one.

    Raises:
        CorruptCheckpointError: a damaged checkpoint, see `restore`; or no good one is left.
    """
    home = Path(workdir).absolute() / "checkpoints"  # Orbax wants absolute paths.
    damage = None
    for _, folder in reversed(_steps(home, sealed=True)):
        try:
            verify(folder)
        except CorruptCheckpointError as error:
            if restore == "latest":
                raise CorruptCheckpointError(
                    f"{error} (restore=latest_good skips a damaged one)"
                ) from None
            damage = error
            logging.getLogger(__name__).warning("skipped a checkpoint: %s", error)
        else:
            return folder
    for step, folder in _steps(home, sealed=False):
        # A run seals step 0 before all else, so no kill can leave a later one alone.
        if step > 0 and _files(folder):
            damage = damage or CorruptCheckpointError(f"{folder / MANIFEST} is missing")
    if damage is not None:
        raise CorruptCheckpointError(f"{damage}; no good checkpoint is left in {home}")
    return None


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a verified step folder.

    It has ``config``, ``settings``, ``progress`` (a `Progress` as a dict), ``logs`` (the marks of
    the run's logs) and ``arrays``: dtype and shape of every array.

    Raises:
        ValueError: written in the format of another version.
    """
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        record = reader.restore(folder / "record")
    if record.get("format") not in _FORMATS:
        known = " and ".join(map(str, _FORMATS))
        raise ValueError(f"{folder}: format {record.get('format')}, this version reads {known}")
    return record


def read(folder: Path, item: str, like: Any) -> Any:
    """The arrays of a verified step folder.

    Args:
        folder: as returned by `find`.
        item: ``best`` for the best parameters, ``state`` for the `TrainState`.
        like: a tree of arrays or `jax.ShapeDtypeStruct` of the right shapes; their shardings
            say where to put the arrays; without one an array goes to the first device.

    Raises:
        ValueError: the checkpoint holds other arrays; the first that differs is named.
    """
    stored, wanted = read_record(folder)["arrays"][item], shapes(like)
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise ValueError(
                f"{folder / item} holds {name}: {stored.get(name, 'nothing')}, "
                f"but this model has {wanted.get(name, 'nothing')}"
            )
    with ocp.StandardCheckpointer() as reader:
        return reader.restore(folder / item, _with_shardings(like))


class Writer:
    """Saves checkpoints of one run in the background and keeps the last two.

    On creation it removes the remains of killed saves and renames damaged checkpoints of later
    steps to ``<step>.damaged``.

    Args:
        workdir: the run's folder, locked by this process.
        restored_step: the step that was restored, None for a new run.
    """

    def __init__(self, workdir: Path, restored_step: int | None):
        # Orbax wants an absolute path.
        self.folder = workdir.absolute() / "checkpoints"
        if is_first():
            self._tidy(restored_step)
        barrier("tidy")
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=_KEPT, enable_async_checkpointing=True, cleanup_tmp_directories=True
            ),
        )
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._pending: Future | None = None

    def _tidy(self, restored_step: int | None) -> None:
        for _, folder in _steps(self.folder, sealed=False):
            shutil.rmtree(folder)
        for step, folder in _steps(self.folder, sealed=True):
            if restored_step is None or step > restored_step:
                names = (f"{step}.damaged{n or ''}" for n in itertools.count())
                folder.rename(next(p for p in map(self.folder.joinpath, names) if not p.exists()))

    def save(self, step: int, state: Any, best: Params, record: dict[str, Any]) -> None:
        """Starts saving one step, in place of an earlier checkpoint of that step.

        An error of the previous save is raised here, or by :meth:`wait`.

        Args:
            step: its number.
            state: a tree of arrays, such as a `TrainState`; may be donated while it is written.
            best: the best parameters; may be donated too.
            record: JSON-like.
        """
        self.wait()
        if step in self._manager.all_steps():
            self._manager.delete(step)
        arrays = _shapes_of(state=state, best=best)
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                best=ocp.args.StandardSave(best),
                record=ocp.args.JsonSave({"format": _FORMAT, **record, "arrays": arrays}),
            ),
        )
        if not saved:
            raise RuntimeError(f"Orbax did not save step {step} in {self.folder}")
        self._pending = self._pool.submit(self._seal, self.folder / str(step))

    def _seal(self, folder: Path) -> None:
        self._manager.wait_until_finished()
        if is_first():
            seal(folder)

    def wait(self) -> None:
        """Waits until the last save is sealed, and raises its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits for the last save, see :meth:`wait`, then ends all threads."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()
            self._manager.close()


def _steps(folder: Path, sealed: bool) -> list[tuple[int, Path]]:
    """(step, folder) of all checkpoints with or without a seal, ascending."""
    return sorted(
        (int(path.name), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.name.isdecimal() and path.is_dir() and (path / MANIFEST).is_file() == sealed
    )


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.name != MANIFEST)


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shapes_of(**items: Any) -> dict[str, dict[str, str]]:
    return {name: shapes(tree) for name, tree in items.items()}


def shapes(tree: Any) -> dict[str, str]:
    """Name of a leaf -> its dtype and shape, such as ``params/w`` -> ``float32[2, 3]``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


def _with_shardings(tree: Any) -> Any:
    """Shapes with a sharding each: without one Orbax asks for the devices that saved them."""
    default = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def with_sharding(leaf):
        sharding = getattr(leaf, "sharding", None) or default
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(with_sharding, tree)
