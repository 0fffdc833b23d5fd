"""Sound files: RIFF and NIST SPHERE, whole and bad."""

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


def _with_format(code: int) -> bytes:
    content = riff()
    return content[:20] + code.to_bytes(2, "little") + content[22:]


@pytest.mark.parametrize(
    ("content", "rate", "message"),
    [
        (b"", 8000, r"neither a RIFF .* nor a NIST SPHERE file \(0 bytes\)"),
        (b"ID3\x04" + bytes(100), 8000, "neither a RIFF"),
        (riff(rate=44100), 8000, "44100 samples a second; there should be 8000"),
        (riff(SOUND[:6], channels=2), 8000, "2 channels; it should be mono"),
        (riff(np.arange(8), dtype=np.uint8), 8000, "samples of 8 bits; they should have 16"),
        (riff(np.arange(8), dtype="<i4"), 8000, "samples of 32 bits"),
        (_with_format(7), 8000, "not a whole PCM .wav file"),
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
