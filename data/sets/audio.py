"""Waveforms out of sound files: RIFF (``.wav``) of any form that is in use, and NIST SPHERE.

RIFF files are read by libsndfile, in a child process (see :mod:`data.guarded`): 8 to 32 bits,
float, μ-law, A-law and the packed forms, one channel or more, also as ``WAVE_FORMAT_EXTENSIBLE``,
RF64 and RIFX, and with the sizes of a program that wrote into a pipe and did not know its length.
A file of another form, or cut short, damaged, empty or silent, is a ``ValueError`` that names it.
"""

import base64
import functools
import importlib.util
import io
import math

import numpy as np

from data import files, guarded

_RIFF = (b"RIFF", b"RIFX", b"RF64")
_ENDLESS = 0x7FFF_F000
"""A size from here on was written for want of a better one: sox writes this, others 2**32 - 1."""
_LOUDEST = 2.0
_BLOCK = 1 << 20
_SPHERE = b"NIST_1A\n"
_ORDERS = {"01": "<i2", "10": ">i2"}
_BARS = "▁▂▃▄▅▆▇█"


def waveform(content: bytes, rate: int, where: str, *, resample: bool = False) -> np.ndarray:
    """Reads a sound file as one channel of 16-bit samples.

    More channels are averaged. Samples of another width are rounded to 16 bits; those of a float
    file are clipped to ±1. A RIFF file holds no checksum of its samples. The header of a SPHERE
    file may hold their number, their least and their greatest value, which then must be right.

    Args:
        content: of the file.
        rate: the samples a second that it must have.
        where: its name, for errors.
        resample: whether a file of another rate is brought to `rate`, by a polyphase filter; it is
            an error otherwise. Needs scipy.

    Returns:
        int16 ``[T]``, T >= 1.

    Raises:
        ValueError: it is no such file, or not whole; or it holds no sound.
        FileNotFoundError: the package soundfile is missing.
    """
    samples, found = read(content, where)
    if found != rate and not resample:
        raise ValueError(
            f"{where}: {found} samples a second; there should be {rate}: resample it, or take a "
            "copy that is not resampled"
        )
    if not len(samples):
        raise ValueError(f"{where}: empty; it should hold at least one sample")
    if (samples == samples[0]).all():
        raise ValueError(f"{where}: silent: every sample is {samples[0]}; it should hold sound")
    return samples if found == rate else _resampled(samples, found, rate)


def read(content: bytes, where: str) -> tuple[np.ndarray, int]:
    """The samples of a sound file, int16 ``[T]``, see `waveform`; and how many are a second.

    Raises:
        ValueError: it is no such file, or not whole.
        FileNotFoundError: the package soundfile is missing.
    """
    if content.startswith(_RIFF):
        return _riff(content, where)
    if content.startswith(_SPHERE):
        return _sphere(content, where)
    raise ValueError(
        f"{where}: neither a RIFF (.wav) nor a NIST SPHERE file ({len(content)} bytes); "
        + files.cure(content).replace("fetch it again", "convert it to .wav")
    )


