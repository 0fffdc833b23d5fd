"""A folder of WAV files."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from data.sets import audio, speech
from data.sets.own import files
from data.source import SPLITS, Column, Source

ENDINGS = (".wav",)

_SPHERE_RATE = re.compile(rb"sample_rate -i (\d{1,9})\s")


def rate_of(content: bytes, where: str) -> int:
    """The samples a second that the head of a sound file states.

    Raises:
        ValueError: it states none.
    """
    if content.startswith(b"NIST_1A\n"):
        found = _SPHERE_RATE.search(content[:1024])
        rate = int(found[1]) if found else 0
    else:
        rate, place = 0, 12
        order = "big" if content.startswith(b"RIFX") else "little"
        while content[:4] in (b"RIFF", b"RIFX", b"RF64") and place + 16 <= len(content):
            if content[place : place + 4] == b"fmt ":
                rate = int.from_bytes(content[place + 12 : place + 16], order)
                break
            size = int.from_bytes(content[place + 4 : place + 8], order)
            place += 8 + size + size % 2
    if not rate:
        raise ValueError(
            f"{where}: not a whole .wav file ({len(content)} bytes, without a sample rate); "
            "save it again, or take it away"
        )
    return rate


def find(path: Path) -> files.Files:
    """The WAV files of a folder."""
    return files.in_folder(path, ENDINGS)


def source(path: Path, *, split_seed: int) -> Source:
    """A folder of WAV files; a recording an example.

    Files of other sample rates than most have are brought to theirs; how many is a fact of the set.

    Raises:
        OSError: no such folder.
        ValueError: too few files in it.
    """
    found = find(path)

    def read() -> tuple[dict[str, Any], dict[str, Any]]:
        split, facts = files.by_file(found, split_seed)
        rates = Counter(rate_of(found.content(name), found.where(name)) for name in found.digests)
        rate = max(rates, key=lambda rate: (rates[rate], rate))
        if others := rates.total() - rates[rate]:
            facts = {"resampled": f"{others} of {rates.total()} files", **facts}

        def recording(content: bytes, where: str) -> dict[str, np.ndarray]:
            return {"x": audio.waveform(content, rate, where, resample=True)}

        splits = {part: files.examples(found, split[part], recording) for part in SPLITS}
        return splits, {"sample_rate": rate, **facts}

    return files.make(
        found,
        f"{len(found.digests)} WAV files of your own",
        {"x": Column("int16", (None,), "the waveform")},
        read,
        speech.show,
        (split_seed,),
    )
