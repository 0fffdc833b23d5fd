"""Searches hyper-parameters for every unit alike, after Chung et al. 2014, sections 4.1 and 4.2.

    python -m experiments.search --experiment=music --protocol=chung --datasets=jsb,nottingham \\
        --units=tanh,gru,lstm,sugru --seeds=3 --budget=10 --data_dir=FOLDER

For every data set, unit and seed the draws of the protocol are trained at once, and the worse half
is taken out again and again, until one is left. The best on the validation split is scored on the
test split and leaves ``result.json`` and its parameters, which ``experiments.evaluate`` scores
again. ``journal.jsonl`` has every trial, failed ones included. Run again, the command goes on where
it was; run twice at once, with one folder, the two share the work: layers of the paper's sizes keep
little more than one core busy.
"""

from pathlib import Path

from absl import flags

from data import cli
from experiments.tuning import protocols

_EXPERIMENT = flags.DEFINE_string("experiment", "music", ", ".join(protocols.CONFIGS))
_PROTOCOL = flags.DEFINE_string("protocol", "chung", ", ".join(protocols.PROTOCOLS))
_DATASETS = flags.DEFINE_list("datasets", None, "Data sets; by default those of the paper's table")
_UNITS = flags.DEFINE_list("units", list(protocols.UNITS), "Units")
_SEEDS = flags.DEFINE_integer("seeds", 3, "How many; they count from 0")
_BUDGET = flags.DEFINE_integer("budget", 10, "Draws for every data set, unit and seed")
_SEARCH_SEED = flags.DEFINE_integer("search_seed", 0, "Of the draws")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the search; the same resumes it")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the originals; else SURNN_DATA")
_LIST = flags.DEFINE_boolean("list", False, "Print what can be searched and the draws; end")
for _name in protocols.SMALLER:
    flags.DEFINE_integer(_name, None, f"Instead of every data set's own {_name}")

_USUAL = {
    "music": ["jsb", "nottingham", "musedata", "piano_midi"],
    "speech": ["fsdd", "asterisk_speech"],
}


def main() -> None:
    """Runs the search that the flags ask for, and ends in its table."""
    values = flags.FLAGS.flag_values_dict()
    changes = {n: values[n] for n in protocols.SMALLER if values[n] is not None}
    space = protocols.SearchSpace(
        _EXPERIMENT.value, _PROTOCOL.value, _BUDGET.value, _SEARCH_SEED.value, changes
    )
    if _LIST.value:
        print(listing(space))
        return
    if _SEEDS.value < 1:
        raise ValueError(f"seeds must be at least 1, got {_SEEDS.value}")
    groups = [
        protocols.Group(dataset, unit, seed)
        for dataset in _DATASETS.value or _USUAL[space.experiment]
        for unit in _UNITS.value
        for seed in range(_SEEDS.value)
    ]
    configs = {group: space.config(group) for group in groups}
    workdir = Path(_WORKDIR.value or f"runs/search/{space.experiment}-{space.protocol}")
    # What takes seconds to import waits until --help and bad flags are out of the way.
    from experiments.tuning import run as search_runs

    search_runs.run_search(space, configs, workdir, _DATA_DIR.value, _command())


def listing(space: protocols.SearchSpace) -> str:
    """What can be searched, and the draws of a protocol."""
    fixed = protocols.PROTOCOLS[space.protocol].fixed
    lines = [f"units: {', '.join(protocols.UNITS)}", f"{'data set':<24}settings, all units alike"]
    for name, plan in protocols.DATASETS[space.experiment].items():
        shown = {**plan, **space.changes}
        lines.append(f"{name:<24}" + ", ".join(f"{k}={v}" for k, v in shown.items()))
    lines.append(f"{space.protocol}: " + ", ".join(f"{k}={v}" for k, v in fixed.items()))
    for number, draw in enumerate(space.draws):
        lines.append(f"draw {number}: " + ", ".join(f"{k}={v:.3g}" for k, v in draw.items()))
    return "\n".join(lines)


def _command() -> str:
    """What was asked for, less the folders, which are nobody else's."""
    names = (
        "experiment", "protocol", "datasets", "units", "seeds", "budget", "search_seed",
        *protocols.SMALLER,
    )  # fmt: skip
    given = (flags.FLAGS[name] for name in names if flags.FLAGS[name].present)
    return " ".join(["python -m experiments.search", *(flag.serialize() for flag in given)])


if __name__ == "__main__":
    cli.run(main)
