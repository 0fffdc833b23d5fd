"""Prepares data sets: python -m data.prepare NAME [--data_dir=FOLDER] [--download]

Reads the original, checks it against the published counts and writes the prepared data into the
cache (SURNN_CACHE, else ~/.cache/surnn_jax). A set that is prepared and whole is left alone, a
damaged one is prepared again, an interrupted one is finished. Originals are never changed. NAME
"all" prepares every available data set and names the others. With --download, a missing original
is downloaded from its publisher, into the folder of --data_dir if given.
"""

from pathlib import Path

from absl import flags

import data
from data import cli, download, paths

_DATA_DIR = cli.define_path(
    "data_dir", None, "folder of the originals; default: SURNN_DATA, ../shared/data, TFDS's folder"
)
_DOWNLOAD = flags.DEFINE_bool("download", False, "download missing originals")

LARGE = ("pathfinder128",)
"""Left out of ``all``: hours of work."""


def main(name: str) -> None:
    """Prepares the data set ``name``."""
    if name != "all":
        print(_prepare(name))
        return
    failed = []
    for each in data.NAMES:
        if each in LARGE:
            print(f"{each}: left out: it takes hours; python -m data.prepare {each}", flush=True)
            continue
        try:
            print(_prepare(each), flush=True)
        except FileNotFoundError as error:
            print(f"{each}: left out: {error}", flush=True)
        except (ValueError, OSError) as error:
            print(f"{each}: failed: {error}", flush=True)
            failed.append(each)
    if failed:
        raise ValueError(f"could not be prepared: {', '.join(failed)}; see the messages above")


def _prepare(name: str) -> str:
    source = data.source_of(name)
    if _DOWNLOAD.value:
        paths.folders(_DATA_DIR.value)  # So that a mistyped folder is not created.
        try:
            source.digest(_DATA_DIR.value)
        except FileNotFoundError:
            # Into the folder that was named: no other one is searched then.
            download.fetch(source, Path(_DATA_DIR.value or paths.downloads_folder()))
    folder, written = data.ensure(name, _DATA_DIR.value)
    return f"{name}: {'prepared' if written else 'already prepared and whole'}: {folder}"


if __name__ == "__main__":
    cli.run(main, "NAME")
