"""Speech as raw waveforms: int16 samples, a recording an example.

``timit``: TIMIT (LDC93S1), 16 kHz, read sentences. The two sentences SA1 and SA2, which every
speaker reads, are left out, as is usual: they would lie in all splits. ``train`` is the training
part (462 speakers, 8 sentences each), ``test`` the core test set (24 speakers of the test part),
``valid`` the development set of 50 other speakers of the test part that Halberstadt (1998) chose
and Kaldi's recipe uses. The other 94 speakers of the test part are not used. NLTK's sample of 16
speakers, all of the training part, is read too: ``train`` is then dialect regions 1 to 6,
``valid`` region 7, ``test`` region 8. That is for trying things out; it gives no TIMIT result.

``fsdd``: the Free Spoken Digit Dataset, 8 kHz, 6 speakers saying each digit 50 times. Its own rule:
takes 0..4 are ``test``. It has no validation set; takes 5..9 are ours.

``asterisk_speech``: the prompts of a telephone system, 8 kHz, one professional speaker. Left out is
what is no speech. There is no official split: of the sorted names, every tenth, from index 9 on, is
``test``, the one before it ``valid``.

``ljspeech``: LJ Speech 1.1, 22.05 kHz, one reader. There is no official split; as in FastSpeech 2
(Ren et al., 2021), chapters 1 and 2 are ``test`` and chapter 3 is ``valid``. A sample with the
first 32 recordings is read too: 1..24 ``train``, 25..28 ``valid``, 29..32 ``test``.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from data import files, paths
from data.sets import audio
from data.source import Column, Count, Download, Example, Folder, Reading, Source

Place = Callable[[str], tuple[str, str] | None]
"""From a path inside the original, the split and the id of a recording; None: it is left out."""

_CORE_TEST = """
    MDAB0 MWBT0 FELC0 MTAS1 MWEW0 FPAS0 MJMP0 MLNT0 FPKT0 MLLL0 MTLS0 FJLM0
    MBPM0 MKLT0 FNLP0 MCMJ0 MJDH0 FMGD0 MGRT0 MNJM0 FDHC0 MJLN0 MPAM0 FMLD0
"""
CORE_TEST = frozenset(_CORE_TEST.split())
"""The speakers of TIMIT's core test set: two men and a woman of each dialect region."""

_DEVELOPMENT = """
    FAKS0 FDAC1 FJEM0 MGWT0 MJAR0 MMDB1 MMDM2 MPDF0 FCMH0 FKMS0 MBDG0 MBWM0 MCSH0
    FADG0 FDMS0 FEDW0 MGJF0 MGLB0 MRTK0 MTAA0 MTDT0 MTHC0 MWJG0 FNMR0 FREW0 FSEM0
    MBNS0 MMJR0 MDLS0 MDLF0 MDVC0 MERS0 FMAH0 FDRW0 MRCS0 MRJM4 FCAL1 MMWH0 FJSJ0
    MAJC0 MJSW0 MREB0 FGJD0 FJMG0 MROA0 MTEB0 MJFC0 MRJR0 FMML0 MRWS1
"""
DEVELOPMENT = frozenset(_DEVELOPMENT.split())
"""The speakers of the development set, all of TIMIT's test part."""

SENTENCES = 8
"""What is left of a TIMIT speaker's ten sentences without SA1 and SA2."""

COUNTS = {
    "timit": {
        "train": Count(462 * SENTENCES),
        "valid": Count(len(DEVELOPMENT) * SENTENCES),
        "test": Count(len(CORE_TEST) * SENTENCES),
    },
    "timit sample": {
        "train": Count(96, 22_938, 88_372, 4_699_789, 2_488),
        "valid": Count(16, 29_594, 83_149, 799_443, -149_053),
        "test": Count(16, 23_962, 69_940, 743_839, -20_712),
    },
    "fsdd": {
        "train": Count(2_400, 1_288, 18_262, 8_407_965, -266_628_600),
        "valid": Count(300, 1_149, 10_504, 1_056_429, -32_859_479),
        "test": Count(300, 1_148, 9_178, 1_034_030, -33_204_621),
    },
    "asterisk_speech": {
        "train": Count(443, 2_948, 586_790, 9_518_171, 1_195),
        "valid": Count(55, 4_853, 117_834, 1_032_792, 185),
        "test": Count(55, 4_918, 130_954, 1_099_891, 262),
    },
    "ljspeech": {"train": Count(12_228), "valid": Count(349), "test": Count(523)},
    "ljspeech sample": {
        "train": Count(24, 39_325, 219_293, 3_617_208, 213_722),
        "valid": Count(4, 130_717, 212_637, 673_140, 29_052),
        "test": Count(4, 117_405, 173_213, 599_156, 108_410),
    },
}
"""Of the whole TIMIT and LJ Speech, the numbers of recordings alone are known to us."""

