"""Exports a prepared data set: python -m data.export NAME --output=FOLDER

Writes plain NumPy files to FOLDER/prepared/NAME, for a machine that has only JAX and NumPy; there
--data_dir=FOLDER (or SURNN_DATA=FOLDER) finds them. With --tfds, writes a TFDS data set in the
format array_record to FOLDER/surnn_NAME instead.
"""

import shutil
from pathlib import Path

from absl import flags

import data
from data import cache, cli

_DATA_DIR = cli.define_path("data_dir", None, "folder of the originals; default: the usual places")
_OUTPUT = cli.define_path("output", None, "folder to write into", required=True)
_TFDS = flags.DEFINE_bool("tfds", False, "write a TFDS data set (array_record)")


def main(name: str) -> None:
    """Exports the data set ``name``."""
    output = Path(_OUTPUT.value)
    if _TFDS.value:
        target = output / f"surnn_{name}"
        _check_absent(target)
        splits = {split: data.load(name, split, _DATA_DIR.value) for split in data.SPLITS}
        from data import tfds

        tfds.write(data.source_of(name), splits, output)
    else:
        target = output / cache.EXPORTS / name
        _check_whole(target)
        folder, _ = data.ensure(name, _DATA_DIR.value)
        cache.write(target, lambda empty: _copy(folder, empty))
    print(f"{name}: exported: {target}")


def _check_absent(target: Path) -> None:
    if target.exists():
        raise FileExistsError(f"{target} exists already; delete it or name another --output")


def _check_whole(target: Path) -> None:
    """Raises FileExistsError unless the target is absent or a damaged export of ours."""
    if (target / cache.MANIFEST).exists():
        try:
            cache.verify(target, "")
        except cache.DamagedData:
            return
    _check_absent(target)


def _copy(folder: Path, empty: Path) -> None:
    leave = shutil.ignore_patterns(cache.MANIFEST)
    shutil.copytree(folder, empty, dirs_exist_ok=True, ignore=leave)


if __name__ == "__main__":
    cli.run(main, "NAME")
