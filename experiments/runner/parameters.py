"""``params.npz``: the parameters of a winner in one small file that can be committed.

A NumPy archive with one array for each parameter, named by its path. The last 64 bytes, the comment
of the zip file, are the SHA-256 of everything before them. A checkpoint that training can resume
from is a folder instead: see :mod:`surnn_jax.train.checkpoint`.
"""

import hashlib
import io
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data import arrays
from experiments.runner.records import PARAMETERS
from surnn_jax.train import CorruptCheckpointError
from surnn_jax.typing import Params

FILE = PARAMETERS
_DIGITS = 64


def write(params: Params, workdir: str | os.PathLike) -> Path:
    """Writes ``params.npz`` into `workdir`, in place of any old one.

    Returns:
        The file's path.
    """
    path, archive = Path(workdir) / FILE, io.BytesIO()
    np.savez(archive, **{_name(where): np.asarray(leaf) for where, leaf in _leaves(params)})
    with zipfile.ZipFile(archive, "a") as file:
        file.comment = b"0" * _DIGITS
    content = archive.getvalue()[:-_DIGITS]
    partial = path.with_name(f"{FILE}.tmp")
    with open(partial, "wb") as file:
        file.write(content + _sum(content))
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
    content = path.read_bytes()
    if _sum(content[:-_DIGITS]) != content[-_DIGITS:]:
        raise CorruptCheckpointError(f"{path} is damaged: its SHA-256 is not the one at its end")
    sizes = [math.prod(leaf.shape) * leaf.dtype.itemsize for _, leaf in _leaves(like)]
    try:
        found = _arrays(content, max(sizes, default=0) + arrays.LONGEST_HEAD)
    except Exception as error:  # A zip file with a right sum that was not written here.
        raise CorruptCheckpointError(
            f"{path} is damaged, or was not written by us: {error}"
        ) from error
    stored = {name: f"{array.dtype}{list(array.shape)}" for name, array in found.items()}
    wanted = {_name(where): f"{leaf.dtype}{list(leaf.shape)}" for where, leaf in _leaves(like)}
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise ValueError(
                f"{path} holds {name}: {stored.get(name, 'nothing')}, "
                f"but this model has {wanted.get(name, 'nothing')}"
            )
    return jax.tree_util.tree_map_with_path(
        lambda where, _: jax.numpy.asarray(found[_name(where)]), like
    )


def _arrays(content: bytes, largest: int) -> dict[str, np.ndarray]:
    """The arrays of an archive, of which none has more than so many bytes with its header."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                raw = file.read(largest + 1)
            if len(raw) > largest:
                raise ValueError(f"{name} is larger than any array of this model")
            found[name.removesuffix(".npy")] = arrays.from_npy(raw)
    return found


def _leaves(tree: Params) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _name(where: Any) -> str:
    return jax.tree_util.keystr(where, simple=True, separator="/")


def _sum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
