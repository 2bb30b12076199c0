"""Evaluations under stress as plots."""

from collections.abc import Mapping, Sequence

import matplotlib

from busi_lab.report.evaluations import evaluations, ladders_of, main_figure
from busi_lab.report.svg import LINES, STYLE, Group, Panel, inline_svg, new_figure, numbered
from busi_lab.report.tables import Comparison


def draw_evaluations(comparison: Comparison) -> list[Group]:
    """A panel for each ladder of each evaluation under stress."""
    groups = []
    with matplotlib.rc_context(STYLE):
        for item in evaluations(comparison):
            main = main_figure(item)
            second = "auroc_malignant" if main == "accuracy" else "iou"
            figures = {name: ladders_of(item, name) for name in (main, second)}
            panels = tuple(_ladder_panel(ladder, figures) for ladder in figures[main])
            caption = "Severity 0 is the scan as it is; 5 is extreme, but met in practice. One scale for all."
            legend = tuple((i, name) for i, (name, found) in enumerate(figures.items()) if found)
            groups.append(Group(f"{item.label}: under stress", caption, panels, legend))
    return numbered(groups, "e")


def _ladder_panel(ladder: str, figures: Mapping[str, Mapping[str, Sequence[float]]]) -> Panel:
    figure, ax = new_figure(1.9, 0.5, 0.45)
    words = []
    for (colour, dash), marker, (name, ladders) in zip(LINES, ("o", "s"), figures.items(), strict=False):
        values = ladders.get(ladder, ())
        ax.plot(range(len(values)), values, color=colour, linestyle=dash, marker=marker, markersize=4)
        words += [f"{name} from {values[0]:.3f} to {values[-1]:.3f}"] if values else []
    ax.set(ylim=(0, 1.02), xlabel="severity")
    return Panel(ladder, inline_svg(figure), f"{ladder}: {', '.join(words)}")
