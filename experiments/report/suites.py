"""The suites of results: units to compare, published figures, and how far to trust them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments.report.sources import Published, second_hand, verified
from experiments.runner.records import Record
from experiments.tasks.music import config as music_config
from experiments.tasks.sequence import config as sequence_config
from experiments.tasks.speech import config as speech_config

Key = tuple[str, str, str]
"""Data set, cell and switch."""

MADE = "made here"
"""Data drawn by our generator, where the published figures are of the original files."""

GENERATED = ("listops", "pathfinder32", "pathfinder128")
"""Data sets that are either read or drawn by our generator."""


def is_whole(less: str) -> bool:
    """Whether a task that differs so from the published one, see `PaperTable.less`, is as large."""
    return less in ("", MADE)


class PaperTable(NamedTuple):
    """The facts of a suite's tables.

    Attributes:
        configs: experiment whose records belong to it -> class of its configurations.
        datasets: name -> title.
        units: (cell, switch) -> title; shown whether it was run or not.
        published: data set, cell, switch -> the published test figure.
        notes: lines below the tables.
        smaller: data set and configuration -> how the task is smaller than the published one, in
            words; empty if it is not.
        caveat: a line below the list of presets.
    """

    configs: dict[str, type]
    datasets: dict[str, str]
    units: dict[tuple[str, str], str]
    published: dict[Key, Published]
    notes: str
    smaller: Callable[[str, Mapping[str, Any]], str] = lambda dataset, config: ""
    caveat: str = ""

    def less(self, record: Record) -> str:
        """How the task of a record differs from the published one: its size, and its data."""
        parts = [self.smaller(record.dataset, record.config)]
        # Runs whose record lacks the entry had what the generator draws.
        kind = MADE if record.data is None else record.data["kind"]
        if kind == "sample":
            parts.append("a sample")
        if kind == MADE and record.dataset in GENERATED:
            parts.append(MADE)
        return ", ".join(filter(None, parts))


def _figures(cell: str, switch: str, *found: Mapping[str, Published]) -> dict[Key, Published]:
    """The published figures of one model."""
    return {(name, cell, switch): figure for own in found for name, figure in own.items()}


_TABLE_2 = {
    **_figures("gru", "none", verified("chung", jsb=8.54)),
    **_figures("gru_before", "none", verified("chung", jsb=8.54)),
    **_figures("lstm_peephole", "none", second_hand("lstm-gru", jsb=8.67)),
}
"""What could be verified of table 2 of Chung et al. 2014, test."""

MUSIC = PaperTable(
    configs={"music": music_config.Config},
    datasets={
        "bach_chorales": "Bach's chorales",
        "jsb": "JSB Chorales",
        "nottingham": "Nottingham",
        "musedata": "MuseData",
        "piano_midi": "Piano-midi.de",
    },
    units={
        ("tanh", "none"): "tanh",
        ("lstm_peephole", "none"): "LSTM, peepholes",
        ("gru", "none"): "GRU",
        ("gru", "fourier"): "suGRU, learned rhythm",
        ("gru", "fourier-frozen"): "suGRU, frozen random rhythm",
        ("gru", "event"): "suGRU, events",
    },
    published=_TABLE_2,
    notes="""\
Negative log-likelihood in nats a frame, summed over the keys; lower is better. With several seeds:
the median (and the range) of n runs. Parameters: of the recurrent layer, its switch included.
Updated: the share of neurons that update in a step of the test split. Seconds: training,
compilation included. \u2013: not run yet; none: no figure was published.

