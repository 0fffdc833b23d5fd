"""Prepares data sets: python -m data.prepare NAME [--data_dir=FOLDER] [--download]

Reads the original, checks it against the published counts and writes the prepared data into the
cache (SURNN_CACHE, else ~/.cache/surnn_jax). A set that is prepared and whole is left alone; a
damaged one is made anew; one that was cut off is finished. The original is never written to. With
NAME "all", everything that can be had is prepared, and what cannot is named. With --download, what
is in no folder is fetched from its publisher, into the folder of --data_dir if that is given.
"""

from pathlib import Path

from absl import flags

import data
from data import cli, download, paths

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of the originals; else SURNN_DATA, ../shared/data, TFDS's folder"
)
_DOWNLOAD = flags.DEFINE_bool("download", False, "fetch what is missing from its publisher")

LARGE = ("pathfinder128",)
"""Left out of ``all``: hours of work."""


def main(name: str) -> None:
    """Prepares the data set ``name``."""
    if name != "all":
        print(_prepared(name))
        return
    failed = []
    for each in data.NAMES:
        if each in LARGE:
            print(f"{each}: left out: it takes hours; python -m data.prepare {each}", flush=True)
            continue
        try:
            print(_prepared(each), flush=True)
        except FileNotFoundError as error:
            print(f"{each}: left out: {error}", flush=True)
        except (ValueError, OSError) as error:
            print(f"{each}: failed: {error}", flush=True)
            failed.append(each)
    if failed:
        raise ValueError(f"could not be prepared: {', '.join(failed)}; what is wrong stands above")


def _prepared(name: str) -> str:
    source = data.source_of(name)
    if _DOWNLOAD.value:
        paths.folders(_DATA_DIR.value)  # A mistyped folder is not to be made.
        try:
            source.digest(_DATA_DIR.value)
        except FileNotFoundError:
            # Into the folder that was named: no other one is searched then.
            download.fetch(source, Path(_DATA_DIR.value or paths.downloads_folder()))
    folder, written = data.ensure(name, _DATA_DIR.value)
    return f"{name}: {'prepared' if written else 'already prepared and whole'}: {folder}"


if __name__ == "__main__":
    cli.run(main, "NAME")
