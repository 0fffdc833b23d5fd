"""Waveforms out of sound files: one channel of 16-bit samples, in RIFF (``.wav``) or NIST SPHERE.

A file of another form, or cut short, damaged, empty or silent, is a ``ValueError`` that names it.
"""

import io
import wave

import numpy as np

_SPHERE = b"NIST_1A\n"
_ORDERS = {"01": "<i2", "10": ">i2"}
_BARS = "▁▂▃▄▅▆▇█"


def waveform(content: bytes, rate: int, where: str) -> np.ndarray:
    """Reads a sound file.

    A RIFF file holds no checksum of its samples. The header of a SPHERE file may hold their number,
    their least and their greatest value, which then must be right.

    Args:
        content: of the file.
        rate: the samples a second that it must have.
        where: its name, for errors.

    Returns:
        int16 ``[T]``, T >= 1.

    Raises:
        ValueError: it is no such file, or not whole; or it holds no sound.
    """
    if content.startswith(b"RIFF"):
        samples = _riff(content, rate, where)
    elif content.startswith(_SPHERE):
        samples = _sphere(content, rate, where)
    else:
        raise ValueError(
            f"{where}: neither a RIFF (.wav) nor a NIST SPHERE file ({len(content)} bytes); "
            "fetch it again"
        )
    if not len(samples):
        raise ValueError(f"{where}: empty; it should hold at least one sample")
    if (samples == samples[0]).all():
        raise ValueError(f"{where}: silent: every sample is {samples[0]}; it should hold sound")
    return samples


def bars(samples: np.ndarray, columns: int = 72) -> str:
    """The envelope of a waveform ``[T]`` as one line: a bar shows the peak of its stretch."""
    parts = np.array_split(np.abs(samples.astype(np.int32)), min(columns, len(samples)))
    peaks = np.array([part.max() for part in parts])
    return "".join(_BARS[height] for height in peaks * len(_BARS) // (peaks.max() + 1))


def _riff(content: bytes, rate: int, where: str) -> np.ndarray:
    try:
        with wave.open(io.BytesIO(content)) as sound:
            _check_form(
                sound.getnchannels(), sound.getsampwidth(), sound.getframerate(), rate, where
            )
            count = sound.getnframes()
            raw = sound.readframes(count)
    except (wave.Error, EOFError, RuntimeError) as error:  # The last for a chunk of a wrong size.
        reason = str(error) or "it ends too early"
        raise ValueError(
            f"{where}: not a whole PCM .wav file ({reason}); convert it or fetch it again"
        ) from error
    if len(raw) != 2 * count:
        raise ValueError(
            f"{where}: cut short: {len(raw)} bytes of samples instead of {2 * count}; "
            "fetch it again"
        )
    return np.frombuffer(raw, "<i2").astype(np.int16)


def _sphere(content: bytes, rate: int, where: str) -> np.ndarray:
    fields, start = _sphere_header(content, where)

    def number(name: str) -> int:
        try:
            return int(fields[name])
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{where}: its SPHERE header has no number {name} ({fields.get(name)!r}); "
                "fetch it again"
            ) from error

    coding = fields.get("sample_coding", "pcm")
    if coding != "pcm":
        raise ValueError(
            f"{where}: sample_coding is {coding}; it should be pcm: decode it, as sph2pipe does"
        )
    _check_form(
        number("channel_count"), number("sample_n_bytes"), number("sample_rate"), rate, where
    )
    order = fields.get("sample_byte_format")
    if order not in _ORDERS:
        raise ValueError(f"{where}: sample_byte_format is {order}; it should be 01 or 10")
    raw = content[start:]
    count = number("sample_count") if "sample_count" in fields else len(raw) // 2
    if len(raw) != 2 * count:
        raise ValueError(
            f"{where}: cut short or damaged: {len(raw)} bytes of samples instead of {2 * count}; "
            "fetch it again"
        )
    samples = np.frombuffer(raw, _ORDERS[order]).astype(np.int16)
    for name, find in (("sample_min", np.min), ("sample_max", np.max)):
        if name in fields and count and find(samples) != number(name):
            raise ValueError(
                f"{where}: damaged: its {name} is {find(samples)}, but its header says "
                f"{number(name)}; fetch it again"
            )
    return samples


def _sphere_header(content: bytes, where: str) -> tuple[dict[str, str], int]:
    """The fields of the header by name, and where the samples begin."""
    try:
        start = int(content[len(_SPHERE) : 16])
    except ValueError:
        start = 0
    head, end, _ = content[16 : max(start, 0)].partition(b"end_head")
    if not end:
        raise ValueError(f"{where}: its SPHERE header is cut short or damaged; fetch it again")
    fields = {}
    for line in head.decode("latin1").splitlines():
        # A name, the kind of the value (-i, -r or -s and its length), and the value.
        name, _, value = line.strip().partition(" ")
        fields[name] = value.partition(" ")[2].strip()
    return fields, start


def _check_form(channels: int, width: int, rate: int, wanted: int, where: str) -> None:
    if channels != 1:
        raise ValueError(f"{where}: {channels} channels; it should be mono")
    if width != 2:
        raise ValueError(f"{where}: samples of {8 * width} bits; they should have 16")
    if rate != wanted:
        raise ValueError(f"{where}: {rate} samples a second; there should be {wanted}")
