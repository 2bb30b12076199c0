"""PNG plots of a comparison: test metrics beside the paper's, confusion matrices, learning curves.

Drawn without pyplot, so on any machine and with no global state. Colours are Okabe & Ito's, which
colour-blind readers can tell apart.
"""

import itertools
import math
import re
import statistics
import textwrap
from collections.abc import Callable, Sequence
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
"""Runs in one figure, best first; more are no longer readable."""

PANELS_SHOWN = 12
"""Runs in a figure that gives each run a panel of its own, best first; they cost most of the time."""

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
    "figure.constrained_layout.w_pad": 0.1,  # inches
    "figure.constrained_layout.h_pad": 0.06,
}


def draw(comparison: Comparison, folder: Path) -> dict[int, list[Path]]:
    """Draw all plots of all tables into ``folder``.

    Returns:
        Table number to the files written for it; a plot without any data is left out.

    Raises:
        OSError: ``folder`` cannot be written.
    """
    kinds: dict[str, Callable[[Table], Figure | None]] = {
        "metrics": metric_bars,
        "confusion": confusion_matrices,
        "curves": learning_curves,
    }
    written: dict[int, list[Path]] = {table.number: [] for table in comparison.tables}
    with matplotlib.rc_context(_STYLE):
        for table in comparison.tables:
            for kind, plot in kinds.items():
                figure = plot(table)
                if figure is not None:
                    path = folder / f"table{table.number}_{kind}.png"
                    figure.savefig(path, dpi=DPI)
                    written[table.number].append(path)
    return written


def _figure(
    table: Table, what: str, shown: int, width: float, heights: Sequence[float], ncols: int
) -> tuple[Figure, Any]:
    """A titled figure with lines of ``ncols`` axes, ``heights`` in inches; axes as ``[line][column]``."""
    width, count = max(width, 8.0), len(table.rows)
    selected = f" of the best {shown} of {count} runs by {table.metric}" if count > shown else ""
    title = "\n".join([*textwrap.wrap(table.title, int(width * 10.5)), f"{what}{selected}"])
    figure = Figure(figsize=(width, sum(heights) + 0.3 * (title.count("\n") + 1)), layout="constrained")
    figure.suptitle(title, fontsize=12)
    return figure, figure.subplots(len(heights), ncols, squeeze=False, height_ratios=heights)


