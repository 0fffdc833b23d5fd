"""Folders as people have them: with symbolic links, and names in another case."""

import os
from pathlib import Path

_ALIKE = str.maketrans(" -", "__")


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted, links followed; a folder met again is left out.

    Raises:
        OSError: a folder cannot be read.
    """
    found, seen = [], set()
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(place)
        folders.sort()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in names]
    return sorted(path for path in found if path.is_file())


def _raise(error: OSError) -> None:
    raise error


class Places:
    """Looks for files and folders in one folder, whose listings it keeps."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._listings: dict[Path, list[str]] = {}

    def find(self, place: str, *, file: bool = False) -> Path | None:
        """The path of a place with slashes, or None.

        Args:
            place: exactly so, or else in another case, or with other of blank, hyphen and low line.
            file: whether it must be a file.

        Raises:
            ValueError: several are alike, and none is exactly so.
        """
        exact = self._folder / place
        if exact.is_file() if file else exact.exists():
            return exact
        alike = [self._folder]
        for name in Path(place).parts:
            alike = [path / other for path in alike for other in self._alike(path, name)]
        alike = [path for path in alike if (path.is_file() if file else path.exists())]
        if len(alike) > 1:
            names = " and ".join(str(path) for path in alike)
            raise ValueError(f"{names} could both be {place}; rename one, or name its folder alone")
        return alike[0] if alike else None

    def _alike(self, folder: Path, name: str) -> list[str]:
        if folder not in self._listings:
            self._listings[folder] = sorted(os.listdir(folder)) if folder.is_dir() else []
        wanted = name.casefold().translate(_ALIKE)
        return [
            other
            for other in self._listings[folder]
            if other.casefold().translate(_ALIKE) == wanted
        ]
