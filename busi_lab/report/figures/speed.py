"""Quality over the time of one scan, with the size of the network's file as area."""

from collections.abc import Sequence

from busi_lab.report import words
from busi_lab.report.figures.shapes import INK, Axis, Group, Panel, Plot, Series
from busi_lab.report.results.speed import QUALITIES, Speed, unbeaten

_AREA = 600.0  # points, of the largest file


def trade_off(networks: Sequence[Speed]) -> Group:
    """A panel for each figure that a network has; the line joins the networks that no other beats in both."""
    panels = [panel for name in QUALITIES if (panel := _panel(name, networks))]
    caption = (
        "An area is the size of the network's file. The line joins those that no other beats in both; the table has "
        "the numbers."
    )
    return Group("Quality, time and size", caption, tuple(panels), file="speed")


def _panel(name: str, networks: Sequence[Speed]) -> Panel | None:
    known = [(number, item) for number, item in enumerate(networks, start=1) if name in item.quality]
    if not known:
        return None
    x, y = [item.milliseconds[0] for _, item in known], [item.quality[name] for _, item in known]
    largest = max(item.megabytes for _, item in known)
    sizes = [max(12.0, _AREA * item.megabytes / largest) for _, item in known]
    front = unbeaten(list(zip(x, y, strict=True)))
    margin = 0.15 * (max(y) - min(y)) or 0.05
    series = (
        Series([point[0] for point in front], [point[1] for point in front], INK, thin=True),
        Series(x, y, 0, line=False, marker="o", sizes=sizes, words=[str(number) for number, _ in known]),
    )
    axis = Axis("milliseconds of one scan", min(x) / 1.5, max(x) * 1.5, log=True)
    plot = Plot(series, axis, Axis(f"validation {name}", min(y) - margin, max(y) + margin))
    listed = "; ".join(
        f"{item.label} {words.short(item.milliseconds[0])} ms, {words.figure(item.quality[name])}" for _, item in known
    )
    return Panel(f"Validation {name} over time", (plot,), f"Validation {name} and time of one scan: {listed}")
