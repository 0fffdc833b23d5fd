"""Which experiment takes which data set."""

import difflib

from experiments.tasks.music.config import DATASETS as MUSIC
from experiments.tasks.sequence.config import DATASETS as SEQUENCES
from experiments.tasks.speech.config import DATASETS as SPEECH

TAKEN = {"music": MUSIC, "speech": SPEECH} | {name: tuple(sets) for name, sets in SEQUENCES.items()}
"""Experiment -> the names of its data sets."""


def refusal(experiment: str, dataset: str) -> str:
    """One line about a data set that an experiment does not take: which are right."""
    known = TAKEN[experiment]
    words = f"{experiment}: no data {dataset!r}; one of: {', '.join(known)}"
    takers = [name for name, sets in TAKEN.items() if dataset in sets]
    if takers:
        return f"{words}; {dataset} is for experiments.{takers[0]}"
    near = difflib.get_close_matches(dataset, [one for sets in TAKEN.values() for one in sets], 1)
    return f"{words}; did you mean {near[0]}?" if near else words
