"""Some rows of a batch, for each of several processes: those of the whole, no others read."""

import numpy as np
import pytest

from data.batches import Batches
from data.streams import Streams
from data.synthetic import Adding, OnTheFly


class Watched(list):
    """Sequences that remember which of them were read."""

    def __init__(self, *args):
        super().__init__(*args)
        self.read = set()

    def __getitem__(self, index):
        self.read.add(index)
        return super().__getitem__(index)


def ragged():
    """Eleven sequences of 1 to 11 steps, so that one row of three batches of four is empty."""
    return Watched(np.full((n, 2), n, np.uint8) for n in range(1, 12))


FEEDS = {
    "batches": lambda: Batches({"x": ragged(), "y": np.arange(11), "y2": ragged()}, 4, 1),
    "streams": lambda: Streams(np.arange(1, 100), 4, 5, 1),
    "on the fly": lambda: OnTheFly(Adding(steps=6), 4, 1, examples=11),
}
PARTS = (slice(0, 1), slice(1, 3), slice(3, 4))


@pytest.mark.parametrize("name", FEEDS)
def test_parts_make_up_the_whole(name):
    feed = FEEDS[name]()
    each = [FEEDS[name]() for _ in PARTS]
    training = [
        (feed.batch(step), [one.batch(step, rows) for one, rows in zip(each, PARTS, strict=True)])
        for step in range(7)
    ]
    scored = list(
        zip(
            feed.evaluation(),
            zip(
                *(one.evaluation(rows) for one, rows in zip(each, PARTS, strict=True)), strict=True
            ),
            strict=True,
        )
    )
    assert len(scored) >= 3
    for whole, parts in training + scored:
        joined = {key: np.concatenate([part[key] for part in parts]) for key in whole}
        np.testing.assert_equal(joined, whole)


def test_what_is_not_asked_for_is_not_read():
    x = ragged()
    batch = Batches({"x": x}, 4, 1).batch(0, slice(1, 3))
    asked = set(batch["index"].tolist())
    assert len(asked) == 2
    # Its last row says of what shape and dtype a batch is.
    assert asked <= x.read
    assert len(x.read) <= 3
