"""How often what is stated with a confidence is right: reliability diagrams."""

from collections.abc import Sequence

from busi_lab.report.figures.shapes import Axis, Panel, Plot, Series
from busi_lab.report.results.statistics import reliability
from busi_lab.report.results.uncertainty import Bools, Floats

_MARKERS = ("o", "^")


def reliability_panel(label: str, curves: Sequence[tuple[str, Floats, Bools]], axes: tuple[str, str]) -> Panel:
    """Shares that are right against mean confidence in bins of equal width, a mark's area by its number.

    Args:
        label: whose they are.
        curves: words, confidence ``[N]`` and what is right ``[N]``, two at most.
        axes: what confidence and share are called.
    """
    series = []
    for i, (_, confidence, right) in enumerate(curves):
        _, stated, share, count = reliability(confidence, right)
        points = stated.tolist(), share.tolist()
        sizes = (8 + 140 * count / count.sum()).tolist()
        series += [Series(*points, style=i, line=False, marker=_MARKERS[i], sizes=sizes), Series(*points, style=i)]
    legend = tuple((i, told) for i, (told, _, _) in enumerate(curves))
    x, y = Axis(axes[0], -0.01, 1.01), Axis(axes[1], -0.03, 1.03)
    alt = f"Reliability diagram of {label}. {'; '.join(told for told, _, _ in curves)}"
    return Panel(f"{label}: reliability", (Plot(tuple(series), x, y, diagonal=True),), alt, legend)
