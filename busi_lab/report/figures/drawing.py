"""The one drawing of every figure: shapes on matplotlib's axes, without pyplot, so with no global state.

Colours are Okabe & Ito's, which colour-blind readers can tell apart; lines differ in dashes as well.
"""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from busi_lab.report.figures.shapes import GRAY, INK, Axis, Matrix, Panel, Plot, Rows, Series, Shape
from busi_lab.report.words import shortened

LINES = (("#0072b2", "-"), ("#d55e00", "--"), ("#009e73", "-."), ("#a8578a", ":"), ("#8a6d00", (0, (6, 2, 1, 2, 1, 2))))
"""Colours, darkened where white paper needs it, each with its dash."""

MUTED, GRID, BAR, HEAT, BLACK, WHITE = "#707070", "#e0e0e0", "#56b4e9", "#0072b1", "#000000", "#ffffff"
WIDTH = 3.4
"""Inches, of a panel: that of a phone."""

STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a dollar in a run's name is a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": "busi-lab",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "figure.facecolor": "white",
}
_ROW, _MATRIX = 0.38, 2.3  # inches: a line of rows, a matrix


def style_of(number: int) -> tuple[str, Any]:
    """Colour and dash."""
    return {GRAY: (MUTED, "-"), INK: (BLACK, "-")}.get(number) or LINES[number % len(LINES)]


def height_of(panel: Panel) -> float:
    """Inches that the shapes of a panel need."""
    return sum(_height(shape) for shape in panel.shapes)


def draw_panel(panel: Panel) -> Figure:
    """A panel by itself, without title and legend, which stand in the page as text."""
    with matplotlib.rc_context(STYLE):
        height = height_of(panel)
        figure = Figure(figsize=(WIDTH, height))
        place(figure, panel, 0, height)
        return figure


def place(figure: Figure, panel: Panel, left: float, top: float) -> None:
    """Draw the shapes of a panel on a figure, from ``top`` (inches above its lower edge) downwards."""
    width, height = figure.get_size_inches()
    for i, shape in enumerate(panel.shapes):
        margins = _margins(shape, last=i == len(panel.shapes) - 1)
        tall = _height(shape)
        sides = (
            (left + margins["left"]) / width,
            (top - tall + margins["bottom"]) / height,
            (WIDTH - margins["left"] - margins["right"]) / width,
            (tall - margins["bottom"] - margins["top"]) / height,
        )
        paint(figure.add_axes(sides), shape)
        top -= tall


def paint(ax: Axes, shape: Shape) -> None:
    """Draw one shape on axes."""
    if isinstance(shape, Rows):
        _rows(ax, shape)
    elif isinstance(shape, Matrix):
        _matrix(ax, shape)
    else:
        _plot(ax, shape)


def _height(shape: Shape) -> float:
    if isinstance(shape, Rows):
        return _ROW * len(shape.marks) + 0.4
    return _MATRIX if isinstance(shape, Matrix) else shape.height


def _margins(shape: Shape, last: bool) -> Mapping[str, float]:
    if isinstance(shape, Rows):
        return {"left": 0.12, "right": 0.15, "bottom": 0.3, "top": 0.1}
    if isinstance(shape, Matrix):
        return {"left": 0.62, "right": 0.12, "bottom": 0.45, "top": 0.05}
    return {"left": 0.55, "right": 0.15, "bottom": 0.45 if shape.x.label else 0.25, "top": 0.25 if shape.title else 0.1}


def _rows(ax: Axes, shape: Rows) -> None:
    room = 0.02 * (shape.high - shape.low)
    for i, mark in enumerate(shape.marks):
        if mark.bar is not None:
            ax.barh(i, mark.bar - shape.low, 0.34, shape.low, color=BAR)
        if mark.quartiles is not None:
            low, _, high = mark.quartiles
            ax.barh(i, high - low, 0.34, low, color=BAR)
        if len(mark.dots):
            scattered = i + 0.26 * (np.arange(len(mark.dots)) * 0.618034 % 1 - 0.5)  # golden ratio: neighbours apart
            ax.plot(mark.dots, scattered, "o", color=BLACK, markersize=2, markeredgewidth=0, alpha=0.45, clip_on=False)
        if mark.quartiles is not None:
            ax.plot([mark.quartiles[1]] * 2, [i - 0.22, i + 0.22], color=BLACK, linewidth=1.6)
        if mark.interval is not None:
            low, value, high = mark.interval
            if math.isfinite(low):
                ax.plot([low, high], [i, i], color=LINES[0][0], linewidth=2)
            ax.plot([value], [i], "o", color=LINES[0][0], markersize=6, markeredgecolor=WHITE)
        if mark.diamond is not None:
            ax.plot(mark.diamond, i, "D", color=BLACK, markeredgecolor=WHITE, clip_on=False)
        ax.text(shape.low, i - 0.25, shortened(mark.label, 38 - len(mark.words)), va="bottom", fontsize=9)
        ax.text(shape.high, i - 0.25, mark.words, va="bottom", ha="right", fontsize=9)
    ax.set(xlim=(shape.low - room, shape.high + room), ylim=(len(shape.marks) - 0.6, -0.75), yticks=[])
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", visible=False)