Published: Chung et al. 2014 (arXiv:1412.3555), table 2. Verified: found in two public places
(Papers with Code, github.com/2j2h5/lstm-gru); second-hand: in one of them. The rest of the table
could not be verified and is left out. The published GRU resets before its matrix product, as the
cell gru_before does, gru after it; the paper's authors' code reads 93 to 108 keys a frame, ours
88.""",
)

_MADE_UP = {"selective_copy": 4096, "mackey_glass": 5000, "adding": None, "copy": None}
"""The published lengths of tasks that can have any."""


def _smaller(dataset: str, config: Mapping[str, Any]) -> str:
    steps, parts = config["steps"], []
    if dataset in _MADE_UP:
        return "" if steps == _MADE_UP[dataset] else f"{steps:,} steps"
    if steps and not dataset.startswith("wikitext"):
        parts.append(f"first {steps:,} steps")
    if config.get("longest"):
        parts.append(f"sequences of at most {config['longest']:,} steps")
    for name, split in (("examples", "training"), ("evaluated", "valid and test")):
        if config[name]:
            parts.append(f"{config[name]:,} {split} examples")
    return ", ".join(parts)


SURNN = PaperTable(
    configs=dict.fromkeys(sequence_config.DATASETS, sequence_config.Config),
    datasets={
        "listops": "LRA ListOps",
        "listops_short": "ListOps of 100 to 512 tokens (made here)",
        "imdb_bytes": "LRA Text",
        "aan": "LRA Retrieval",
        "wikipairs": "Retrieval of Wikipedia pairs (ours)",
        "cifar10_gray": "LRA Image",
        "pathfinder32": "LRA Pathfinder",
        "pathfinder128": "LRA Path-X",
        "smnist": "sMNIST",
        "psmnist": "psMNIST",
        "scifar10": "sCIFAR",
        "wikitext2": "WikiText-2",
        "wikitext103": "WikiText-103",
        "selective_copy": "Selective Copy",
        "copy": "Copying",
        "adding": "Adding",
        "mackey_glass": "Mackey-Glass",
    },
    units={
        ("sugru", "fourier"): "suGRU, learned rhythm",
        ("sugru", "fourier-frozen"): "suGRU, frozen random rhythm",
        ("sugru", "fourier-soft"): "suGRU, soft gate",
        ("sugru", "fourier-block"): "suGRU, whole blocks rest",
        ("sugru", "event-block"): "suGRU, events, whole blocks rest",
        ("sugru", "event"): "suGRU, events",
        ("sugru", "event-frozen"): "suGRU, frozen random events",
        ("sugru", "threshold"): "suGRU, input threshold",
        ("sugru", "every"): "suGRU, every third step",
        ("sugru+s4d", "fourier"): "suGRU and S4D",
        ("sulstm", "fourier"): "suLSTM, learned rhythm",
        ("sutanh", "fourier"): "suRNN (tanh), learned rhythm",
        ("gru", "none"): "GRU",
        ("gru_carry", "none"): "GRU, biased to carry",
        ("lstm", "none"): "LSTM",
        ("tanh", "none"): "tanh",
        ("suclockwork", "clockwork"): "Clockwork RNN",
        ("sulstm_peephole", "phased"): "Phased LSTM",
        ("sugru", "zoneout"): "GRU with zoneout",
        ("skip_gru", "none"): "Skip GRU",
        ("sa_gru", "none"): "SA-GRU",
        ("min_gru", "none"): "minGRU",
        ("min_lstm", "none"): "minLSTM",
        ("attention", "none"): "Transformer",
        ("s4", "none"): "S4 (reads from both ends; not ours, see S4D)",
        ("s4d", "none"): "S4D",
        ("lru", "none"): "LRU",
        ("mamba", "none"): "Mamba",
        ("mamba2", "none"): "Mamba-2",
    },
    published={
        **_figures(
            "attention",
            "none",
            verified(
                "lra",
                listops=36.37,
                imdb_bytes=64.27,
                aan=57.46,
                cifar10_gray=42.44,
                pathfinder32=71.40,
            ),
            verified("s4", smnist=98.9, psmnist=97.9, scifar10=62.2),
            second_hand("surnn", wikitext103=24.78),
        ),
        **_figures(
            "sugru",
            "fourier",
            second_hand(
                "surnn",
                listops=44.93,
                imdb_bytes=64.42,
                aan=77.54,
                cifar10_gray=80.32,
                pathfinder32=84.92,
                smnist=99.53,
                psmnist=98.46,
                scifar10=87.26,
                wikitext103=19.20,
            ),
        ),
        **_figures(
            "s4",
            "none",
            verified(
                "s4",
                listops=59.60,
                imdb_bytes=86.82,
                aan=90.90,
                cifar10_gray=88.65,
                pathfinder32=94.20,
            ),
            verified("mamba", selective_copy=18.3),
        ),
        **_figures(
            "mamba",
            "none",
            second_hand("surnn", wikitext103=23.19),
            verified("mamba", selective_copy=99.8),
        ),
        **_figures(
            "sugru+s4d", "fourier", second_hand("surnn", wikitext103=18.03, selective_copy=97.2)
        ),
        **_figures("lru", "none", second_hand("wizwand", wikitext103=31.12)),
    },
    smaller=_smaller,
    notes="""\
Accuracy: higher is better; perplexity and errors: lower. With several seeds: the median (and the
range) of n runs. Parameters: of all blocks, switches included. Updated: the share of neurons that
update in a step of the test split, mean over the selective layers. Seconds: training, compilation
included. \u2013: not run yet; none: no figure was published.

