"""Small files of one's own: MIDI, WAV, texts and arrays, for the tests of ``--data``."""

import struct
from pathlib import Path

import numpy as np
from original_case import riff


def midi(
    notes: list[tuple[int, int, int]], channel: int = 0, form: int = 0, division: int = 480
) -> bytes:
    """A file of one track: start, note, and length, in ticks of which a quarter has 480."""
    events = [(start, 0x90 | channel, note) for start, note, _ in notes]
    events += [(start + length, 0x80 | channel, note) for start, note, length in notes]
    track, now = b"", 0
    for time, status, note in sorted(events):
        ticks, now = time - now, time
        track += bytes([0x80 | ticks >> 7, ticks & 0x7F, status, note, 64])
    track += b"\x00\xff\x2f\x00"
    head = struct.pack(">IHHH", 6, form, 1, division)
    return b"".join([b"MThd", head, b"MTrk", struct.pack(">I", len(track)), track])


def midi_folder(folder: Path, count: int = 10, steps: int = 12) -> Path:
    """A folder of different pieces, each of eighth notes."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        notes = [(240 * j, 60 + (i * j + i) % 20, 240) for j in range(steps)]
        (folder / f"piece{i}.mid").write_bytes(midi(notes))
    return folder


def samples(i: int, length: int = 1200) -> np.ndarray:
    """A tone in noise, int16."""
    noise = np.random.default_rng(i).normal(0, 100, length)
    return (3000 * np.sin(np.arange(length) / (3 + i)) + noise).astype(np.int16)


def wav_folder(folder: Path, count: int = 10, length: int = 1200) -> Path:
    """A folder of different tones at 8,000 samples a second."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"tone{i}.wav").write_bytes(riff(samples(i, length)))
    return folder


def text_file(path: Path, lines: int = 400) -> Path:
    """A text of ten words, of which some are not ASCII."""
    words = ["der", "Wind", "weht", "über", "die", "Häuser", "und", "das", "Meer", "heute"]
    drawn = np.random.default_rng(0).choice(words, (lines, 8))
    path.write_text("\n".join(" ".join(line) for line in drawn), "utf-8")
    return path


def arrays(task: str, count: int = 30, steps: int = 12) -> dict[str, np.ndarray]:
    """Arrays that pose a task of ``data.sets.own.arrays.TASKS``; for tagging, tokens."""
    random = np.random.default_rng(0)
    x = random.normal(size=(count, steps, 3))
    lengths = random.integers(4, steps + 1, count)
    return {
        "classify": {"x": x, "y": (x.sum((1, 2)) > 0).astype(int)},
        "tag": {
            "x": random.integers(0, 7, (count, steps)),
            "y": random.integers(0, 3, (count, steps)),
            "lengths": lengths,
        },
        "estimate": {"x": x, "y": x.mean(1)[:, :2], "lengths": lengths},
        "track": {"x": x, "y": np.cumsum(x, 1)[..., :1], "lengths": lengths},
    }[task]


def npz_file(path: Path, **given: np.ndarray) -> Path:
    """An archive of these arrays."""
    np.savez(path, **given)
    return path
