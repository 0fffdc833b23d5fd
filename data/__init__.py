"""The data sets of the experiments: ``load(name, split)`` gives memory-mapped NumPy arrays.

The first call reads the original, checks it and writes a prepared copy into the cache; later calls
read that copy. See README.md for what there is and where it comes from.
"""

import dataclasses
import errno
import importlib
import shlex
import shutil
from pathlib import Path

from data import cache, paths, storage
from data.source import SPLITS, Folder, Reading, Source
from data.storage import Ragged, Split

__all__ = ["NAMES", "SPLITS", "Ragged", "Split", "ensure", "load", "source_of"]

_MODULES = {
    "bach_chorales": ("bach_chorales",),
    "music": ("jsb", "nottingham", "musedata", "piano_midi"),
    "jsb_16th": ("jsb_16th",),
    "speech": ("timit", "fsdd", "asterisk_speech", "ljspeech"),
    "listops": ("listops", "listops_short"),
    "reviews": ("imdb_bytes",),
    "retrieval": ("aan", "wikipairs"),
    "images": ("cifar10_gray", "scifar10", "smnist", "psmnist", "digits"),
    "pathfinder": ("pathfinder32", "pathfinder128"),
    "wikitext": ("wikitext2", "wikitext103"),
}
"""In ``data.sets``, each module and the data sets in its ``SOURCES``; imported when asked for."""

NAMES = tuple(name for names in _MODULES.values() for name in names)
"""What ``load`` takes; the first needs no file."""


def load(name: str, split: str, data_dir: Folder = None) -> Split:
    """Loads one split; prepares the data set first if necessary.

    Args:
        name: one of ``NAMES``.
        split: one of ``SPLITS``.
        data_dir: the folder of the originals or of an export; None searches the usual places
            (see ``paths.folders``).

    Raises:
        ValueError: unknown name or split; an original that is damaged or not the published one;
            prepared data that were changed (``cache.DamagedData``).
        OSError: a folder or file is missing or cannot be read or written.

    Examples:
        >>> import data
        >>> digits = data.load("digits", "train")
        >>> len(digits), digits["x"].shape
        (1257, (1257, 64))
    """
    source = source_of(name)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; one of: {', '.join(SPLITS)}")
    return load_from(source, split, data_dir)


def ensure(name: str, data_dir: Folder = None) -> tuple[Path, bool]:
    """Prepares a data set if it is missing or damaged.

    Returns:
        The prepared folder, and whether anything had to be written.

    Raises:
        ValueError: as ``load``, save for damaged prepared data.
        OSError: as ``load``.

    Examples:
        >>> import data
        >>> folder, written = data.ensure("digits")
        >>> folder.is_dir()
        True
    """
    return prepare_from(source_of(name), data_dir)


def source_of(name: str) -> Source:
    """The description of a data set.

    Raises:
        ValueError: there is none of this name.

    Examples:
        >>> import data
        >>> data.source_of("digits").licence
        'CC BY 4.0; scikit-learn itself: BSD'
    """
    for module, names in _MODULES.items():
        if name in names:
            sources = importlib.import_module(f"data.sets.{module}").SOURCES
            return next(source for source in sources if source.name == name)
    raise ValueError(f"unknown data set {name!r}; one of: {', '.join(NAMES)}")


def load_from(source: Source, split: str, data_dir: Folder) -> Split:
    """``load`` for a source that need not be in ``NAMES``."""
    if source.own is not None:
        # Damaged, it is prepared again. The path is today's: the same content may have moved.
        folder, _ = prepare_from(source, None)
        return dataclasses.replace(
            storage.read(folder, split), read={"kind": "own", **source.own}, name=source.name
        )
    exported = _exported(source, data_dir)
    folder = exported or cache.folder(source.name, _original(source, data_dir)[0])
    if folder.exists():
        cache.verify(folder, _repair_command(source, data_dir, exported))
    else:
        prepare_from(source, data_dir)
    return storage.read(folder, split)


def prepare_from(source: Source, data_dir: Folder) -> tuple[Path, bool]:
    """``ensure`` for a source that need not be in ``NAMES``."""
    if exported := _exported(source, data_dir):
        cache.verify(exported, _repair_command(source, data_dir, exported))
        return exported, False
    digest, copy = _original(source, data_dir)
    folder = cache.folder(source.name, digest)
    # Finished blocks of generated data; they outlive a preparation that is killed.
    unfinished = folder.parent / f"unfinished-{folder.name}"

    def fill(empty: Path) -> None:
        reading = _reading(source, data_dir, copy, unfinished)
        storage.write(source.name, source.columns, reading, empty)
        shutil.rmtree(unfinished, ignore_errors=True)

    try:
        return folder, cache.write(folder, fill)
    except OSError as error:
        if not _is_write_error(error, folder.parent):
            raise  # The error names the original.
        raise OSError(
            f"{source.name}: cannot write prepared data: {error}; make room, or name another "
            f"folder by {paths.CACHE_VARIABLE}=FOLDER"
        ) from error


def _is_write_error(error: OSError, folder: Path) -> bool:
    """Whether an error comes from writing a folder or below, not from reading elsewhere."""
    if error.filename is not None:
        path = Path(error.filename)
        return path.is_relative_to(folder) or folder.is_relative_to(path)
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _exported(source: Source, data_dir: Folder) -> Path | None:
    return None if source.own else paths.find([f"{cache.EXPORTS}/{source.name}"], data_dir)


def _original(source: Source, data_dir: Folder) -> tuple[str, Path | None]:
    """The stamp of the data to read, and their folder if they are a TFDS copy.

    A copy takes precedence over generating data, but not over an original.
    """
    if source.own is not None:
        return source.digest(data_dir), None
    # Also for a set that needs no file, so that a mistyped data_dir is an error.
    copy = paths.find([f"surnn_{source.name}"], data_dir)
    if not (source.generated and copy):
        try:
            return source.digest(data_dir), None
        except FileNotFoundError:
            if copy is None:
                raise
    return paths.stamp(copy), copy


def _reading(source: Source, data_dir: Folder, copy: Path | None, unfinished: Path) -> Reading:
    if copy is None:
        return source.read(data_dir, unfinished)
    # TFDS is slow to import, and --help must not wait for it.
    from data import tfds

    return tfds.read(copy)


def _repair_command(source: Source, data_dir: Folder, exported: Path | None) -> str:
    if exported:
        words = ["python", "-m", "data.export", source.name, f"--output={exported.parent.parent}"]
    else:
        words = ["python", "-m", "data.prepare", source.name]
        words += [] if data_dir is None else [f"--data_dir={data_dir}"]
    return shlex.join(words)