def bars(samples: np.ndarray, columns: int = 72) -> str:
    """The envelope of a waveform ``[T]`` as one line: a bar shows the peak of its stretch."""
    parts = np.array_split(np.abs(samples.astype(np.int32)), min(columns, len(samples)))
    peaks = np.array([part.max() for part in parts])
    return "".join(_BARS[height] for height in peaks * len(_BARS) // (peaks.max() + 1))


def _resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    from scipy.signal import resample_poly

    common = math.gcd(rate, wanted)
    found = resample_poly(samples.astype(np.float64), wanted // common, rate // common)
    return np.clip(np.rint(found), -32768, 32767).astype(np.int16)


def _riff(content: bytes, where: str) -> tuple[np.ndarray, int]:
    if importlib.util.find_spec("soundfile") is None:
        raise FileNotFoundError(
            f"{where}: reading .wav needs the package soundfile; pip install soundfile"
        )
    whole = base64.b64encode(_mended(content, where)).decode()
    reader = _reader()
    try:
        rate, (record,) = reader(where, whole, where)
    except ValueError:
        if not reader.alive:  # The next file gets a new one.
            _reader.cache_clear()
        raise
    return record["x"], rate


@functools.cache
def _reader() -> guarded.Reader:
    return guarded.Reader(f"{__name__}:decode")


def decode(content: str, where: str) -> guarded.Answer:
    """Reads a RIFF file, given in base64; runs in a child, as libsndfile decodes in native code.

    Returns:
        The samples a second; ``x`` int16 ``[T]``.

    Raises:
        ValueError: it is damaged, of another form, or not on the scale of its form.
    """
    import soundfile

    blocks, peak = [np.zeros(0, np.int16)], 0.0
    try:
        with soundfile.SoundFile(io.BytesIO(base64.b64decode(content))) as sound:
            for block in sound.blocks(_BLOCK, dtype="float64", always_2d=True):
                mono = block.mean(1)
                peak = float(np.maximum(peak, np.abs(mono).max(initial=0)))  # NaN stays NaN.
                if not peak <= _LOUDEST:
                    break
                blocks.append(np.clip(np.rint(mono * 32768), -32768, 32767).astype(np.int16))
            rate = sound.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = str(error).removeprefix("Error opening ").rpartition(">: ")[2]
        raise ValueError(
            f"{where}: no .wav file that can be read ({reason}); convert it"
        ) from error
    if not peak <= _LOUDEST:
        raise ValueError(
            f"{where}: its samples reach {peak:g}, but the full scale of a float file is 1; "
            "divide them by their peak"
        )
    return rate, [{"x": np.concatenate(blocks)}]


def _mended(content: bytes, where: str) -> bytes:
    """A RIFF file of the chunks that matter alone, with their true sizes.

    Raises:
        ValueError: it is cut short, or has no samples.
    """
    order = "big" if content.startswith(b"RIFX") else "little"

    def number(place: int, size: int = 4) -> int:
        return int.from_bytes(content[place : place + size], order)

    chunks, place, promised = {}, 12 if content[8:12] == b"WAVE" else len(content), 0
    while place + 8 <= len(content) and b"data" not in chunks:
        name, size, start = content[place : place + 4], number(place + 4), place + 8
        left = len(content) - start
        if name == b"ds64":  # Of RF64: the sizes in 64 bits; the second is that of the samples.
            promised = number(start + 8, 8)
        elif name == b"data":
            if size == 0xFFFF_FFFF and promised:
                size = promised
            elif (size >= _ENDLESS and size > left) or (not size and not _ends(content, start)):
                size = left
        if size > left:
            raise ValueError(
                f"{where}: cut short: {left} bytes of {name.decode('latin1')!r} instead of {size}; "
                "fetch it again"
            )
        chunks[name] = content[start : start + size]
        place = start + size + size % 2
    if not chunks.keys() >= {b"fmt ", b"data"}:
        raise ValueError(f"{where}: no whole .wav file ({len(content)} bytes); fetch it again")
    parts = [
        name + len(chunks[name]).to_bytes(4, order) + chunks[name] + bytes(len(chunks[name]) % 2)
        for name in (b"fmt ", b"fact", b"data")
        if name in chunks
    ]
    body = b"WAVE" + b"".join(parts)
    return (b"RIFX" if order == "big" else b"RIFF") + len(body).to_bytes(4, order) + body


def _ends(content: bytes, place: int) -> bool:
    """Whether nothing but whole chunks follows: then samples of size 0 are none."""
    while place + 8 <= len(content):
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    return place >= len(content) and place - len(content) <= 1


def _sphere(content: bytes, where: str) -> tuple[np.ndarray, int]:
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
    channels, width = number("channel_count"), number("sample_n_bytes")
    if channels != 1:
        raise ValueError(f"{where}: {channels} channels; it should be mono")
    if width != 2:
        raise ValueError(f"{where}: samples of {8 * width} bits; they should have 16")
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
    return samples, number("sample_rate")


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
