"""Sound files: RIFF in all its forms and NIST SPHERE, whole and bad."""

import io
import os
import signal
import struct

import numpy as np
import pytest
from original_case import SOUND, riff, sphere

from data.sets import audio


@pytest.mark.parametrize(
    ("content", "rate"),
    [
        (riff(), 8000),
        (sphere(), 16000),
        (sphere(order="10"), 16000),
        (sphere(left_out=("sample_count", "sample_min", "sample_max")), 16000),
        (sphere(sample_coding="pcm"), 16000),
    ],
    ids=["riff", "sphere", "big-endian sphere", "no checks in the header", "coding named"],
)
def test_waveform(content, rate):
    found = audio.waveform(content, rate, "a.wav")
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, SOUND)


def test_waveform_with_other_chunks():
    content = riff()
    extra = b"LIST" + (4).to_bytes(4, "little") + b"INFO"
    size = int.from_bytes(content[4:8], "little") + len(extra)
    content = b"RIFF" + size.to_bytes(4, "little") + content[8:36] + extra + content[36:]
    np.testing.assert_array_equal(audio.waveform(content, 8000, "a.wav"), SOUND)


def chunks(*parts, tag=b"RIFF", size=None, order="<") -> bytes:
    """A RIFF file of chunks (name, content, size to be stated or None), by its definition."""
    body = b"WAVE"
    for name, content, stated in parts:
        stated = len(content) if stated is None else stated
        body += name + struct.pack(order + "I", stated) + content + bytes(len(content) % 2)
    return tag + struct.pack(order + "I", len(body) if size is None else size) + body


def head(dtype, code, channels=1, rate=8000, order="<") -> bytes:
    """A chunk ``fmt ``."""
    width = np.dtype(dtype).itemsize
    frame = channels * width
    return struct.pack(order + "HHIIHH", code, channels, rate, rate * frame, frame, 8 * width)


def form(values, dtype, code, channels=1) -> bytes:
    """A RIFF file of samples of this dtype and format code."""
    raw = np.asarray(values).astype(dtype).tobytes()
    return chunks((b"fmt ", head(dtype, code, channels), None), (b"data", raw, None))


def _of_24_bits(values) -> bytes:
    raw = b"".join(int(value).to_bytes(3, "little", signed=True) for value in values)
    fmt = struct.pack("<HHIIHH", 1, 1, 8000, 24000, 3, 24)
    return chunks((b"fmt ", fmt, None), (b"data", raw, None))


def _mu_law(code: int) -> int:
    """G.711: a sign, an exponent of 3 bits, a mantissa of 4; all inverted; of 14 bits."""
    code = ~code & 0xFF
    size = (((code & 15) << 1) + 33 << (code >> 4 & 7)) - 33
    return 4 * (-size if code & 0x80 else size)


def _a_law(code: int) -> int:
    """G.711: the same with every other bit inverted; of 13 bits."""
    code ^= 0x55
    exponent, mantissa = code >> 4 & 7, code & 15
    size = mantissa * 2 + 1 if not exponent else mantissa * 2 + 33 << exponent - 1
    return 8 * (size if code & 0x80 else -size)


CODES = np.arange(256)
WIDE = np.random.default_rng(0).integers(-(2**31), 2**31, 300)
FLOATS = np.array([0.0, 0.25, -1.0, 1.0, 1.2, -1.9, 1 / 32768, 0.4 / 32768, 0.6 / 32768])
HELD = [0, 8192, -32768, 32767, 32767, -32768, 1, 0, 1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (form(CODES, "u1", 1), (CODES - 128) * 256),
        (_of_24_bits(WIDE >> 8), np.clip(np.rint((WIDE >> 8) / 256), -32768, 32767)),
        (form(WIDE, "<i4", 1), np.clip(np.rint(WIDE / 65536), -32768, 32767)),
        (form(FLOATS, "<f4", 3), HELD),
        (form(FLOATS, "<f8", 3), HELD),
        (form(CODES, "u1", 7), [_mu_law(code) for code in CODES]),
        (form(CODES, "u1", 6), [_a_law(code) for code in CODES]),
        (form([[100, 200], [-5, -6], [32767, 32767]], "<i2", 1, 2), [150, -6, 32767]),
        (form([[3, 6, 9, 2, 2, 2]] * 2 + [[0] * 6], "<i2", 1, 6), [4, 4, 0]),
    ],
    ids=["8", "24", "32", "float32", "float64", "mu-law", "A-law", "stereo", "5.1"],
)
def test_forms_of_samples(content, expected):
    found = audio.waveform(content, 8000, "a.wav")
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, expected)


