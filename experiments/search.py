"""Searches hyper-parameters for every unit alike, after Chung et al. 2014, sections 4.1 and 4.2.

    python -m experiments.search --experiment=music --protocol=chung --datasets=jsb,nottingham \\
        --units=tanh,gru,lstm,sugru --seeds=3 --num_trials=10 --data_dir=FOLDER

For every data set, unit and seed the draws of the protocol are trained together, and the worse half
is dropped again and again until one is left. The best on the validation split is scored on the test
split; its ``result.json`` and parameters are kept, and ``experiments.evaluate`` scores it again.
``journal.jsonl`` has every trial, failed ones included. Rerun the same command to resume. Run it
twice at once with one folder to share the work between two processes: layers of the paper's sizes
use little more than one core. ``--data=FOLDER`` searches on your own MIDI or WAV files instead.
"""

import dataclasses
import os
from pathlib import Path

from absl import flags

from data import cli
from experiments.report import searches
from experiments.runner.config import flag_of
from experiments.tuning import protocols

_EXPERIMENT = flags.DEFINE_string("experiment", "music", ", ".join(protocols.CONFIGS))
_PROTOCOL = flags.DEFINE_string("protocol", "chung", ", ".join(protocols.PROTOCOLS))
_DATASETS = flags.DEFINE_list("datasets", None, "Data sets; by default those of the paper's table")
_UNITS = flags.DEFINE_list("units", list(protocols.UNITS), "Units")
_SEEDS = flags.DEFINE_integer("seeds", 3, "How many; they count from 0")
_TRIALS = flags.DEFINE_integer("num_trials", 10, "Draws for every data set, unit and seed")
_SEARCH_SEED = flags.DEFINE_integer("search_seed", 0, "Seed of the draws")
_WORKDIR = cli.define_path("workdir", None, "Folder of the search; the same resumes it")
_DATA_DIR = cli.define_path("data_dir", None, "Folder of the originals; else SURNN_DATA")
_DATA = cli.define_path("data", None, "Your own files, in place of data sets")
_LIST = flags.DEFINE_boolean("list", False, "Print units, data sets and draws; end")

_CHANGES = {
    field.name: flag_of(field)
    for config in protocols.CONFIGS.values()
    for field in dataclasses.fields(config)
    if field.name in protocols.SMALLER
}
"""Field -> its flag."""
for _name, _flag in _CHANGES.items():
    flags.DEFINE_integer(_flag, None, f"Instead of every data set's own {_flag}")
    if _flag != _name:  # Commands in records have the old name.
        flags.DEFINE_alias(_name, _flag)
flags.DEFINE_alias("budget", "num_trials")

_USUAL = {
    "music": ["jsb", "nottingham", "musedata", "piano_midi"],
    "speech": ["fsdd", "asterisk_speech"],
}


def main() -> None:
    """Runs the search that the flags ask for, and prints its table."""
    values = flags.FLAGS.flag_values_dict()
    changes = {n: values[flag] for n, flag in _CHANGES.items() if values[flag] is not None}
    own = "" if _DATA.value is None else os.path.abspath(_DATA.value)
    if own and (_DATASETS.value or _DATA_DIR.value):
        raise ValueError(
            f"--data={own} and --datasets or --data_dir: own files are all that is read"
        )
    space = protocols.SearchSpace(
        _EXPERIMENT.value, _PROTOCOL.value, _TRIALS.value, _SEARCH_SEED.value, changes, own
    )
    if _LIST.value:
        print(listing(space))
        return
    if _SEEDS.value < 1:
        raise ValueError(f"seeds must be at least 1, got {_SEEDS.value}")
    groups = [
        protocols.Group(dataset, unit, seed)
        for dataset in list(space.datasets if own else _DATASETS.value or _USUAL[space.experiment])
        for unit in _UNITS.value
        for seed in range(_SEEDS.value)
    ]
    configs = {group: space.config(group) for group in groups}
    workdir = Path(_WORKDIR.value or f"runs/search/{space.experiment}-{space.protocol}")
    # This imports JAX, which takes seconds: --help and bad flags do not wait for it.
    from experiments.tuning import run

    if run.run_search(space, configs, workdir, _DATA_DIR.value, _command()):
        print(searches.of_folder(workdir))


def listing(space: protocols.SearchSpace) -> str:
    """The units, data sets and draws of a search."""
    fixed = protocols.PROTOCOLS[space.protocol].fixed
    lines = [f"units: {', '.join(protocols.UNITS)}", f"{'data set':<24}settings, all units alike"]
    for name, plan in space.datasets.items():
        shown = {**plan, **space.changes}
        lines.append(f"{name:<24}" + ", ".join(f"{k}={v}" for k, v in shown.items()))
    lines.append(f"{space.protocol}: " + ", ".join(f"{k}={v}" for k, v in fixed.items()))
    for number, draw in enumerate(space.draws):
        lines.append(f"draw {number}: " + ", ".join(f"{k}={v:.3g}" for k, v in draw.items()))
    return "\n".join(lines)


def _command() -> str:
    """The command line without the folders."""
    names = (
        "experiment", "protocol", "datasets", "units", "seeds", "num_trials", "search_seed", "data",
        *_CHANGES.values(),
    )  # fmt: skip
    given = (
        flags.FLAGS[name] for name in names if flags.FLAGS[name].value != flags.FLAGS[name].default
    )
    return " ".join(["python -m experiments.search", *(flag.serialize() for flag in given)])


if __name__ == "__main__":
    cli.run(main)
