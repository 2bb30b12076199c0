"""A group of panels as one picture, with its titles and legends."""

import textwrap
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from busi_lab.report.figures.drawing import MUTED, STYLE, WIDTH, height_of, place, style_of
from busi_lab.report.figures.shapes import Group, Panel

COLUMNS = 4
"""Panels side by side."""

DPI = 120
_LINE = 0.17  # inches, a line of text
_GAP = 0.3


def save_png(group: Group, path: Path) -> None:
    """Write a picture.

    Raises:
        OSError: it cannot be written.
    """
    with matplotlib.rc_context(STYLE):
        sheet(group).savefig(path, dpi=DPI)


def sheet(group: Group, columns: int = COLUMNS) -> Figure:
    """The panels of a group side by side, below the headline, the title and the legend that they share."""
    columns = min(columns, len(group.panels))
    lines = [group.panels[i : i + columns] for i in range(0, len(group.panels), columns)]
    least = 2 if group.headline else 1  # columns that a headline needs
    width = max(least, columns) * (WIDTH + _GAP) + _GAP
    words = [line for text in (group.headline, group.title) for line in textwrap.wrap(text, int(width * 10))]
    words += textwrap.wrap(group.caption, int(width * 14))
    head = 0.2 * len(words) + 0.15 + (0.3 if group.legend else 0)
    heights = [[_titled(panel) for panel in line] for line in lines]
    height = head + sum(max(line) for line in heights) + 0.1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        figure.suptitle("\n".join(words), fontsize=10, x=0.2 / width, ha="left", y=1 - 0.08 / height, va="top")
        if group.legend:
            _legend(figure, group.legend, _GAP, height - head + 0.3, len(group.legend))
        top = height - head
        for line, tall in zip(lines, heights, strict=True):
            for i, panel in enumerate(line):
                _place_titled(figure, panel, _GAP + i * (WIDTH + _GAP), top, max(map(_title_height, line)))
            top -= max(tall)
    return figure


def _title(panel: Panel) -> list[str]:
    return textwrap.wrap(panel.title, 44) or [""]


def _title_height(panel: Panel) -> float:
    return _LINE * len(_title(panel)) + 0.1


def _titled(panel: Panel) -> float:
    """Inches that a panel needs with its title and its legend."""
    return _title_height(panel) + height_of(panel) + _LINE * 1.1 * len(panel.legend) + 0.2


def _place_titled(figure: Figure, panel: Panel, left: float, top: float, title: float) -> None:
    width, height = figure.get_size_inches()
    lowest = top - title
    figure.text(
        (left + 0.1) / width,
        (lowest + 0.03) / height,
        "\n".join(_title(panel)),
        fontsize=9,
        fontweight="bold",
        va="bottom",
    )
    place(figure, panel, left, lowest)
    if panel.legend:
        _legend(figure, panel.legend, left, lowest - height_of(panel), 1)


def _legend(figure: Figure, legend: tuple[tuple[int, str], ...], left: float, top: float, columns: int) -> None:
    width, height = figure.get_size_inches()
    handles = []
    for number, words in legend:
        colour, dash = style_of(number)
        handles.append(Line2D([], [], color=colour if number >= 0 else MUTED, linestyle=dash, label=words))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(left / width, top / height),
        ncols=columns,
        frameon=False,
        fontsize=8,
        borderaxespad=0.2,
        labelspacing=0.25,
    )