RAW = SOUND.tobytes()
EXTENSIBLE = (
    head("<i2", 0xFFFE)
    + struct.pack("<HHIH", 22, 16, 4, 1)
    + bytes.fromhex("000000001000800000aa00389b71")
)


def ds64(samples: int) -> bytes:
    return struct.pack("<QQQI", 0, samples, 0, 0)


@pytest.mark.parametrize(
    "content",
    [
        chunks((b"fmt ", EXTENSIBLE, None), (b"data", RAW, None)),
        chunks(
            (b"ds64", ds64(len(RAW)), None),
            (b"fmt ", head("<i2", 1), None),
            (b"data", RAW, 0xFFFFFFFF),
            (b"LIST", b"INFO", None),
            tag=b"RF64",
            size=0xFFFFFFFF,
        ),
        chunks(
            (b"ds64", ds64(0), None),
            (b"fmt ", head("<i2", 1), None),
            (b"data", RAW, 0xFFFFFFFF),
            tag=b"RF64",
            size=0xFFFFFFFF,
        ),
        chunks(
            (b"fmt ", head("<i2", 1, order=">"), None),
            (b"data", SOUND.astype(">i2").tobytes(), None),
            tag=b"RIFX",
            order=">",
        ),
        chunks((b"fmt ", head("<i2", 1), None), (b"data", RAW, 0), size=0),
        chunks((b"fmt ", head("<i2", 1), None), (b"data", RAW, 0xFFFFFFFF), size=0xFFFFFFFF),
        chunks((b"fmt ", head("<i2", 1), None), (b"data", RAW, 0x7FFFF000), size=0x7FFFF024),
        chunks((b"fmt ", head("<i2", 1), None), (b"data", RAW, None), size=0),
        chunks(
            (b"LIST", b"odd", None),
            (b"fmt ", head("<i2", 1), None),
            (b"fact", bytes(4), None),
            (b"data", RAW, None),
        ),
    ],
    ids=[
        "extensible",
        "RF64",
        "RF64 from a pipe",
        "RIFX",
        "size 0",
        "size 0xFFFFFFFF",
        "size of sox",
        "whole of size 0",
        "other chunks",
    ],
)
def test_forms_of_files(content):
    np.testing.assert_array_equal(audio.waveform(content, 8000, "a.wav"), SOUND)


