"""Grows the snakes of Pathfinder: many images at once, each on a map of its own.

Linsley et al. (2018); the rules are those of the authors' generator. See ``lookup`` for the
tables and the form of the maps.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from data.sets.pathfinder.lookup import DEGREES, Recipe, Tables, tables

TRIES = 3
"""For a start, and for each dash."""

DISTRACTOR_TRIES = 5

_LEAST_FREE = 0.01
"""No distractor starts in an image with a smaller fraction of free pixels."""

_FREE = 76
"""A pixel of ``taken`` up to this, 0.3 of one, is free for a start."""

_AT_ONCE = 2**24
"""About so many bytes of ``taken`` are in work at once."""


class Maps(NamedTuple):
    """The maps of N images; each uint8 ``[N, row * row]``.

    Attributes:
        taken: what the footprints cover.
        near: the same, dilated.
    """

    taken: np.ndarray
    near: np.ndarray

    def of(self, numbers: np.ndarray) -> "Maps":
        """A copy of some of them."""
        return Maps(self.taken[numbers], self.near[numbers])


class Ends(NamedTuple):
    """The current ends of growing snakes; each int64 ``[N]``.

    Attributes:
        pivot: the place around which the last dash was turned.
        way: the last dash's.
        place: the pixel that it is drawn from.
    """

    pivot: np.ndarray
    way: np.ndarray
    place: np.ndarray


class Snakes(NamedTuple):
    """Snakes that have reached their length, on N maps.

    Attributes:
        map: int64 ``[N]``, which of the maps.
        places: int64 ``[N, snakes, dashes]``, the pixel each dash is drawn from, as a place on the
            first map: the tail of the first dash, the heads of the others.
        ways: int64 ``[N, snakes, dashes]``.
    """

    map: np.ndarray
    places: np.ndarray
    ways: np.ndarray


def grow(
    t: Tables, maps: Maps, ends: list[Ends], length: int, random: np.random.Generator
) -> Snakes:
    """Grows the snakes of N maps, a dash each in turn, until they are long enough or one cannot.

    Args:
        t: the tables.
        maps: of N images; the dashes are marked in them.
        ends: of each of a map's snakes, after its first dash; places on their own map.
        length: in dashes.
        random: the source of chance.
    """
    flat = Maps(maps.taken.reshape(-1), maps.near.reshape(-1))
    map_of = np.arange(len(maps.taken))
    first = map_of * t.size
    ends = [Ends(end.pivot + first, end.way, end.place + first) for end in ends]
    history = np.empty((2, len(map_of), len(ends), length), np.int64)
    for number, end in enumerate(ends):
        history[:, :, number, 0] = end.place - first, end.way
    for dash in range(1, length):
        for number in range(len(ends)):
            kept, new = _extend(t, flat, ends[number], random)
            map_of = map_of[kept]
            ends = [Ends(*(values[kept] for values in end)) for end in ends]
            # The newest dash is not marked yet: the next one has to join it.
            _mark(t, flat, ends[number])
            ends[number] = new
            history[:, map_of, number, dash] = new.place - map_of * t.size, new.way
    # The last dash of the first of two snakes stays unmarked, as in the authors' generator.
    _mark(t, flat, ends[-1])
    return Snakes(map_of, *history[:, map_of])


def pairs(t: Tables, count: int, random: np.random.Generator) -> list[Ends]:
    """Starts of two target snakes each, on empty maps.

    Args:
        t: the tables.
        count: how many are tried; not all of them have room.
        random: the source of chance.
    """
    recipe = t.recipe
    places, counts = _first_places(recipe, t.margin)

    def first(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        way = random.integers(DEGREES, size=len(number))
        tail = places[way, (random.random(len(number)) * counts[way]).astype(np.int64)]
        return tail, np.where(counts[way] > 0, way, -1)

    def second(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        way, towards = random.integers(DEGREES, size=(2, len(number)))
        towards = towards * np.pi / 180
        aside = recipe.apart * np.stack([np.sin(towards), np.cos(towards)], -1)
        return np.rint(tails[number] + aside).astype(np.int64), way

    _, tails, ways = _place_starts(t, count, first)
    both, *others = _place_starts(t, len(tails), second)
    return [_ends(t, tails[both], ways[both]), _ends(t, *others)]


def targets(t: Tables, count: int, random: np.random.Generator) -> tuple[Maps, Snakes]:
    """Pairs of target snakes; failed ones are dropped and tried again.

    Returns:
        The maps that they leave, and the snakes, ``[count, 2, dashes]``; ``map`` counts them.
    """
    usable = sum(len(pixels) > 0 for pixels in t.full)
    attempts = _AT_ONCE // t.size * DEGREES // usable
    found: list[tuple[np.ndarray, ...]] = []
    while sum(len(taken) for taken, *_ in found) < count:
        pair = pairs(t, attempts, random)
        maps = Maps(*(np.tile(empty, (len(pair[0].way), 1)) for empty in (t.taken, t.near)))
        snakes = grow(t, maps, pair, t.recipe.dashes, random)
        found.append((*maps.of(snakes.map), snakes.places, snakes.ways))
    taken, near, places, ways = (
        np.concatenate(parts)[:count] for parts in zip(*found, strict=True)
    )
    return Maps(taken, near), Snakes(np.arange(count), places, ways)


def distractors(t: Tables, maps: Maps, random: np.random.Generator) -> Iterator[Snakes]:
    """Adds one distractor after another to N images, where there is room.

    Args:
        t: the tables.
        maps: of the images; the dashes are marked in them.
        random: the source of chance.

    Yields:
        Distractors ``[n, 1, dashes]``, on different maps.
    """
    for _ in range(t.recipe.distractors):
        waiting = np.arange(len(maps.taken))
        for _ in range(DISTRACTOR_TRIES):
            started, end = _start_distractors(t, maps.taken[waiting], random)
            tried = maps.of(waiting[started])
            snakes = grow(t, tried, [end], t.recipe.distractor_dashes, random)
            placed = waiting[started[snakes.map]]
            for whole, grown in zip(maps, tried.of(snakes.map), strict=True):
                whole[placed] = grown
            yield snakes._replace(map=placed)
            waiting = np.setdiff1d(waiting, placed)


def weigh_candidates(
    t: Tables, near: np.ndarray, ends: Ends
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The candidates for the next dash's head, and their weights.

    Args:
        t: the tables.
        near: uint8, the maps end to end.
        ends: of N snakes.

    Returns:
        The next pivots int64 ``[N]``; the candidates for the head, int64 ``[N, C]``; how likely
        each is chosen, times 255 and a factor of the snake, float64 ``[N, C]``.
    """
    pivot = ends.pivot + t.step[ends.way]
    heads = pivot[:, None] + t.candidates[ends.way]
    return pivot, heads, t.weights[ends.way] * (255 - near[heads])