def _matrix(ax: Axes, shape: Matrix) -> None:
    for i, line in enumerate(shape.counts):
        whole = sum(line) or 1
        for j, count in enumerate(line):
            share = count / whole
            ax.add_patch(Rectangle((j + 0.02, i + 0.02), 0.96, 0.96, color=HEAT, alpha=0.05 + 0.6 * share, linewidth=0))
            weight = "bold" if i == j else "normal"
            ax.text(j + 0.5, i + 0.45, f"{count:g}", ha="center", va="center", fontsize=11, fontweight=weight)
            ax.text(j + 0.5, i + 0.75, f"{100 * share:.0f} %", ha="center", va="center", fontsize=7.5)
    count = len(shape.names)
    places = [i + 0.5 for i in range(count)]
    names = [shortened(name, 12) for name in shape.names]
    ax.set(xlim=(0, count), ylim=(count, 0), xlabel="predicted", ylabel="actual")
    ax.set_xticks(places, names, fontsize=8)
    ax.set_yticks(places, names, fontsize=8, rotation=90, va="center")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _plot(ax: Axes, shape: Plot) -> None:
    if shape.diagonal:
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, dashes=(2, 3))
    for series in reversed(shape.series):  # the first one above all others
        _series(ax, series)
    for i, level in enumerate(shape.levels):
        ax.axhline(level, color=BLACK, linewidth=1.1, linestyle="--" if i else "-")
    for upright in shape.uprights:
        ax.axvline(upright, color=MUTED, linestyle=":", linewidth=1)
    values = [[v for series in shape.series for v in getattr(series, name)] for name in ("x", "y")]
    ax.margins(0.08)
    _scale(ax, "x", shape.x, values[0])
    _scale(ax, "y", shape.y, values[1])
    if shape.title:
        ax.set_title(shape.title, loc="left", fontsize=9, pad=3)


def _series(ax: Axes, series: Series) -> None:
    colour, dash = style_of(series.style)
    marker = series.marker or ("o" if series.line and len(series.x) == 1 else "")  # one point makes no line
    width = 0.7 if series.thin else 1.8
    if series.line:
        ax.plot(series.x, series.y, color=colour, linestyle=dash, linewidth=width, marker=marker, markersize=4)
    elif len(series.sizes):
        ax.scatter(series.x, series.y, series.sizes, color=colour, marker=marker, alpha=0.75)
    else:
        edge: dict[str, Any] = {"markeredgecolor": WHITE, "markeredgewidth": 0.5, "clip_on": False}
        ax.plot(series.x, series.y, marker, color=colour, markersize=5, **edge)
    for x, y, words in zip(series.x, series.y, series.words, strict=False):
        ax.annotate(words, (x, y), (4, 3), textcoords="offset points", fontsize=9)


def _scale(ax: Axes, name: str, axis: Axis, values: list[float]) -> None:
    """Ends, label and ticks of the horizontal or vertical axis."""
    own = ax.xaxis if name == "x" else ax.yaxis
    getattr(ax, f"set_{name}label")(axis.label)
    low, high = axis.low, axis.high
    if axis.log:
        getattr(ax, f"set_{name}scale")("log")
        if low is None and values:
            room = max((max(values) / min(values)) ** 0.12, 1.6)
            low, high = min(values) / room, max(values) * room
        span = high / low if low and high else 1000
        steps = (1, 2, 5) if span < 100 else (1, 3) if span < 10_000 else (1,)
        own.set_major_locator(LogLocator(subs=steps, numticks=12))
        own.set_major_formatter(StrMethodFormatter("{x:g}"))
        own.set_minor_formatter(NullFormatter())
    elif axis.whole:
        own.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    if low is not None or high is not None:
        getattr(ax, f"set_{name}lim")(low, high)
