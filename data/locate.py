"""Where original data are looked for, and where prepared data are kept."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The root of the repository."""

DATA_VARIABLE = "SURNN_DATA"
CACHE_VARIABLE = "SURNN_CACHE"


def data_folder(data_dir: str | Path | None = None) -> Path:
    """The folder of the originals: ``data_dir``, else ``SURNN_DATA``, else ``../shared/data``.

    The first of the three that is given decides; there is no falling through to the next one, for
    a mistyped folder must not end in the data of another.

    Raises:
        FileNotFoundError: the folder does not exist, or none is given.
        NotADirectoryError: it is not a folder.
    """
    if data_dir is not None:
        return _existing(Path(data_dir), f"--data_dir={data_dir}")
    if variable := os.environ.get(DATA_VARIABLE):
        return _existing(Path(variable), f"{DATA_VARIABLE}={variable}")
    default = ROOT.parent / "shared" / "data"
    if not default.is_dir():
        raise FileNotFoundError(
            f"no folder of original data: --data_dir is not given, {DATA_VARIABLE} is not set and "
            f"{default} does not exist; give the folder by --data_dir=FOLDER or "
            f"{DATA_VARIABLE}=FOLDER"
        )
    return default


def original(
    name: str, file: str, subfolders: tuple[str, ...], data_dir: str | Path | None = None
) -> Path:
    """The path of an original file, in the data folder itself or in one of its subfolders.

    Args:
        name: the data set, for the error.
        file: the file's published name.
        subfolders: where the file may lie besides the folder itself.
        data_dir: see ``data_folder``.

    Raises:
        FileNotFoundError: the folder or the file does not exist.
        NotADirectoryError: the folder is not one.
    """
    try:
        folder = data_folder(data_dir)
    except OSError as error:
        raise type(error)(f"{name} needs {file}: {error}") from error
    places = [folder / file, *(folder / subfolder / file for subfolder in subfolders)]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"{name} needs {file}: it is neither {' nor '.join(map(str, places))}; give the folder "
        f"that holds it by --data_dir=FOLDER or {DATA_VARIABLE}=FOLDER"
    )


def cache_folder() -> Path:
    """The folder of prepared data: ``SURNN_CACHE``, else ``~/.cache/surnn_jax``; may not exist."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "surnn_jax")


def _existing(folder: Path, given_by: str) -> Path:
    if not folder.exists():
        raise FileNotFoundError(f"{given_by}: no such folder; name the folder of the originals")
    if not folder.is_dir():
        raise NotADirectoryError(f"{given_by}: not a folder; name the folder of the originals")
    return folder
