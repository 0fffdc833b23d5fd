"""``params.npz``: the parameters of a winner in one small file that can be committed.

A NumPy archive with an array for each parameter, named by its path, and the SHA-256 of all of them.
A checkpoint of a run, which training can go on from, is a folder: see
:mod:`surnn_jax.train.checkpoint`.
"""

import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.runner.records import PARAMETERS
from surnn_jax.train import CorruptCheckpointError
from surnn_jax.typing import Params

FILE = PARAMETERS
_SUM = "sha256"


def write(params: Params, workdir: str | os.PathLike) -> Path:
    """Writes ``params.npz`` into `workdir`, in place of any old one.

    Returns:
        The file's path.
    """
    path = Path(workdir) / FILE
    arrays = {_name(where): np.asarray(leaf) for where, leaf in _leaves(params)}
    partial = path.with_name(f"{FILE}.tmp")
    with open(partial, "wb") as file:
        np.savez(file, **arrays, **{_SUM: np.array(_digest(arrays))})
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return path


def read(workdir: str | os.PathLike, like: Params) -> Params:
    """The parameters that :func:`write` left in `workdir`, bit for bit.

    Args:
        workdir: the folder.
        like: a tree of arrays or `jax.ShapeDtypeStruct` of the right shapes.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptCheckpointError: the file is damaged.
        ValueError: it holds other arrays; the first that differs is named.
    """
    path = Path(workdir) / FILE
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        expected = str(arrays.pop(_SUM))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptCheckpointError(f"{path} is damaged: {error}") from None
    if _digest(arrays) != expected:
        raise CorruptCheckpointError(f"{path} is damaged: its SHA-256 is not the one in it")
    stored = {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}
    wanted = {_name(where): f"{leaf.dtype}{list(leaf.shape)}" for where, leaf in _leaves(like)}
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise ValueError(
                f"{path} holds {name}: {stored.get(name, 'nothing')}, "
                f"but this model has {wanted.get(name, 'nothing')}"
            )
    return jax.tree_util.tree_map_with_path(
        lambda where, _: jax.numpy.asarray(arrays[_name(where)]), like
    )


def _leaves(tree: Params) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _name(where: Any) -> str:
    return jax.tree_util.keystr(where, simple=True, separator="/")


def _digest(arrays: dict[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