def _extend(
    t: Tables, maps: Maps, ends: Ends, random: np.random.Generator
) -> tuple[np.ndarray, Ends]:
    """Which of the snakes got another dash, and their new ends."""
    pivot, heads, weights = weigh_candidates(t, maps.near, ends)
    sums = np.cumsum(weights, 1)
    way, place = np.full((2, len(pivot)), -1)
    waiting = np.flatnonzero(sums[:, -1] >= 1e-4 * 255)
    for _ in range(TRIES):
        drawn = random.random(len(waiting)) * sums[waiting, -1]
        chosen = (sums[waiting] > drawn[:, None]).argmax(1)
        new = t.turned[ends.way[waiting], chosen]
        head = heads[waiting, chosen]
        fits = (maps.taken[head[:, None] + t.limit.at[new]] <= t.limit.values[new]).all(1)
        way[waiting[fits]], place[waiting[fits]] = new[fits], head[fits]
        waiting = waiting[~fits]
    kept = np.flatnonzero(way >= 0)
    return kept, Ends(pivot[kept], way[kept], place[kept])


def _mark(t: Tables, maps: Maps, ends: Ends) -> None:
    for where, marks in zip(maps, (t.footprint, t.dilated), strict=True):
        at = ends.place[:, None] + marks.at[ends.way]
        where[at] = np.maximum(where[at], marks.values[ends.way])


def _start_distractors(
    t: Tables, taken: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, Ends]:
    """The starts of distractors: on which of the maps, and their ends."""
    blocked = t.image(taken) > _FREE
    crowded = (~blocked).mean((1, 2)) < _LEAST_FREE
    blocked = _block_border(blocked, 1)

    def draw(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ways = random.integers(DEGREES, size=len(number))
        tails = np.zeros((len(number), 2), np.int64)
        for row, image in enumerate(number):
            free = _free(t, blocked[image], ways[row])
            if crowded[image] or not len(free):
                ways[row] = -1
            else:
                tails[row] = free[int(random.random() * len(free))]
        return tails, ways

    started, tails, ways = _place_starts(t, len(taken), draw)
    return started, _ends(t, tails, ways)


def _place_starts(
    t: Tables, count: int, draw: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws first dashes until they lie in the image or the tries are used up.

    Args:
        t: the tables.
        count: of dashes.
        draw: gives tails and ways for these of them, way -1 where there is no room at all.

    Returns:
        Which have succeeded, and their tails and ways.
    """
    tails, ways = np.zeros((count, 2), np.int64), np.full(count, -1)
    waiting = np.arange(count)
    for _ in range(TRIES):
        tail, way = draw(waiting)
        ends = np.concatenate([tail + t.head[way], tail + t.pivot[way]], 1)
        inside = ((ends >= 0) & (ends < t.recipe.side)).all(1)
        done = waiting[inside & (way >= 0)]
        tails[done], ways[done] = tail[inside & (way >= 0)], way[inside & (way >= 0)]
        waiting = waiting[~inside & (way >= 0)]
    done = np.flatnonzero(ways >= 0)
    return done, tails[done], ways[done]


def _ends(t: Tables, tails: np.ndarray, ways: np.ndarray) -> Ends:
    return Ends(t.place(tails + t.pivot[ways]), ways, t.place(tails))


@cache
def _first_places(recipe: Recipe, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a first target may start: tails int64 ``[360, most, 2]``, their number ``[360]``."""
    t = tables(recipe, margin)
    blocked = _block_border(t.image(t.taken) > _FREE, 2 * recipe.apart)
    found = [_free(t, blocked, way) for way in range(DEGREES)]
    counts = np.array([len(tails) for tails in found])
    padded = np.zeros((DEGREES, counts.max(), 2), np.int64)
    for way, tails in enumerate(found):
        padded[way, : len(tails)] = tails
    return padded, counts


def _block_border(blocked: np.ndarray, width: int) -> np.ndarray:
    framed = np.ones_like(blocked)
    inner = (..., *[slice(width, -width)] * 2)
    framed[inner] = blocked[inner]
    return framed


def _free(t: Tables, blocked: np.ndarray, way: int) -> np.ndarray:
    """The pixels ``[n, 2]`` from which a dash meets no blocked pixel."""
    if not len(t.full[way]):
        return np.zeros((0, 2), np.int64)
    reach, side = t.recipe.length + t.margin, t.recipe.side
    around = np.pad(blocked, reach)
    met = np.zeros_like(blocked)
    for y, x in t.full[way] + reach:
        met |= around[y : y + side, x : x + side]
    return np.argwhere(~met)
