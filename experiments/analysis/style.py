"""The look of all figures: colours, fonts, and an empty sheet to draw on.

matplotlib is imported by the first figure. Colours are those of Okabe and Ito, which colour-blind
readers can tell apart.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

DPI = 100

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#222222",
)  # fmt: skip
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
GREY = "#8a8a8a"

_STYLE = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


@contextmanager
def sheet(width: float, height: float, title: str, path: str | os.PathLike) -> Iterator[Any]:
    """An empty figure in the house style, `width` by `height` inches; saved as a PNG at the end."""
    if "matplotlib" not in sys.modules:
        # A notebook's back end in the environment, which a process of its own cannot load.
        os.environ["MPLBACKEND"] = "agg"
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        # Not by pyplot, which would choose a window system and keep every figure.
        figure = Figure(figsize=(width, height), dpi=DPI)
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        yield figure
        figure.savefig(path, format="png")


def shades(colour: str, negative: str | None = None) -> Any:
    """White for 0, `colour` for the most, `negative` for the least; grey for missing values."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = ["white", colour] if negative is None else [negative, "white", colour]
    return LinearSegmentedColormap.from_list("", ends).with_extremes(bad="#e8e8e8")


def width_of(steps: int) -> float:
    """Inches for a time axis of so many steps."""
    return float(np.clip(3 + 0.07 * steps, 7.5, 16))
