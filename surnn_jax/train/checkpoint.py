"""Checkpoints that are whole or refused: Orbax writes them, SHA-256 sums seal them.

``checkpoints/<step>/`` holds Orbax's items ``state`` (`TrainState`), ``best`` (the best
parameters) and ``record`` (JSON: configuration and `Progress`). ``MANIFEST.sha256``, in the format
of ``sha256sum``, is written last: a folder without it is what a killed save left, and no
checkpoint. Orbax itself restores a flipped bit as a wrong number and takes an empty folder for
the latest step.
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
RESTORE = ("latest", "latest_good")
_FORMAT = 1
_KEPT = 2


class CorruptCheckpointError(ValueError):
    """A file of a checkpoint is not what was saved."""


def seal(folder: Path) -> None:
    """Writes the manifest of a step folder, which makes it a checkpoint."""
    body = "".join(f"{_sum(folder / name)}  {name}\n" for name in _files(folder))
    write_text(folder / MANIFEST, f"# {hashlib.sha256(body.encode()).hexdigest()}\n{body}")


def verify(folder: Path) -> None:
    """Reads every file of a sealed step folder.

    Raises:
        DamagedError: naming the first file that is missing, changed or unknown.
    """
    head, _, body = (folder / MANIFEST).read_bytes().partition(b"\n")
    if head != b"# " + hashlib.sha256(body).hexdigest().encode():
        raise CorruptCheckpointError(
            f"{folder / MANIFEST} is damaged: its first line is not its own SHA-256"
        )
    lines = (line.split("  ") for line in body.decode().split("\n") if line)
    sums = {name: digest for digest, name in lines}
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
    """The step folder to read, verified; None where nothing was ever saved.

    Args:
        workdir: the run's folder.
        restore: ``latest``: a damaged latest checkpoint is an error; ``latest_good``: it is
            skipped with a warning in favour of the newest good one.

    A folder that lacks its seal is a save that was cut off, whatever happened to the seal: it is
    passed over for the one before, from which a run comes to the same bits.

    Raises:
        DamagedError: by the rule above, or because no good one is left.
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

    ``config``, ``settings``, ``progress`` (a `Progress` as a dict) and ``arrays``: type and shape
    of every array.

    Raises:
        ValueError: written in a format of another version.
    """
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        record = reader.restore(folder / "record")
    if record.get("format") != _FORMAT:
        raise ValueError(f"{folder}: format {record.get('format')}, this version reads {_FORMAT}")
    return record


def read(folder: Path, item: str, like: Any) -> Any:
    """The arrays of a verified step folder.

    Args:
        folder: as returned by `find`.
        item: ``best`` for the best parameters, ``state`` for the `TrainState`.
        like: a tree of arrays or `jax.ShapeDtypeStruct` of the right shapes; their shardings
            say where to put the arrays, the first device where they have none.

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
        return reader.restore(folder / item, _placed(like))


class Writer:
    """Saves checkpoints of one run, in the background, and keeps the last two.

    Args:
        workdir: the run's folder, held by this process alone.
        after: the step that was restored, None for a fresh run. What killed saves left is
            removed; damaged checkpoints of later steps are renamed ``<step>.damaged``.
    """

    def __init__(self, workdir: Path, after: int | None):
        # Orbax wants an absolute path.
        self.folder = workdir.absolute() / "checkpoints"
        if is_first():
            self._tidy(after)
        barrier("tidy")
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=_KEPT, enable_async_checkpointing=True, cleanup_tmp_directories=True
            ),
        )
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._pending: Future | None = None

    def _tidy(self, after: int | None) -> None:
        for _, folder in _steps(self.folder, sealed=False):
            shutil.rmtree(folder)
        for step, folder in _steps(self.folder, sealed=True):
            if after is None or step > after:
                names = (f"{step}.damaged{n or ''}" for n in itertools.count())
                folder.rename(next(p for p in map(self.folder.joinpath, names) if not p.exists()))

    def save(self, step: int, state: Any, best: Params, record: dict[str, Any]) -> None:
        """Begins to save one step, in place of what was saved for it before.

        Whatever went wrong with the save before is raised here, or by :meth:`wait`.

        Args:
            step: its number.
            state: a tree of arrays, such as a `TrainState`; it may be donated meanwhile.
            best: the best parameters; likewise.
            record: JSON-like.
        """
        self.wait()
        if step in self._manager.all_steps():
            self._manager.delete(step)
        arrays = _about(state=state, best=best)
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
        """Waits until the last save is sealed; raises what went wrong with it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits as :meth:`wait` does, then ends all threads."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()
            self._manager.close()


def save_best(workdir: str | os.PathLike, step: int, best: Params, record: dict[str, Any]) -> None:
    """Saves parameters alone, small, in place of all that is in the folder of checkpoints.

    Args:
        workdir: as for `find`; held by this process alone.
        step: its number.
        best: what :func:`read` gives for ``best``.
        record: JSON-like, for :func:`read_record`.
    """
    # Orbax wants an absolute path.
    home = Path(workdir).absolute() / "checkpoints"
    shutil.rmtree(home, ignore_errors=True)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        args = ocp.args.Composite(
            best=ocp.args.StandardSave(best),
            record=ocp.args.JsonSave({"format": _FORMAT, **record, "arrays": _about(best=best)}),
        )
        writer.save(home / str(step), args=args)
    # It says where it was written, which is nobody else's; that it is there is what counts.
    for path in (home / str(step)).rglob("commit_success.txt"):
        path.write_bytes(b"")
    seal(home / str(step))


def _steps(folder: Path, sealed: bool) -> list[tuple[int, Path]]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        (int(path.name), path)
        for path in found
        if path.name.isdecimal() and path.is_dir() and (path / MANIFEST).is_file() == sealed
    )


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.name != MANIFEST)


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _about(**items: Any) -> dict[str, dict[str, str]]:
    return {name: shapes(tree) for name, tree in items.items()}


def shapes(tree: Any) -> dict[str, str]:
    """Leaf -> its dtype and shape, such as ``params/w`` -> ``float32[2, 3]``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


def _placed(tree: Any) -> Any:
    """Shapes with a place for each: Orbax would otherwise ask for the devices of the saver."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def place(leaf):
        where = getattr(leaf, "sharding", None) or here
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree.map(place, tree)