_LDC = re.compile(
    r"(?:^|/)(train|test)/(dr[1-8])/([fm][a-z]{3}\d)/(s[ix]\d+)\.wav(?:\.wav)?$", re.I
)
_NLTK = re.compile(r"(?:^|/)(dr[1-8])-([fm][a-z]{3}\d)/(s[ix]\d+)\.wav$", re.I)
_FSDD = re.compile(r"(?:^|/)(\d_[a-z]+_(\d+))\.wav$")
_LJSPEECH = re.compile(r"(?:^|/)(LJ(\d{3})-(\d{4}))\.wav$")

_NO_SPEECH = ("beep", "beeperr", "ascending-2tone", "descending-2tone", "tt-monkeys")


def show(example: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """A recording's envelope, its length and, where there is one, its label."""
    samples, rate = example["x"], facts["sample_rate"]
    peak = abs(samples.astype(int)).max()
    line = f"{len(samples) / rate:.2f} s at {rate} Hz, peak {peak} of 32768"
    return [audio.bars(samples), line + (f", label {example['y']}" if "y" in example else "")]


def ldc_place(inside: str) -> tuple[str, str] | None:
    """``Place`` of a file in LDC's TIMIT, ``TRAIN/DR1/FCJF0/SI1027.WAV`` in any folder and case."""
    if not (found := _LDC.search(inside)):
        return None
    part, region, speaker, sentence = found.group(1, 2, 3, 4)
    label = f"{part}/{region}/{speaker}/{sentence}".upper()
    if part.upper() == "TRAIN":
        return "train", label
    if speaker.upper() in CORE_TEST:
        return "test", label
    return ("valid", label) if speaker.upper() in DEVELOPMENT else None


def nltk_place(inside: str) -> tuple[str, str] | None:
    """``Place`` of a file in NLTK's sample, ``dr1-fvmh0/si1466.wav`` in any folder."""
    if not (found := _NLTK.search(inside)):
        return None
    region, speaker, sentence = found.group(1, 2, 3)
    split = {"DR7": "valid", "DR8": "test"}.get(region.upper(), "train")
    return split, f"{region}/{speaker}/{sentence}".upper()


def fsdd_place(inside: str) -> tuple[str, str] | None:
    """``Place`` of a file ``7_theo_12.wav``: digit, speaker, take."""
    if not (found := _FSDD.search(inside)):
        return None
    take = int(found[2])
    return ("test" if take < 5 else "valid" if take < 10 else "train"), found[1]


def ljspeech_place(inside: str) -> tuple[str, str] | None:
    """``Place`` of a file ``LJ001-0001.wav`` in the whole set: chapter and number."""
    if not (found := _LJSPEECH.search(inside)):
        return None
    return {"001": "test", "002": "test", "003": "valid"}.get(found[2], "train"), found[1]


def ljspeech_sample_place(inside: str) -> tuple[str, str] | None:
    """``ljspeech_place`` in the sample."""
    if not (found := _LJSPEECH.search(inside)):
        return None
    number = int(found[3])
    return ("train" if number <= 24 else "valid" if number <= 28 else "test"), found[1]


def _recordings(path: Path, place: Place, rate: int) -> Iterator[tuple[str, Example]]:
    for inside, content in files.members(path, lambda inside: place(inside) is not None):
        split, label = place(inside)
        yield split, (label, {"x": audio.waveform(content, rate, f"{path}: {inside}")})


def _sorted_out(recordings: Iterator[tuple[str, Example]]) -> dict[str, Any]:
    """Each split's examples, out of one pass over the original.

    The pass is made as ``train`` is gone through, which comes first; what belongs to the other two
    splits, a small part, waits in memory.
    """
    waiting: dict[str, list[Example]] = {"valid": [], "test": []}

    def train() -> Iterator[Example]:
        for split, example in recordings:
            if split == "train":
                yield example
            else:
                waiting[split].append(example)

    return {"train": train(), **waiting}


def _places(*stems: str) -> list[str]:
    return [place for stem in stems for place in files.archived(stem)]


# TIMIT

_TIMIT_PLACES = [
    *("TRAIN/DR1", "train/dr1", "data/TRAIN/DR1"),  # The folder of the corpus itself.
    *_places("TIMIT", "LDC93S1", "timit_LDC93S1"),
    *_places("darpa-timit-acousticphonetic-continuous-speech"),  # Kaggle's copy.
    *_places("timit"),
    *_places("timit_sample/timit", "timit_sample/timit_sample"),
    *(f"timit_sample{ending}" for ending in files.ARCHIVES),
]


def _find_timit(data_dir: Folder) -> Path:
    path = paths.original("timit", _TIMIT_PLACES, data_dir)
    return path.parent.parent if path.name.lower() == "dr1" else path


def _read_timit(path: Path) -> Reading:
    first = next(
        files.members(path, lambda inside: bool(ldc_place(inside) or nltk_place(inside))), None
    )
    if first is None:
        raise ValueError(
            f"{path}: no TIMIT in it; its recordings should lie in TRAIN/DR1/FCJF0/SI1027.WAV and "
            "the like, or in NLTK's sample in dr1-fvmh0/si1466.wav"
        )
    whole = ldc_place(first[0]) is not None
    recordings = _recordings(path, ldc_place if whole else nltk_place, 16_000)
    return Reading(
        str(path),
        _sorted_out(_whole_speakers(_each_once(recordings, path), path)),
        {
            "sample_rate": 16_000,
            "version": "LDC93S1" if whole else "NLTK's sample; no TIMIT result",
        },
        COUNTS["timit" if whole else "timit sample"],
        "original" if whole else "sample",
    )


def _each_once(
    recordings: Iterator[tuple[str, Example]], path: Path
) -> Iterator[tuple[str, Example]]:
    """Leaves out a copy in another form of what came before, such as ``SI1027.WAV.wav``."""
    seen: dict[str, bytes] = {}
    for split, (label, example) in recordings:
        digest = hashlib.blake2b(example["x"].tobytes(), digest_size=16).digest()
        if label not in seen:
            seen[label] = digest
            yield split, (label, example)
        elif seen[label] != digest:
            raise ValueError(
                f"{path}: two recordings of {label} that differ; remove one of the two copies"
            )


def _whole_speakers(
    recordings: Iterator[tuple[str, Example]], path: Path
) -> Iterator[tuple[str, Example]]:
    sentences: Counter[str] = Counter()
    for split, (label, example) in recordings:
        sentences[label.rpartition("/")[0]] += 1
        yield split, (label, example)
    for speaker, count in sentences.items():
        if count != SENTENCES:
            raise ValueError(
                f"{path}: {speaker} has {count} recordings besides SA1 and SA2; it should have "
                f"{SENTENCES}; copy that folder again"
            )


# The Free Spoken Digit Dataset


def _find_fsdd(data_dir: Folder) -> Path:
    stems = ("fsdd_recordings", "free-spoken-digit-dataset/recordings", "free-spoken-digit-dataset")
    places = _places(*stems, "recordings", *(f"fsdd/{stem}" for stem in (*stems, "recordings")))
    path = paths.original("fsdd", [*places, "0_jackson_0.wav"], data_dir)
    return path.parent if path.suffix == ".wav" else path  # The folder of the recordings itself.


def _read_fsdd(path: Path) -> Reading:
    recordings = (
        (split, (label, {**example, "y": int(label[0])}))
        for split, (label, example) in _recordings(path, fsdd_place, 8_000)
    )
    facts = {"sample_rate": 8_000, "classes": 10}
    return Reading(str(path), _sorted_out(recordings), facts, COUNTS["fsdd"])


# Asterisk's prompts


def _find_asterisk(data_dir: Folder) -> Path:
    stems = ("asterisk_core_sounds_en_wav", "asterisk-core-sounds-en-wav-1.6.1", "en_US_f_Allison")
    places = _places(*stems, *(f"asterisk_speech/{stem}" for stem in stems))
    return paths.original("asterisk_speech", places, data_dir)


def _read_asterisk(path: Path) -> Reading:
    def speech(inside: str) -> bool:
        file = PurePosixPath(inside)
        return (
            file.suffix == ".wav" and file.parent.name != "silence" and file.stem not in _NO_SPEECH
        )

    # The folders above differ between the publishers' archives; the splits must not.
    found = {
        inside.partition("en_US_f_Allison/")[2] or inside: content
        for inside, content in files.members(path, speech)
    }
    splits: dict[str, list[Example]] = {"train": [], "valid": [], "test": []}
    for index, name in enumerate(sorted(found)):
        split = {8: "valid", 9: "test"}.get(index % 10, "train")
        samples = audio.waveform(found[name], 8_000, f"{path}: {name}")
        splits[split].append((name.removesuffix(".wav"), {"x": samples}))
    return Reading(str(path), splits, {"sample_rate": 8_000}, COUNTS["asterisk_speech"])


# LJ Speech


def _find_ljspeech(data_dir: Folder) -> Path:
    places = _places("LJSpeech-1.1", "ljspeech/LJSpeech-1.1")
    places += _places("LJSpeech-sample", "ljspeech_sample/LJSpeech-sample")
    places += _places("ljspeech_sample/ljspeech_sample")
    places += [f"ljspeech_sample{ending}" for ending in files.ARCHIVES]
    path = paths.original("ljspeech", [*places, "wavs/LJ001-0001.wav"], data_dir)
    return path.parent.parent if path.suffix == ".wav" else path  # The folder itself.


def _read_ljspeech(path: Path) -> Reading:
    whole = path.name.startswith("LJSpeech-1.1") or (path / "wavs" / "LJ002-0001.wav").is_file()
    recordings = _recordings(path, ljspeech_place if whole else ljspeech_sample_place, 22_050)
    return Reading(
        str(path),
        _sorted_out(recordings),
        {"sample_rate": 22_050, "version": "1.1" if whole else "a sample of 1.1"},
        COUNTS["ljspeech" if whole else "ljspeech sample"],
        "original" if whole else "sample",
    )


def _source(
    name: str,
    find: Callable[[Folder], Path],
    read: Callable[[Path], Reading],
    title: str,
    licence: str,
    origin: str,
    *downloads: Download,
    **labels: Column,
) -> Source:
    return Source(
        name=name,
        title=title,
        licence=licence,
        origin=origin,
        columns={"x": Column("int16", (None,), "the waveform"), **labels},
        digest=lambda data_dir: paths.stamp(find(data_dir)),
        read=lambda data_dir, unfinished: read(find(data_dir)),
        show=show,
        downloads=downloads,
    )


_FSDD_COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"

SOURCES = [
    _source(
        "timit",
        _find_timit,
        _read_timit,
        "TIMIT: sentences read by 630 Americans, 16 kHz; or NLTK's sample of 16 of them",
        "LDC's licence, for its holders; NLTK's sample: CC BY-NC-SA, (c) 1993 LDC",
        "LDC93S1, to be had from the Linguistic Data Consortium: the folder TIMIT with TRAIN and "
        "TEST; or NLTK's sample, the folder timit or timit_sample.tar.xz",
    ),
    _source(
        "fsdd",
        _find_fsdd,
        _read_fsdd,
        "Free Spoken Digit Dataset: 3,000 recordings of digits by 6 speakers, 8 kHz",
        "CC BY-SA 4.0",
        "github.com/Jakobovski/free-spoken-digit-dataset: the folder recordings, or an archive",
        Download(
            "free-spoken-digit-dataset.tar.gz",
            f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{_FSDD_COMMIT}.tar.gz",
        ),
        y=Column("uint8", (), "the digit"),
    ),
    _source(
        "asterisk_speech",
        _find_asterisk,
        _read_asterisk,
        "Asterisk's English prompts: 24 minutes by one professional speaker, 8 kHz",
        "CC BY-SA 3.0, (c) 2003-2010 Allison Smith, financed by Digium",
        "asterisk-core-sounds-en-wav 1.6.1: the folder en_US_f_Allison, or an archive",
        Download(
            "asterisk-core-sounds-en-wav-1.6.1.tar.gz",
            "https://downloads.asterisk.org/pub/telephony/sounds/releases/"
            "asterisk-core-sounds-en-wav-1.6.1.tar.gz",
        ),
    ),
    _source(
        "ljspeech",
        _find_ljspeech,
        _read_ljspeech,
        "LJ Speech: 24 hours of one reader, 22.05 kHz; or a sample of 32 recordings",
        "public domain",
        "keithito.com/LJ-Speech-Dataset: LJSpeech-1.1; or a sample, ljspeech_sample.tar.xz",
        Download(
            "LJSpeech-1.1.tar.bz2",
            "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
            2_748_572_632,
            "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
        ),
    ),
]
