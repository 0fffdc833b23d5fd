"""Prepares data sets: python -m data.prepare NAME [--data_dir=FOLDER] [--download]

Reads the original, checks it against the published counts and writes the prepared data into the
cache (SURNN_CACHE, else ~/.cache/surnn_jax). A set that is prepared and whole is left alone; a
damaged one is made anew; one that was cut off is finished. The original is never written to. With
NAME "all", everything that can be had is prepared, and what cannot is named.
"""

from absl import flags

import data
from data import cli, download, locate

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
    for each in data.NAMES:
        if each not in LARGE:
            try:
                print(_prepared(each), flush=True)
            except FileNotFoundError as error:
                print(f"{each}: left out: {error}", flush=True)


def _prepared(name: str) -> str:
    source = data.source_of(name)
    if _DOWNLOAD.value:
        try:
            source.digest(_DATA_DIR.value)
        except FileNotFoundError:
            download.fetch(source, locate.downloads_folder())
    folder, written = data.prepare(name, _DATA_DIR.value)
    return f"{name}: {'prepared' if written else 'already prepared and whole'}: {folder}"


if __name__ == "__main__":
    cli.run(main, "NAME")
