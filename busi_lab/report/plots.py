"""PNG plots of a comparison: test metrics beside the paper's, confusion matrices, learning curves.

Drawn without pyplot, so on any machine and with no global state. Colours are Okabe & Ito's, which
colour-blind readers can tell apart.
"""

import itertools
import math
import re
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from busi_lab.report.tables import Comparison, Table, number
from busi_lab.run_directory import CLASSES

SHOWN = 20
"""Runs in one figure at most, best first; more are no longer readable."""

PANELS_SHOWN = 8
"""Runs at most in a figure that gives each run a panel of its own, best first; they cost most of the time."""

TABLES_DRAWN = 8
"""Tables with PNG plots at most; the page has plots of all."""

COLUMNS = 4
"""Panels side by side."""

METRIC_GROUPS = (("accuracy", "precision", "recall", "f1"), ("dice", "iou", "dice_pooled", "pixel_accuracy"))
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7")
TRAIN, VALIDATION, OBJECTIVE = "#E69F00", "#0072B2", "#009E73"
_PAPER: dict[str, Any] = {
    **{"marker": "D", "markersize": 7, "color": "black", "markeredgecolor": "white"},
    **{"linestyle": "none", "clip_on": False},
}
DPI = 120  # pixels an inch
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a dollar in a run's name is a dollar
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}
_TEXT_LINE = 0.165  # inches, of the font size of labels