def test_samples_of_size_0_before_another_chunk_are_none():
    content = chunks(
        (b"fmt ", head("<i2", 1), None), (b"data", b"", None), (b"LIST", b"INFO", None)
    )
    with pytest.raises(ValueError, match=r"^a\.wav: empty"):
        audio.waveform(content, 8000, "a.wav")


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 8000), (8000, 16000), (22050, 16000)])
def test_another_rate_is_resampled_if_that_is_asked_for(rate, wanted):
    """A tone keeps its pitch, its height and its length."""
    tone = [np.sin(2 * np.pi * 300 * np.arange(r // 2) / r) for r in (rate, wanted)]
    content = riff(np.rint(9000 * tone[0]), rate)
    found = audio.waveform(content, wanted, "a.wav", resample=True)
    assert found.dtype == np.int16
    assert len(found) == len(tone[1])
    inner = slice(200, -200)  # The ends ring.
    np.testing.assert_allclose(found[inner], 9000 * tone[1][inner], atol=40)
    with pytest.raises(ValueError, match=f"^a.wav: {rate} samples a second; there should be"):
        audio.waveform(content, wanted, "a.wav")


def test_a_reader_that_died_is_replaced():
    audio.waveform(riff(), 8000, "a.wav")
    os.kill(audio._reader()._child.pid, signal.SIGKILL)
    with pytest.raises(ValueError, match=r"^a\.wav: its reader ended by SIGKILL"):
        audio.waveform(riff(), 8000, "a.wav")
    np.testing.assert_array_equal(audio.waveform(riff(), 8000, "a.wav"), SOUND)


def test_reads_what_soundfile_writes():
    """Whole files of an independent writer, with all the chunks that it adds."""
    soundfile = pytest.importorskip("soundfile", reason="needs the package soundfile")
    rising = np.linspace(-0.9, 0.9, 999)
    for kind in ("WAV", "WAVEX", "RF64"):
        for subtype, step in (("PCM_16", 2e-5), ("PCM_24", 2e-5), ("FLOAT", 2e-5), ("ULAW", 0.02)):
            stream = io.BytesIO()
            soundfile.write(stream, rising, 8000, subtype, format=kind)
            found = audio.waveform(stream.getvalue(), 8000, "a.wav")
            np.testing.assert_allclose(found / 32768, rising, atol=2 * step)


def _with_format(code: int) -> bytes:
    content = riff()
    return content[:20] + code.to_bytes(2, "little") + content[22:]


@pytest.mark.parametrize(
    ("content", "rate", "message"),
    [
        (b"", 8000, r"neither a RIFF .* nor a NIST SPHERE file \(0 bytes\)"),
        (b"ID3\x04" + bytes(100), 8000, "neither a RIFF"),
        (riff(rate=44100), 8000, "44100 samples a second; there should be 8000"),
        (_with_format(0x7777), 8000, "no .wav file that can be read .*; convert it"),
        (form([1.5, 1e4], "<f4", 3), 8000, "its samples reach 10000, but the full scale .* is 1"),
        (form([0.5, np.nan], "<f8", 3), 8000, "its samples reach nan, but the full scale"),
        (form([0.5, -np.inf], "<f4", 3), 8000, "its samples reach inf, but the full scale"),
        (b"RIFF" + riff()[8:], 8000, "no whole .wav file"),
        (riff()[:36], 8000, r"no whole \.wav file \(36 bytes\); fetch it again"),
        (riff()[:-3], 8000, "cut short: 11 bytes of 'data' instead of 14; fetch it again"),
        (riff([]), 8000, "empty; it should hold at least one sample"),
        (riff(np.zeros(9)), 8000, "silent: every sample is 0"),
        (riff(np.full(9, -3)), 8000, "silent: every sample is -3"),
        (sphere(), 8000, "16000 samples a second; there should be 8000"),
        (sphere(channel_count=2), 16000, "2 channels"),
        (sphere(sample_n_bytes=1), 16000, "samples of 8 bits"),
        (sphere(sample_coding="ulaw"), 16000, "sample_coding is ulaw; it should be pcm"),
        (sphere(sample_coding="pcm,embedded-shorten-v2.00"), 16000, "it should be pcm: decode it"),
        (sphere(order="mu"), 16000, "sample_byte_format is mu; it should be 01 or 10"),
        (sphere(sample_count=8), 16000, "14 bytes of samples instead of 16"),
        (sphere(sample_count=6), 16000, "14 bytes of samples instead of 12"),
        (sphere(sample_min=-32767), 16000, "its sample_min is -32768, but its header says -32767"),
        (sphere(sample_max=1), 16000, "its sample_max is 32767, but its header says 1"),
        (sphere(sample_rate="fast"), 16000, "no number sample_rate"),
        (sphere(left_out=["channel_count"]), 16000, "no number channel_count"),
        (sphere().replace(b"end_head", b"       "), 16000, "header is cut short or damaged"),
        (sphere().replace(b"    512", b"    x12"), 16000, "header is cut short or damaged"),
        (sphere().replace(b"    512", b"-999999"), 16000, "header is cut short or damaged"),
        (sphere([]), 16000, "empty"),
        (sphere(np.zeros(9)), 16000, "silent"),
    ],
)
def test_bad_sound(content, rate, message):
    with pytest.raises(ValueError, match=rf"^here/a\.wav: .*{message}") as caught:
        audio.waveform(content, rate, "here/a.wav")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "rate"), [(riff(), 8000), (sphere(), 16000)])
def test_cut_short_anywhere(content, rate):
    for end in range(len(content)):
        with pytest.raises(ValueError, match=r"^a\.wav: "):
            audio.waveform(content[:end], rate, "a.wav")


@pytest.mark.parametrize(("content", "rate"), [(riff(), 8000), (sphere(), 16000)])
def test_flipped_bit_anywhere(content, rate):
    """Nothing but a ValueError; and a SPHERE file's extremes are never taken for others."""
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = audio.waveform(bytes(flipped), rate, "a.wav")
        except ValueError as error:
            assert str(error).startswith("a.wav: ")  # noqa: PT017
        else:
            assert found.dtype == np.int16


def test_bars():
    assert audio.bars(np.array([0, 0, 100, -100, 0, 50], np.int16), 3) == "▁█▄"
    assert audio.bars(np.array([-32768, 1], np.int16), 72) == "█▁"