Published: the suRNN paper (arXiv:2603.02226), tables 2 to 5. Its text could not be had; the figures
were relayed by a digest of it (second-hand). Verified: in the table of the paper that measured it,
by at least two public transcriptions.
Doubts about them: the paper's average over Long Range Arena is of five tasks for suGRU (70.43), but
of six, Path-X among them, for S4 (86.09; over the five 84.03) and the Transformer (53.66, with 50
for Path-X; over the five 54.39). On WikiText-103 its suGRU is better on the test than on the
validation text, where every other model is worse; a state carried over, or a longer context, might
explain that. Its Selective Copy rows are hybrids with S4. A Mamba with 97.0 to 99.8 % there is
quoted with its best. Its gate ablation: binary 70.43, soft 59.44, on the average of the five.
Equal effort: the learning rate and the weight decay of every model are the best of the same four
draws (`python -m experiments.reproduce`); without it they were set by hand.
A task that is smaller than the published one stands in a table of its own, with no published
figure beside it. Widths, depths and training of the paper are not known: all settings are ours.""",
)


def _other_speech(dataset: str, config: Mapping[str, Any]) -> str:
    parts = []
    for name, unit in (("window", "samples"), ("windows", "training windows")):
        usual = getattr(speech_config.Config, name)
        if name in config and config[name] != usual:
            parts.append(f"{config[name]:,} {unit}")
    return ", ".join(parts)


CHUNG = PaperTable(
    configs={"music": music_config.Config, "speech": speech_config.Config},
    datasets={
        **{name: title for name, title in MUSIC.datasets.items() if name != "bach_chorales"},
        "bach_chorales": "Bach's chorales",
        "fsdd": "Spoken digits, windows of 500 samples",
        "asterisk_speech": "Asterisk prompts, windows of 500 samples",
        "ljspeech": "LJ Speech, windows of 500 samples",
        "timit": "TIMIT, windows of 500 samples",
        "asterisk_speech-8000": "Asterisk prompts, windows of 8,000 samples",
    },
    units={
        ("tanh", "none"): "tanh",
        ("gru_before", "none"): "GRU",
        ("lstm_peephole", "none"): "LSTM",
        ("gru_before", "fourier"): "suGRU",
    },
    published=_TABLE_2,
    smaller=_other_speech,
    notes="""\
Negative log-likelihood in nats, lower is better: music a frame, summed over the keys; speech a
step of ten samples, in units of the training samples' deviation, by a mixture of 20 Gaussians. A
search trains every draw of its protocol, and takes out the worse half again and again, after the
same epochs for every unit, until one is left; the best on the validation split counts. Mean \u00b1
standard deviation of n seeds. Diverged: trials of all those seeds that ended in numbers that are
not finite; they never win. Parameters: of the recurrent layer, its switch included. Updated: the
share of neurons that update in a step of the test split. Seconds: of all draws together, a seed.
Cut off: winners that were stopped by the most epochs a trial may have, the same for every unit,
and not by patience: more epochs might have made them better. \u2013: not run.

Verdicts: paired differences over seeds of the test figures, with a 95 % bootstrap interval
(percentile, 10,000 resamples). With three seeds it is no more than their range, and leaves out 0
by chance alone once in four. A unit beats another where the interval lies above 0; two are alike
where it contains 0 or the difference is under 0.05 nats, which shows no difference and proves no
equality.

Published: Chung et al. 2014 (arXiv:1412.3555), table 2. Verified: found in two public places
(Papers with Code, github.com/2j2h5/lstm-gru); second-hand: in one of them. The rest of the table
could not be verified and is left out. The paper's authors' code reads 93 to 108 keys a frame, ours
88. Its speech (Ubisoft) is not public, and stands here for windows of 500 and 8,000 samples.""",
)

SUITES = {"music": MUSIC, "surnn": SURNN, "chung": CHUNG}


NOTHING_PUBLISHED = PaperTable({}, {}, {}, {}, "")
"""For an experiment without a suite."""


def of(experiment: str) -> str | None:
    """The suite in which the single runs of an experiment stand; None if there is none."""
    return next((name for name, suite in SUITES.items() if experiment in suite.configs), None)


def published(suite: PaperTable, dataset: str, cell: str, switch: str) -> str:
    """The published figure, how far to trust it and its source; or ``none``."""
    figure = suite.published.get((dataset, cell, switch))
    return str(figure) if figure else "none"
