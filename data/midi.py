"""Standard MIDI files of others, read in plain Python: the notes, in quarter notes' ticks.

Sizes and times in a file are not believed: a file gives its notes or a ``ValueError``.
"""

from collections import defaultdict
from typing import NamedTuple

LARGEST = 1 << 24
"""Bytes of the largest file that is read; the longest pieces take about a hundredth of it."""

DRUMS = 9
"""The channel on which General MIDI has drums, counted from 0."""

_LONGEST = 1 << 30  # Ticks: weeks of music.
_END = 0x2F
_PAIRS = (0x80, 0x90, 0xA0, 0xB0, 0xE0)


class Note(NamedTuple):
    """A note from `start` to `end`, in ticks; `key` is its MIDI number, 0 to 127."""

    start: int
    end: int
    key: int
    channel: int


class Score(NamedTuple):
    """All notes of a file, in the order in which they begin, and the ticks of a quarter note."""

    notes: list[Note]
    ticks_per_quarter: int


def parse(content: bytes) -> Score:
    """Reads a file of format 0 or 1; the tracks of format 1 sound together.

    Tempo, pedals, velocities and instruments are not looked at. A note that is struck twice before
    it ends, ends first in, first out; one that is never ended lasts to the end of its track.

    Raises:
        ValueError: it is no such file, or not whole; the message does not name it.
    """
    if not content.startswith(b"MThd"):
        raise ValueError("it does not begin as one")
    if len(content) > LARGEST:
        raise ValueError(f"{len(content)} bytes, more than a MIDI file has")
    head, place = _chunk(content, 0)
    if len(head) < 6:
        raise ValueError("its header is cut short")
    form, tracks, division = (int.from_bytes(head[i : i + 2], "big") for i in (0, 2, 4))
    if form > 1:
        raise ValueError(f"it has format {form}; 0 and 1 are read: save it anew as format 1")
    if not 0 < division < 0x8000:
        raise ValueError("its time is not in quarter notes; save it anew with ticks a quarter")
    notes: list[Note] = []
    found = 0
    while place < len(content) and found < tracks:
        kind = content[place : place + 4]
        body, place = _chunk(content, place)
        if kind == b"MTrk":
            notes += _track(body)
            found += 1
    if found < tracks:
        raise ValueError(f"cut short: it holds {found} of its {tracks} tracks")
    return Score(sorted(notes), division)


def _chunk(content: bytes, place: int) -> tuple[bytes, int]:
    """The bytes of the chunk that begins here, and where the next one begins."""
    if len(content) < place + 8:
        raise ValueError("cut short: it ends within the head of a track")
    end = place + 8 + int.from_bytes(content[place + 4 : place + 8], "big")
    if len(content) < end:
        raise ValueError(f"cut short: a track should have {end - place - 8} bytes")
    return content[place + 8 : end], end


def _track(body: bytes) -> list[Note]:
    notes: list[Note] = []
    sounding: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    now, place, status = 0, 0, 0
    try:
        while place < len(body):
            wait, place = _number(body, place)
            now += wait
            if now > _LONGEST:
                raise ValueError("damaged: its times are longer than any music")
            if body[place] & 0x80:
                event = body[place]
                place += 1
            else:  # The same kind as before.
                event = status
            if event in (0xF0, 0xF7, 0xFF):
                kind = body[place] if event == 0xFF else None
                size, place = _number(body, place + (event == 0xFF))
                place += size
                if place > len(body):
                    raise IndexError
                if kind == _END:
                    break
                continue
            if not 0x80 <= event < 0xF0:
                raise ValueError(f"damaged: a track has the event {event:#04x}")
            status = event
            kind, channel = event & 0xF0, event & 0x0F
            values = body[place : place + 1 + (kind in _PAIRS)]
            place += 1 + (kind in _PAIRS)
            if place > len(body):
                raise IndexError
            if max(values) > 0x7F:
                raise ValueError(f"damaged: an event {event:#04x} has the value {max(values)}")
            if kind == 0x90 and values[1]:
                sounding[channel, values[0]].append(now)
            elif kind in (0x80, 0x90) and (starts := sounding[channel, values[0]]):
                notes.append(Note(starts.pop(0), now, values[0], channel))
    except IndexError:
        raise ValueError("cut short: a track ends within an event") from None
    for (channel, key), starts in sounding.items():
        notes += [Note(start, now, key, channel) for start in starts]
    return notes


def _number(body: bytes, place: int) -> tuple[int, int]:
    """A number of one to four bytes, of seven bits each, and the place after it."""
    value = 0
    for end in range(place, place + 4):
        value = value << 7 | body[end] & 0x7F
        if body[end] < 0x80:
            return value, end + 1
    raise ValueError("damaged: a number in a track has more than four bytes")
