"""Prepares a data set: python -m data.prepare NAME [--data_dir=FOLDER]

Reads the original, checks it against the published counts and writes the prepared data into the
cache (SURNN_CACHE, else ~/.cache/surnn_jax). A set that is prepared and whole is left alone; a
damaged one is made anew. The original is never written to.
"""

from absl import flags

import data
from data import cli

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of the originals; else SURNN_DATA, else ../shared/data"
)


def main(name: str) -> None:
    """Prepares the data set ``name``."""
    folder, written = data.prepare(name, _DATA_DIR.value)
    print(f"{name}: {'prepared' if written else 'already prepared and whole'}: {folder}")


if __name__ == "__main__":
    cli.run(main, "NAME")
