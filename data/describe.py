"""Describes a data set: python -m data.describe NAME [--data_dir=FOLDER]

Prints where it comes from, its licence, its counts and lengths, and the first steps of one example.
Prepares the data set first where that has not been done.
"""

from absl import flags

import data
from data import cli, music
from data.source import count

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of the originals; else SURNN_DATA, else ../shared/data"
)
_STEPS = 16


def main(name: str) -> None:
    """Prints what there is to know of the data set ``name``."""
    source = data.source_of(name)
    splits = [data.load(name, split, _DATA_DIR.value) for split in data.SPLITS]
    print(f"{source.name}: {source.title}\norigin: {source.origin}\nlicence: {source.licence}\n")
    print("split  sequences  shortest    mean  longest    steps  notes a step")
    for split in splits:
        figures = count(split.x)
        print(
            f"{split.split:5}  {figures.sequences:9}  {figures.shortest:8}  "
            f"{figures.steps / figures.sequences:6.1f}  {figures.longest:7}  {figures.steps:7}  "
            f"{figures.ones / figures.steps:12.3f}"
        )
    first, roll = splits[0].ids[0], splits[0].x[0]
    print(f"\n{first}: the first {min(_STEPS, len(roll))} of {len(roll)} steps")
    for step, notes in enumerate(music.in_words(roll[:_STEPS])):
        print(f"{step:3}  {notes}")


if __name__ == "__main__":
    cli.run(main, "NAME")
