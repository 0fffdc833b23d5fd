"""Describes a data set: python -m data.describe NAME [--data_dir=FOLDER]

Prints its origin, licence, counts and lengths, and one example. Prepares the data set first if
necessary.
"""

import data
from data import cli
from data.storage import Ragged, count

_DATA_DIR = cli.define_path("data_dir", None, "folder of the originals; default: the usual places")


def main(name: str) -> None:
    """Describes the data set ``name``."""
    source = data.source_of(name)
    splits = [data.load(name, split, _DATA_DIR.value) for split in data.SPLITS]
    print(f"{source.name}: {source.title}\norigin: {source.origin}\nlicence: {source.licence}\n")
    for column, form in source.columns.items():
        shape = ", ".join("T" if size is None else str(size) for size in form.shape)
        print(f"{column}: {form.dtype} [{shape}], {form.text}")
    print("\nsplit  examples  shortest     mean  longest       steps    mean value")
    for split in splits:
        x = split["x"]
        lengths = x.lengths if isinstance(x, Ragged) else [x.shape[1]] * len(x)
        values = x.values if isinstance(x, Ragged) else x
        figures = count(lengths)
        print(
            f"{split.split:5}  {figures.examples:8}  {figures.shortest:8}  "
            f"{figures.steps / max(figures.examples, 1):7.1f}  {figures.longest:7}  "
            f"{figures.steps:10}  {values.mean() if values.size else 0:12.4f}"
        )
    if read := splits[0].read:
        print(f"\nread: {read['path']} ({read['kind']})")
    facts = {
        name: fact for name, fact in splits[0].facts.items() if isinstance(fact, str | int | float)
    }
    if facts:
        print("\n" + ", ".join(f"{name}: {fact}" for name, fact in facts.items()))
    print(f"\n{splits[0].ids[0]}:")
    for line in source.show(splits[0].example(0), splits[0].facts):
        print(line)


if __name__ == "__main__":
    cli.run(main, "NAME")
