"""Pathfinder: the made images against the recipe, dash by dash, and against the reference figures.

The oracle works on one image at a time, in floating point and with coordinates.
"""

from dataclasses import asdict, replace

import numpy as np
import pytest
from tiers import tiered

from data.sets.pathfinder import paths, raster
from data.sets.pathfinder import source as pathfinder
from data.sets.pathfinder.lookup import tables
from data.sets.pathfinder.source import PATHFINDER32, PATHFINDER128

Image = pytest.importorskip("PIL.Image", reason="needs pillow")
ndimage = pytest.importorskip("scipy.ndimage", reason="needs scipy")

EASY = replace(PATHFINDER32, dashes=6, distractor_dashes=2, distractors=10)
CASES = [(PATHFINDER32, 1), (PATHFINDER128, 2), (PATHFINDER128, 3)]
cases = pytest.mark.parametrize(("recipe", "margin"), tiered(CASES, CASES[:1]))


def disc(radius):
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return y * y + x * x <= radius * radius


def ceiled(point, angle, distance):
    """The next whole pixel; what the sine's rounding errors add does not count."""
    moved = np.add(point, [distance * np.sin(angle), distance * np.cos(angle)])
    return tuple(np.ceil(np.round(moved, 9)).astype(int).tolist())


def shrunk(picture, side):
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def by_pillow(recipe, margin, angle):
    """A dash and its footprint as the authors draw them, by the library that they use."""
    from PIL import ImageDraw

    half = recipe.length + int(np.ceil(recipe.thickness)) + margin
    large = Image.new("L", (4 * half + 1, 4 * half + 1))
    # Here they do count: two whole degrees come out one pixel longer.
    y, x = (2 * half + 2 * recipe.length * part for part in (np.sin(angle), np.cos(angle)))
    ends = [(2 * half, 2 * half), (int(np.ceil(x)), int(np.ceil(y)))]
    ImageDraw.Draw(large).line(ends, fill=255, width=round(2 * recipe.thickness))
    line = np.array(large)
    wide = ndimage.grey_dilation(line, footprint=disc(2 * margin), mode="constant")
    return shrunk(line, 2 * half + 1), shrunk(wide, 2 * half + 1)


@cases
def test_dashes_are_pillows(recipe, margin):
    around = raster.circle(recipe.length + margin)
    angles = np.concatenate([np.arange(-180, 180, 7) * np.pi / 180, np.arctan2(*around.T)])
    for angle in [*angles, 120 * np.pi / 180]:
        ours = raster.dash(recipe.length, recipe.thickness, margin, 2, angle)
        np.testing.assert_array_equal(ours, by_pillow(recipe, margin, angle))


class Oracle:
    """One image, grown by the plain recipe along dashes that are given; complains where they err.

    Everything is float64, one being full; pixels are (y, x).
    """

    def __init__(self, recipe, margin):
        self.recipe, self.margin, self.reach = recipe, margin, recipe.length + margin
        side = recipe.side
        self.map = np.ones((side, side))
        self.map[1:-1, 1:-1] = 0
        self.image = np.zeros((side, side))
        self.dilated = None
        self.patches = {}

    def patch(self, angle):
        if angle not in self.patches:
            drawn = by_pillow(self.recipe, self.margin, angle)
            self.patches[angle] = [picture / 255 for picture in drawn]
        return self.patches[angle]

    def placed(self, patch, pixel):
        """The patch around a pixel of an empty image."""
        half, side = len(patch) // 2, self.recipe.side
        canvas = np.zeros((side + 2 * half, side + 2 * half))
        canvas[pixel[0] : pixel[0] + 2 * half + 1, pixel[1] : pixel[1] + 2 * half + 1] = patch
        return canvas[half:-half, half:-half]

    def start(self, tail, way, frame, contrast):
        angle = (way - 180) * np.pi / 180
        _, footprint = self.patch(angle)
        side = self.recipe.side
        blocked = np.ones((side, side), bool)
        blocked[frame : side - frame, frame : side - frame] = False
        blocked |= self.map > 0.3
        if frame == 1:
            assert (self.map <= 0.3).mean() >= 0.01
        for y, x in np.argwhere(footprint == 1) - len(footprint) // 2 + 1:
            if max(abs(y), abs(x)) <= self.reach:
                y, x = tail[0] + y, tail[1] + x
                assert not (0 <= y < side and 0 <= x < side and blocked[y, x])
        return self.begun(tail, angle, contrast)

    def begun(self, tail, angle, contrast):
        line, footprint = self.patch(angle)
        back = angle + np.pi if angle + np.pi < np.pi else angle - np.pi
        head = ceiled(tail, angle, self.recipe.length)
        pivot = ceiled(head, back, self.reach)
        for pixel in (head, pivot):
            assert min(pixel) >= 0
            assert max(pixel) < self.recipe.side
        self.image = np.maximum(self.image, self.placed(line, tail) * contrast)
        return pivot, angle, self.placed(footprint, tail)

    def candidates(self, pivot, angle):
        """Each pixel of the circle that lies in the image, with its weight."""
        side, weights = self.recipe.side, {}
        dilated = ndimage.grey_dilation(self.map, footprint=disc(self.margin), mode="constant")
        for step in np.arange(0, 2 * np.pi, 1 / self.reach):
            y = pivot[0] + self.reach * np.sin(step)
            x = pivot[1] + self.reach * np.cos(step)
            if 0 <= y < side and 0 <= x < side:
                pixel = int(y), int(x)
                towards = np.arctan2(pixel[0] - pivot[0], pixel[1] - pivot[1])
                turn = abs(towards - angle)
                turn = min(turn, 2 * np.pi - turn) * self.recipe.continuity
                weight = np.cos(min(turn, np.pi / 2)) ** 2 * (1 - dilated[pixel])
                weights[pixel] = weight
        return weights

    def grow(self, snake, head, contrast):
        pivot, angle, newest = snake
        pivot = ceiled(pivot, angle, self.recipe.length + 2 * self.margin)
        weights = self.candidates(pivot, angle)
        assert sum(weights.values()) >= 1e-4
        assert weights[head] > 1e-12
        angle = np.arctan2(head[0] - pivot[0], head[1] - pivot[1])
        line, footprint = self.patch(angle + np.pi if angle < 0 else angle - np.pi)
        footprint = self.placed(footprint, head)
        assert (self.map + footprint).max() < 1.8
        self.image = np.maximum(self.image, self.placed(line, head) * contrast)
        self.map = np.maximum(self.map, newest)
        return pivot, angle, footprint

    def discs(self, *pixels):
        """The finished picture with discs on these pixels."""
        side, image = self.recipe.side, self.image
        for y, x in pixels:
            rows, columns = np.ogrid[-2 * y : 2 * (side - y), -2 * x : 2 * (side - x)]
            inside = rows**2 + columns**2 <= (2 * self.recipe.disc) ** 2
            drawn = shrunk(np.where(inside, 255, 0).astype(np.uint8), side)
            image = np.maximum(image, drawn / 255)
        return (image - image.min()) / (image.max() - image.min()) * 255


