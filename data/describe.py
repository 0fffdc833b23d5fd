"""Describes a data set: python -m data.describe NAME [--data_dir=FOLDER]

Prints its origin, licence, counts and lengths, and one example. Prepares the data set first if
necessary. In place of a NAME it takes the path of your own files, as the ``--data`` of the
experiments does: a folder of MIDI or WAV files, a text, or an ``.npz``.
"""

import os

from absl import flags

import data
from data import cli, columns
from data.source import Source
from data.storage import Ragged, count

_DATA_DIR = cli.define_path("data_dir", None, "folder of the originals; default: the usual places")
_SEED = flags.DEFINE_integer("split_seed", 0, "own files: of the draw that splits them")
_FRAMES = flags.DEFINE_integer("frames_per_quarter", 4, "own MIDI files: frames of a quarter note")
_TOKENIZER = flags.DEFINE_string("tokenizer", "words", "own text: words, characters or bytes")


def main(name: str) -> None:
    """Describes the data set ``name``, or the files at this path."""
    source = _source(name)
    splits = [data.load_from(source, split, _DATA_DIR.value) for split in data.SPLITS]
    print(f"{source.name}: {source.title}\norigin: {source.origin}\nlicence: {source.licence}\n")
    for column, form in source.columns.items():
        shape = ", ".join("T" if size is None else str(size) for size in form.shape)
        print(f"{column}: {form.dtype} [{shape}], {form.text}")
    rows = [["split", "examples", "shortest", "mean", "longest", "steps", "mean value"]]
    for split in splits:
        x = split["x"]
        lengths = x.lengths if isinstance(x, Ragged) else [x.shape[1]] * len(x)
        values = x.values if isinstance(x, Ragged) else x
        figures = count(lengths)
        mean = figures.steps / max(figures.examples, 1)
        lengths = (f"{figures.shortest}", f"{mean:.1f}", f"{figures.longest}")
        value = f"{values.mean() if values.size else 0:.4f}"
        rows.append([split.split, f"{figures.examples}", *lengths, f"{figures.steps}", value])
    print("\n" + "\n".join(columns.lines(rows)))
    if read := splits[0].read:
        sealed = f", SHA-256 {read['sha256']}" if "sha256" in read else ""
        print(f"\nread: {read['path']} ({read['kind']}{sealed})")
    facts = {
        name: fact for name, fact in splits[0].facts.items() if isinstance(fact, str | int | float)
    }
    if "vocabulary" in splits[0].facts:
        facts["vocabulary"] = len(splits[0].facts["vocabulary"])
    if facts:
        print("\n" + ", ".join(f"{name}: {fact}" for name, fact in facts.items()))
    print(f"\n{splits[0].ids[0]}:")
    for line in source.show(splits[0].example(0), splits[0].facts):
        print(line)


def _source(name: str) -> Source:
    path = cli.local_path(name)
    if name in data.NAMES or not os.path.exists(path):
        return data.source_of(name)
    if _DATA_DIR.value is not None:
        raise ValueError(f"{path} and --data_dir: own files are all that is read; leave one out")
    from data.sets import own

    settings = {
        "split_seed": _SEED.value,
        "frames_per_quarter": _FRAMES.value,
        "tokenizer": _TOKENIZER.value,
    }
    return own.source(own.kind_of(path), path, **settings)


if __name__ == "__main__":
    cli.run(main, "NAME")
