"""How often what is stated with a confidence is right: reliability diagrams."""

from collections.abc import Sequence

from busi_lab.report import words
from busi_lab.report.figures.shapes import Axis, Group, Panel, Plot, Series
from busi_lab.report.results.lesions import JudgedLesions
from busi_lab.report.results.statistics import ECE_BINS, reliability
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


def lesion_reliability(found: JudgedLesions, which: str) -> Group:
    """How often outlined lesions of a confidence are right, before and after calibration.

    Args:
        found: of one experiment.
        which: how it was chosen, in a sentence.
    """
    lesions, curves = found.lesions, []
    kinds = (("mean lesion probability", lesions.confidence), ("calibrated", lesions.calibrated))
    for (told, confidence), error in zip(kinds, found.errors, strict=True):
        if confidence is not None:
            curves.append((f"{told}: ECE {words.figure(error)}", confidence, lesions.right))
    panel = reliability_panel(found.label, curves, ("confidence of an outline", "share that is right"))
    caption = (
        f"{which}Share of outlined lesions that is right against their mean confidence in {ECE_BINS} bins of equal "
        "width; a mark's area grows with its lesions. On the diagonal, confidence is right."
    )
    return Group("Confidence of outlines", caption, (panel,))