def pixels_of(t, places):
    y, x = np.divmod(places, t.row)
    return list(zip((y - t.ring).tolist(), (x - t.ring).tolist(), strict=True))


@cases
def test_images_are_grown_by_the_recipe(recipe, margin):
    t = tables(recipe, margin)
    count = 8 if recipe.side == 32 else 2
    random = np.random.default_rng(7)
    maps, grown = paths.targets(t, count, random)
    others = list(paths.distractors(t, maps, random))
    assert sum(len(some.map) for some in others) > 0
    labels = np.arange(count) % 2
    images = pathfinder.draw(t, labels, np.random.default_rng(7))
    for number in range(count):
        oracle = Oracle(recipe, margin)
        tracks = [pixels_of(t, places) for places in grown.places[number]]
        contrast = recipe.contrast * recipe.dash_contrast
        degrees = (grown.ways[number, :, 0] - 180) * np.pi / 180
        pair = [
            oracle.start(tracks[0][0], grown.ways[number, 0, 0], 2 * recipe.apart, contrast),
            oracle.begun(tracks[1][0], degrees[1], contrast),
        ]
        apart = np.hypot(*np.subtract(tracks[0][0], tracks[1][0]))
        assert abs(apart - recipe.apart) <= 0.5**0.5
        for dash in range(1, recipe.dashes):
            for which in (0, 1):
                pair[which] = oracle.grow(pair[which], tracks[which][dash], contrast)
        oracle.map = np.maximum(oracle.map, pair[1][2])
        for some in others:
            for place in np.flatnonzero(some.map == number):
                track = pixels_of(t, some.places[place, 0])
                assert len(track) == recipe.distractor_dashes
                snake = oracle.start(track[0], some.ways[place, 0, 0], 1, recipe.contrast)
                for head in track[1:]:
                    snake = oracle.grow(snake, head, recipe.contrast)
                oracle.map = np.maximum(oracle.map, snake[2])
        np.testing.assert_allclose(t.image(maps.taken)[number] / 255, oracle.map, atol=1e-6)
        dilated = ndimage.grey_dilation(oracle.map, footprint=disc(margin), mode="constant")
        np.testing.assert_allclose(t.image(maps.near)[number] / 255, dilated, atol=1e-6)

        # Half a grey is the rounding; Pillow's disc, of whole numbers, may differ by one more.
        ends = [(track[0], other[-1]) for track in tracks for other in tracks]
        off = [abs(oracle.discs(*pixels) - images[number]).max() for pixels in ends]
        same, different = (off[0], off[3]), (off[1], off[2])
        right, wrong = (same, different) if labels[number] else (different, same)
        assert min(right) <= 1.5
        assert min(wrong) > 50