def _wrap(label: str, width: int) -> str:
    """``label`` in lines of at most ``width`` characters, broken after a slash, dash, underscore or space."""
    lines = [""]
    for part in re.findall(rf"[^/_\- ]{{1,{width - 1}}}[/_\- ]?|[/_\- ]", label):
        if len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def metric_bars(table: Table) -> Figure | None:
    """Grouped bars of the test metrics, the paper's figures as diamonds; lines of at most six runs."""
    panels = []
    for names in METRIC_GROUPS:
        rows = [r for r in table.rows if any(r.metric(f"test/{name}") is not None for name in names)][:SHOWN]
        length = max(1, math.ceil(len(rows) / max(1, math.ceil(len(rows) / 6))))  # lines of equal length
        panels += [(names, rows[i : i + length], length) for i in range(0, len(rows), length)]
    if not panels:
        return None
    width = 1.0 + max(1.8 * length for _, _, length in panels)
    figure, axes = _figure(table, "Test metrics", SHOWN, width, [3.1] * len(panels), 1)
    previous = None
    for (ax,), (names, rows, length) in zip(axes, panels, strict=True):
        for j, (name, colour) in enumerate(zip(names, COLOURS, strict=True)):
            places = [i + (j - 1.5) * 0.2 for i in range(len(rows))]
            values = [row.metric(f"test/{name}") for row in rows]
            ax.bar(places, [value or 0.0 for value in values], 0.19, color=colour, label=name)
            for place, value in zip(places, values, strict=True):
                shown = "none" if value is None else f"{value:.3f}"
                ax.text(place, 0.03, shown, rotation=90, ha="center", va="bottom", fontsize=9)
            paper = [(x, row.published[name]) for x, row in zip(places, rows, strict=True) if name in row.published]
            if paper:
                ax.plot(*zip(*paper, strict=True), **_PAPER)
        margin = 0.6 + max(0, 3 - length) / 2  # two runs need no wider bars than three
        ax.set_xlim(-margin, length - 1 + margin)
        ax.set_ylim(0, 1)
        ax.set_xticks(range(len(rows)), [_wrap(row.label, 24) for row in rows], fontsize=9)
        ax.tick_params(axis="x", length=0)
        ax.grid(axis="y", color="0.9")
        ax.set_axisbelow(True)
        if previous != names:
            handles, _ = ax.get_legend_handles_labels()
            if any(name in row.published for row in table.rows[:SHOWN] for name in names):
                handles.append(Line2D([], [], label="the paper's figure", **_PAPER))
            ax.legend(handles=handles, ncols=5, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
            previous = names
    return figure


def confusion_matrices(table: Table) -> Figure | None:
    """Confusion matrices: counts written in, coloured by their share of the actual class."""
    matrices = [(row, matrix) for row in table.rows if (matrix := row.confusion()) is not None][:PANELS_SHOWN]
    if not matrices:
        return None
    columns = min(5, max(min(3, len(matrices)), math.ceil(math.sqrt(len(matrices)))))
    lines = math.ceil(len(matrices) / columns)
    figure, axes = _figure(table, "Confusion matrices", PANELS_SHOWN, 2.7 * columns + 1, [2.8] * lines, columns)
    for ax, (row, matrix) in zip(axes.flat, matrices, strict=False):
        shares = [[cell / (sum(line) or 1) for cell in line] for line in matrix]
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i, j in itertools.product(range(len(CLASSES)), repeat=2):
            colour = "white" if shares[i][j] > 0.5 else "black"
            ax.text(j, i, f"{matrix[i][j]:g}", ha="center", va="center", color=colour, fontsize=11)
        ax.set_title(_wrap(row.label, 28), fontsize=9)
        ax.set_xticks(range(len(CLASSES)), CLASSES, fontsize=8)
        ax.set_yticks(range(len(CLASSES)), CLASSES, fontsize=8, rotation=90, va="center")
        ax.tick_params(length=0)
        ax.set_xlabel("predicted", fontsize=9)
        ax.set_ylabel("actual", fontsize=9)
    for ax in axes.flat[len(matrices) :]:
        ax.set_visible(False)
    colours = axes[0, 0].images[0]
    figure.colorbar(colours, ax=axes, label="share of the actual class", shrink=min(1, 1.6 / lines), aspect=25)
    return figure


def learning_curves(table: Table) -> Figure | None:
    """The objective on validation above the losses by epoch, two axes a run, one scale for all runs."""
    names = [table.metric] if table.metric != "val/loss" else []
    loss_columns = {"train/loss": ("train", TRAIN), "val/loss": ("validation", VALIDATION)}
    shown = table.rows[:PANELS_SHOWN]
    curves = [(row, {name: row.curve(name) for name in [*names, *loss_columns]}) for row in shown]
    curves = [(row, lines) for row, lines in curves if any(epochs for epochs, _ in lines.values())]
    if not curves:
        return None
    columns = min(4, len(curves))
    heights = ([1.5] if names else []) + [1.7]
    heights_of_all = heights * math.ceil(len(curves) / columns)
    figure, axes = _figure(table, "Learning curves", PANELS_SHOWN, 3.1 * columns, heights_of_all, columns)
    limits = [
        axis_limits([v for _, lines in curves for name in group for v in lines[name][1]])
        for group in (names, loss_columns)
    ]
    for i, (row, lines) in enumerate(curves):
        cell = axes[i // columns * len(heights) :, i % columns][: len(heights)]
        cell[0].set_title(_wrap(row.label, 32), fontsize=9)
        if names:
            _line(cell[0], lines[names[0]], OBJECTIVE, None)
            cell[0].set_ylabel(names[0], fontsize=9)
            cell[0].tick_params(labelbottom=False)
            set_scale(cell[0], *limits[0])
        for name, (label, colour) in loss_columns.items():
            _line(cell[-1], lines[name], colour, label)
        set_scale(cell[-1], *limits[1])
        cell[-1].set_ylabel("loss", fontsize=9)
        cell[-1].set_xlabel("epoch", fontsize=9)
        last = max(max(epochs, default=0.0) for epochs, _ in lines.values())
        for ax in cell:
            ax.set_xlim(-0.03 * last - 0.5, 1.03 * last + 0.5)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
            ax.tick_params(labelsize=8)
            ax.grid(color="0.92")
            best = number(row.run.summary.best_epoch)
            if best is not None:
                ax.axvline(best, color="0.4", linestyle=":", label="best epoch" if ax is cell[-1] else None)
    for ax in axes.flat:
        ax.set_visible(ax.has_data())
    handles, labels = axes[len(heights) - 1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
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
