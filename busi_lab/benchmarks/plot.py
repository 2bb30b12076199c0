"""The figures of a record as bars, a panel for each part and unit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from busi_lab.bench_record import Figure
from busi_lab.benchmarks.table import median_interval, short
from busi_lab.report.figures.shapes import Group, Mark, Panel, Rows


def save_plot(figures: Sequence[Figure], path: Path, machine: str) -> None:
    """Write a picture; bars are medians, the lines their intervals.

    Raises:
        OSError: it cannot be written.
    """
    from busi_lab.report.figures.png import save_png  # matplotlib costs a second

    kinds = list(dict.fromkeys((figure.part, figure.unit) for figure in figures))
    panels = tuple(
        _panel(f"{part}, {unit}", [figure for figure in figures if (figure.part, figure.unit) == (part, unit)])
        for part, unit in kinds
    )
    save_png(Group("busi-bench", f"Medians with 95 % intervals, on {machine}.", panels), path)


def _panel(title: str, figures: Sequence[Figure]) -> Panel:
    marks, told = [], []
    for figure in figures:
        median = float(np.median(figure.samples))
        low, high = median_interval(figure.samples)
        marks.append(Mark(figure.name, short(median), bar=median, interval=(low, median, high)))
        told.append(f"{figure.name} {short(median)}")
    largest = max(max(figure.samples) for figure in figures)
    return Panel(title, (Rows(tuple(marks), 0.0, 1.1 * largest),), f"{title}: {'; '.join(told)}")
