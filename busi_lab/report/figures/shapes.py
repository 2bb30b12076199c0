"""What a figure shows, as plain data: drawn alike for files and for the page by :mod:`.drawing`."""

from collections.abc import Sequence
from dataclasses import dataclass

GRAY, INK = -1, -2
"""Styles beside the numbered ones of lines: for what is of less weight, and for rulers."""


@dataclass(frozen=True)
class Axis:
    """What an axis measures; its ends are found from the values where they are None. ``whole``: integers alone."""

    label: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Series:
    """Points of a plot, joined by a line unless ``marker`` stands for each of them alone.

    ``style`` numbers colour and dash; ``sizes`` are areas of the markers in points, ``words`` stand beside them.
    """

    x: Sequence[float]
    y: Sequence[float]
    style: int = 0
    line: bool = True
    marker: str = ""
    sizes: Sequence[float] = ()
    words: Sequence[str] = ()
    thin: bool = False


@dataclass(frozen=True)
class Plot:
    """Curves and points; ``height`` in inches. Rulers: ``uprights`` at x, ``levels`` at y (the first one solid)."""

    series: tuple[Series, ...]
    x: Axis
    y: Axis
    height: float = 3.4
    uprights: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    diagonal: bool = False
    title: str = ""


@dataclass(frozen=True)
class Mark:
    """A line of :class:`Rows`: its name and figure in words, and any of a bar, an interval, quartiles and marks."""

    label: str
    words: str = ""
    bar: float | None = None
    interval: tuple[float, float, float] | None = None
    """Low, value, high."""
    quartiles: tuple[float, float, float] | None = None
    dots: Sequence[float] = ()
    diamond: float | None = None


@dataclass(frozen=True)
class Rows:
    """Lines below each other on one scale: bars, distributions or intervals."""

    marks: tuple[Mark, ...]
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Matrix:
    """Counts ``[actual][predicted]``, coloured by their share of the actual class."""

    names: tuple[str, ...]
    counts: Sequence[Sequence[float]]


Shape = Plot | Rows | Matrix


@dataclass(frozen=True)
class Panel:
    """Shapes above each other, what they show for those who cannot see them, and a legend of styles with words."""

    title: str
    shapes: tuple[Shape, ...]
    alt: str
    legend: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Group:
    """Panels that belong together, with the sentence that explains them and the legend that they share.

    ``file`` names the picture file that holds them as well, without its ending; empty for none.
    """

    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[int, str], ...] = ()
    file: str = ""
    headline: str = ""
    """Above the picture file, which stands alone."""