def draw(comparison: Comparison, folder: Path) -> dict[int, list[Path]]:
    """Draw all plots of all tables into ``folder``.

    The more tables there are, the fewer runs of each are drawn, so that the time stays within seconds.

    Returns:
        Table number to the files written for it, for the first ``TABLES_DRAWN`` tables that are not one of several
        folds; a plot without any data is left out.

    Raises:
        OSError: ``folder`` cannot be written.
    """
    drawn = [table for table in comparison.tables if table.number not in comparison.analysis.fold_tables][:TABLES_DRAWN]
    if not drawn:
        return {}
    shown = min(SHOWN, max(6, 2 * SHOWN // len(drawn)))
    panels = min(PANELS_SHOWN, max(COLUMNS, 3 * PANELS_SHOWN // len(drawn)))
    written: dict[int, list[Path]] = {}
    with matplotlib.rc_context(_STYLE):
        for table in drawn:
            figures = {
                "metrics": metric_bars(table, shown),
                "confusion": confusion_matrices(table, panels),
                "curves": learning_curves(table, panels),
            }
            written[table.number] = []
            for kind, figure in figures.items():
                if figure is not None:
                    path = folder / f"table{table.number}_{kind}.png"
                    figure.savefig(path, dpi=DPI)
                    written[table.number].append(path)
    return written


@dataclass(frozen=True)
class Line:
    """A line of plots: the height of a plot, and the room for words above and below it; inches."""

    height: float
    above: float
    below: float


def _figure(
    table: Table,
    what: str,
    shown: int,
    width: float,
    lines: Sequence[Line],
    columns: int = 1,
    margins: tuple[float, float, float] = (0.55, 0.15, 0.0),
    gap: float = 0.2,
) -> tuple[Figure, list[list[Axes]]]:
    """A titled figure with a grid of plots that are placed by measure, as a layout engine takes as long as drawing.

    Args:
        table: gives the title, with ``what`` and, where there are more runs, how many are ``shown``.
        what: is drawn.
        shown: runs at most.
        width: of the figure, inches, as are all lengths here.
        lines: of plots, from the top.
        columns: of plots.
        margins: left, right, bottom.
        gap: between columns.

    Returns:
        The figure and its axes as ``[line][column]``.
    """
    count = len(table.rows)
    selected = f" of the best {shown} of {count} runs by {table.metric}" if count > shown else ""
    words = [*textwrap.wrap(table.title, int(width * 10.5)), f"{what}{selected}"]
    title = 0.2 * len(words) + 0.15
    left, right, bottom = margins
    height = title + sum(line.above + line.height + line.below for line in lines) + bottom
    figure = Figure(figsize=(width, height))
    figure.suptitle("\n".join(words), fontsize=12, y=1 - 0.08 / height, va="top")
    plot_width = (width - left - right - gap * (columns - 1)) / columns
    axes, top = [], height - title
    for line in lines:
        top -= line.above + line.height
        sides = [(left + column * (plot_width + gap)) / width for column in range(columns)]
        places = [(side, top / height, plot_width / width, line.height / height) for side in sides]
        axes.append([figure.add_axes(place) for place in places])
        top -= line.below
    return figure, axes


def _lines_of_text(labels: Sequence[str]) -> float:
    """The height of the tallest of ``labels``, inches."""
    return _TEXT_LINE * max(label.count("\n") + 1 for label in labels)


def _wrap(label: str, width: int) -> str:
    """``label`` in lines of at most ``width`` characters, broken after a slash, dash, underscore or space."""
    lines = [""]
    for part in re.findall(rf"[^/_\- ]{{1,{width - 1}}}[/_\- ]?|[/_\- ]", label):
        if len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def metric_bars(table: Table, shown: int = SHOWN) -> Figure | None:
    """Grouped bars of the test metrics, the paper's figures as diamonds; lines of at most six runs."""
    panels = []
    for names in METRIC_GROUPS:
        rows = [r for r in table.rows if any(r.metric(f"test/{name}") is not None for name in names)][:shown]
        length = max(1, math.ceil(len(rows) / max(1, math.ceil(len(rows) / 6))))  # lines of equal length
        panels += [(names, rows[i : i + length], length) for i in range(0, len(rows), length)]
    if not panels:
        return None
    width = max(8.0, 1.0 + max(1.8 * length for _, _, length in panels))
    labels = [[_wrap(row.label, 24) for row in rows] for _, rows, _ in panels]
    heads = [i == 0 or panels[i - 1][0] != names for i, (names, _, _) in enumerate(panels)]
    lines = [
        Line(2.4, 0.35 if head else 0.12, 0.12 + _lines_of_text(words))
        for head, words in zip(heads, labels, strict=True)
    ]
    figure, axes = _figure(table, "Test metrics", shown, width, lines)
    for (ax,), (names, rows, length), words, head in zip(axes, panels, labels, heads, strict=True):
        for j, (name, colour) in enumerate(zip(names, COLOURS, strict=True)):
            places = [i + (j - 1.5) * 0.2 for i in range(len(rows))]
            values = [row.metric(f"test/{name}") for row in rows]
            ax.bar(places, [value or 0.0 for value in values], 0.19, color=colour, label=name)
            for place, value in zip(places, values, strict=True):
                figures = "none" if value is None else f"{value:.3f}"
                ax.text(place, 0.03, figures, rotation=90, ha="center", va="bottom", fontsize=9)
            paper = [(x, row.published[name]) for x, row in zip(places, rows, strict=True) if name in row.published]
            if paper:
                ax.plot(*zip(*paper, strict=True), **_PAPER)
        margin = 0.6 + max(0, 3 - length) / 2  # two runs need no wider bars than three
        ax.set_xlim(-margin, length - 1 + margin)
        ax.set_ylim(0, 1)
        ax.set_xticks(range(len(rows)), words, fontsize=9)
        ax.tick_params(axis="x", length=0)
        ax.grid(axis="y", color="0.9")
        ax.set_axisbelow(True)
        if head:
            handles, _ = ax.get_legend_handles_labels()
            if any(name in row.published for row in table.rows[:shown] for name in names):
                handles.append(Line2D([], [], label="the paper's figure", **_PAPER))
            ax.legend(handles=handles, ncols=5, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure


def confusion_matrices(table: Table, shown: int = PANELS_SHOWN) -> Figure | None:
    """Confusion matrices: counts written in, coloured by their share of the actual class."""
    matrices = [(row, matrix) for row in table.rows if (matrix := row.confusion()) is not None][:shown]
    if not matrices:
        return None
    columns = min(COLUMNS, len(matrices))
    titles = [_wrap(row.label, 28) for row, _ in matrices]
    lines = [Line(2.05, 0.15 + _lines_of_text(titles[i : i + columns]), 0.45) for i in range(0, len(matrices), columns)]
    gap = 0.35
    plots = columns * lines[0].height + (columns - 1) * gap
    left, right = 0.6, 1.1  # with the scale's room
    width = max(8.0, left + plots + right)
    spare = (width - left - plots - right) / 2
    margins = (left + spare, right + spare, 0.0)
    figure, axes = _figure(table, "Confusion matrices", shown, width, lines, columns, margins, gap)
    places = list(itertools.chain(*axes))
    for ax, (_, matrix), title in zip(places, matrices, titles, strict=False):
        shares = [[cell / (sum(line) or 1) for cell in line] for line in matrix]
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i, j in itertools.product(range(len(CLASSES)), repeat=2):
            colour = "white" if shares[i][j] > 0.5 else "black"
            ax.text(j, i, f"{matrix[i][j]:g}", ha="center", va="center", color=colour, fontsize=11)
        ax.set_title(title, fontsize=9)
        ax.set_xticks(range(len(CLASSES)), CLASSES, fontsize=8)
        ax.set_xlabel("predicted", fontsize=9)
        ax.set_yticks([])
        ax.tick_params(length=0)
    for line in axes:
        line[0].set_yticks(range(len(CLASSES)), CLASSES, fontsize=8, rotation=90, va="center")
        line[0].set_ylabel("actual", fontsize=9)
    for ax in places[len(matrices) :]:
        ax.remove()
    top = axes[0][0].get_position()
    last = axes[0][-1].get_position()
    scale = figure.add_axes((last.x1 + 0.2 / width, top.y0, 0.13 / width, top.height))
    figure.colorbar(axes[0][0].images[0], cax=scale, label="share of the actual class")
    return figure


def learning_curves(table: Table, shown: int = PANELS_SHOWN) -> Figure | None:
    """The objective on validation above the losses by epoch, two axes a run, one scale for all runs."""
    names = [table.metric] if table.metric != "val/loss" else []
    loss_columns = {"train/loss": ("train", TRAIN), "val/loss": ("validation", VALIDATION)}
    curves = [(row, {name: row.curve(name) for name in [*names, *loss_columns]}) for row in table.rows[:shown]]
    curves = [(row, lines) for row, lines in curves if any(epochs for epochs, _ in lines.values())]
    if not curves:
        return None
    columns = min(COLUMNS, len(curves))
    titles = [_wrap(row.label, 32) for row, _ in curves]
    grid: list[Line] = []
    for i in range(0, len(curves), columns):
        above = 0.15 + _lines_of_text(titles[i : i + columns])
        grid += [Line(1.1, above, 0.08), Line(1.2, 0.08, 0.5)] if names else [Line(1.4, above, 0.5)]
    width = max(8.0, 0.9 + 2.8 * columns)
    figure, axes = _figure(table, "Learning curves", shown, width, grid, columns, (0.7, 0.15, 0.3), 0.25)
    limits = [
        axis_limits([v for _, lines in curves for name in group for v in lines[name][1]])
        for group in (names, loss_columns)
    ]
    tall = 2 if names else 1
    for i, (row, lines) in enumerate(curves):
        cell = [axes[i // columns * tall + j][i % columns] for j in range(tall)]
        cell[0].set_title(titles[i], fontsize=9)
        if names:
            _line(cell[0], lines[names[0]], OBJECTIVE, None)
            set_scale(cell[0], *limits[0])
        for name, (label, colour) in loss_columns.items():
            _line(cell[-1], lines[name], colour, label)
        set_scale(cell[-1], *limits[1])
        cell[-1].set_xlabel("epoch", fontsize=9)
        last = max(max(epochs, default=0.0) for epochs, _ in lines.values())
        for ax, quantity in zip(cell, [*names, "loss"], strict=True):
            ax.set_xlim(-0.03 * last - 0.5, 1.03 * last + 0.5)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
            first = i % columns == 0  # its scale serves the whole line
            ax.tick_params(labelsize=8, labelbottom=ax is cell[-1], labelleft=first)
            if first:
                ax.set_ylabel(quantity, fontsize=9)
            ax.grid(color="0.92")
            best = number(row.run.summary.best_epoch)
            if best is not None:
                ax.axvline(best, color="0.4", linestyle=":", label="best epoch" if ax is cell[-1] else None)
    for line in axes[-tall:]:
        for ax in line[(len(curves) - 1) % columns + 1 :]:
            ax.remove()
    handles, words = axes[tall - 1][0].get_legend_handles_labels()
    figure.legend(handles, words, loc="lower center", ncols=3, frameon=False)
    return figure


def _line(ax: Axes, points: tuple[list[float], list[float]], colour: str, label: str | None) -> None:
    """Draw a curve; a single epoch, which makes no line, as a dot."""
    marker = "o" if len(points[0]) == 1 else ""
    ax.plot(*points, color=colour, label=label, linewidth=1.6, marker=marker, markersize=4)


def axis_limits(values: Sequence[float]) -> tuple[float, float, str]:
    """Lowest and highest value with a margin; a logarithmic scale where a diverged run dwarfs the rest."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low > 0 and high > 20 * statistics.median(values):
        return low / 1.3, high * 1.3, "log"
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin, "linear"


def set_scale(ax: Axes, low: float, high: float, scale: str) -> None:
    """Apply what :func:`axis_limits` found to the vertical axis."""
    ax.set_yscale(scale)
    ax.set_ylim(low, high)
    if scale == "log":
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
