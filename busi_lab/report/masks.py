"""Plots of predicted masks in the HTML report: Dice by class, and Dice against the size of the lesion."""

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from busi_lab.report.predictions import Floats, Masks, read_masks
from busi_lab.report.svg import BAR, LINES, Group, Panel, inline_svg, new_figure, shorten
from busi_lab.report.tables import Row, Table

RUNS_SHOWN = 6
"""Runs with a distribution of their own at most, best first; a mark for each image makes them large."""

_LESIONS = ("benign", "malignant")
_MARKERS = ("o", "^")


def draw_masks(table: Table) -> Group:
    """Dice by class for the best runs, and against lesion size for the best one; no panels without masks."""
    found = [(row, masks) for row in table.rows[:RUNS_SHOWN] if (masks := read_masks(row.run)) is not None]
    panels = [panel for label in _LESIONS if (panel := _spread(label, found))]
    count = len(table.rows)
    caption = (
        "A mark is an image; the bar spans the middle half of them, with the median as a line. "
        f"Best by validation first{f', {len(found)} of {count} runs' if len(found) < count else ''}."
    )
    if found and (size := _against_size(*found[0])):
        panels.append(size[0])
        caption += f" Against lesion size: circles are benign, triangles malignant{size[1]}."
    return Group("Dice by class and by size of the lesion", caption, tuple(panels))


def _spread(label: str, found: list[tuple[Row, Masks]]) -> Panel | None:
    """A strip of marks for each run over its quartiles, for the images of one class."""
    known = [(row, values) for row, masks in found if len(values := _dice_of(masks, label))]
    if not known:
        return None
    figure, ax = new_figure(0.56 * len(known) + 0.4, 0.12, 0.3)
    words = []
    for i, (row, values) in enumerate(known):
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        ax.barh(i, high - low, 0.36, low, color=BAR)
        height = i + 0.26 * (np.arange(len(values)) * 0.618034 % 1 - 0.5)  # golden-ratio steps keep neighbours apart
        ax.plot(values, height, "o", color="black", markersize=2, markeredgewidth=0, alpha=0.45, clip_on=False)
        ax.plot([middle, middle], [i - 0.22, i + 0.22], color="black", linewidth=1.6)
        ax.text(0, i - 0.29, shorten(row.label, 26), va="bottom", fontsize=9)
        ax.text(1, i - 0.29, f"mean {values.mean():.3f}, n {len(values)}", va="bottom", ha="right", fontsize=9)
        words.append(f"{row.label} mean {values.mean():.3f}, median {middle:.3f}, {len(values)} images")
    ax.set(xlim=(0, 1), ylim=(len(known) - 0.65, -0.66), yticks=[])
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", visible=False)
    return Panel(f"Dice, {label}", inline_svg(figure), f"Dice of {label} images. {'; '.join(words)}")


def _dice_of(masks: Masks, label: str) -> Floats:
    chosen: Floats = masks.dice[(masks.labels == label) & np.isfinite(masks.dice)]
    return chosen


def _against_size(row: Row, masks: Masks) -> tuple[Panel, str] | None:
    """Dice over the lesion's share of the scan, and what its line is; None where no size is recorded."""
    known = np.isfinite(masks.dice) & np.isfinite(masks.lesion) & (masks.lesion > 0)
    if not known.any():
        return None
    share, dice, labels = 100 * masks.lesion[known], masks.dice[known], masks.labels[known]
    figure, ax = new_figure(2.6, 0.55, 0.45)
    for i, label in enumerate(_LESIONS):
        chosen = labels == label
        (marks,) = ax.plot(share[chosen], dice[chosen], _MARKERS[i], color=LINES[i][0], markersize=4.5, clip_on=False)
        marks.set(markeredgecolor="white", markeredgewidth=0.4)
    window = max(5, len(dice) // 6)
    words = ""
    if len(dice) >= 2 * window:
        ax.plot(*running_median(share, dice, window), color="black", linewidth=1.8)
        words = f", and the line is the median of {window} images of neighbouring size"
    ax.set_xscale("log")
    ax.set(xlim=(share.min() / 1.2, share.max() * 1.2), ylim=(0, 1))
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=12))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="lesion's share of the scan (%)", ylabel="Dice")
    half = np.median(share)
    small, large = dice[share <= half].mean(), dice[share > half].mean() if (share > half).any() else np.nan
    alt = f"Dice of {row.label} against lesion size: mean {small:.3f} up to {half:.2g} % of the scan"
    alt += "" if np.isnan(large) else f", {large:.3f} above"
    return Panel(f"{row.label}: Dice against lesion size", inline_svg(figure), alt), words


def running_median(x: Floats, y: Floats, window: int) -> tuple[Floats, Floats]:
    """Medians of ``x`` and of ``y`` over each ``window`` neighbours by ``x``.

    Args:
        x: ``[N]``.
        y: ``[N]``.
        window: neighbours, from 1 to N.

    Returns:
        Two arrays ``[N - window + 1]``, ascending in ``x``.
    """
    order = np.argsort(x, kind="stable")
    x_windows, y_windows = (np.lib.stride_tricks.sliding_window_view(values[order], window) for values in (x, y))
    return np.median(x_windows, axis=1), np.median(y_windows, axis=1)