@cases
def test_next_dashes_are_drawn_by_their_weights(recipe, margin):
    """On a map with one obstacle, from one start: how often each head is chosen."""
    t = tables(recipe, margin)
    middle, way, count = recipe.side // 2, 180 + 30, 20_000
    oracle = Oracle(recipe, margin)
    snake = oracle.begun((middle, middle), (way - 180) * np.pi / 180, 1.0)
    ahead = ceiled((middle, middle), 1.1, 2 * recipe.length + 2 * margin)
    oracle.map[ahead] = 0.4
    taken, near = t.taken.copy(), t.near.copy()
    t.image(taken)[ahead] = 102
    t.image(near)[:] = raster.dilated(t.image(taken), margin)
    lanes = 1000
    end = paths.Ends(
        *(
            np.full(lanes, value)
            for value in (t.place(np.array(snake[0])), way, t.place(np.array([middle, middle])))
        )
    )
    random = np.random.default_rng(0)
    chosen = []
    for _ in range(count // lanes):
        maps = paths.Maps(np.tile(taken, (lanes, 1)), np.tile(near, (lanes, 1)))
        chosen += pixels_of(t, paths.grow(t, maps, [end], 2, random).places[:, 0, 1])
    pivot = ceiled(snake[0], snake[1], recipe.length + 2 * margin)
    weights = oracle.candidates(pivot, snake[1])
    total = sum(weights.values())
    assert len(chosen) == count
    for pixel in {*weights, *chosen}:
        share = weights[pixel] / total
        found = chosen.count(pixel) / count
        assert abs(found - share) <= 4.5 * (share * (1 - share) / count) ** 0.5 + 1e-12, pixel


REFERENCES = {
    # images, mean, deviation, share > 0, share > 127, attempts an image
    "hard 32": (PATHFINDER32, 400, (60, 20.6, 51.4, 0.35, 0.086, 344)),
    "easy 32": (EASY, 400, (100, 13.1, 43.2, 0.23, 0.052, 26)),
    "hard 128": (PATHFINDER128, 40, (12, 7.9, 35.7, 0.14, 0.031, 433)),
}


@pytest.mark.parametrize("name", tiered(REFERENCES, ["hard 32", "easy 32"]))
def test_reference_figures(name):
    """Of images that the authors' generator made; 4 standard errors and half the last digit."""
    recipe, count, (images, mean, deviation, above, bright, _) = REFERENCES[name]
    made = pathfinder.block(0, seed=0, images=count, recipe=asdict(recipe))
    x = made["x"]
    assert abs(made["y"].mean() - 0.5) < 4 * 0.5 / count**0.5
    each = x.reshape(count, -1).astype(np.float64)
    for values, reference, digit in (
        (each.mean(1), mean, 0.05),
        ((each**2).mean(1), mean**2 + deviation**2, 2 * 0.05 * (mean + deviation)),
        ((each > 0).mean(1), above, 0.005),
        ((each > 127).mean(1), bright, 0.0005),
    ):
        error = values.std() * (1 / count + 1 / images) ** 0.5
        assert abs(values.mean() - reference) < 4 * error + digit, (values.mean(), reference)
    assert (x.min(1) == 0).all()
    assert (x.max(1) == 255).all()


@pytest.mark.parametrize("name", tiered(REFERENCES, ["hard 32"]))
def test_target_attempts(name):
    """How often a pair of targets is begun for each that succeeds; 4 standard errors."""
    recipe, _, (images, *_, attempts) = REFERENCES[name]
    random = np.random.default_rng(0)
    each, batches = (10_000, 4) if recipe.side == 32 else (400, 14)
    rates, variance = [], 0.0
    for margin in recipe.margins:
        t, grown = tables(recipe, margin), 0
        for _ in range(batches):
            pair = paths.pairs(t, each, random)
            maps = paths.Maps(*(np.tile(m, (len(pair[0].way), 1)) for m in (t.taken, t.near)))
            grown += len(paths.grow(t, maps, pair, recipe.dashes, random).map)
        rates.append(each * batches / grown)
        # Numbers of attempts are distributed geometrically: their deviation is their mean.
        variance += rates[-1] ** 2 / grown / len(recipe.margins) ** 2
    rate = np.mean(rates)
    variance += (2 * np.mean(np.square(rates)) - rate**2) / images
    assert abs(rate - attempts) < 4 * variance**0.5, rate


def test_block_is_a_function_of_seed_and_number():
    recipe = asdict(PATHFINDER32)
    blocks = [pathfinder.block(*key, 4, recipe) for key in ((0, 0), (1, 0), (0, 1), (0, 0))]
    np.testing.assert_array_equal(blocks[0]["x"], blocks[3]["x"])
    np.testing.assert_array_equal(blocks[0]["y"], blocks[3]["y"])
    assert len({block["x"].tobytes() for block in blocks}) == 3
