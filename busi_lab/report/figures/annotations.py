"""Figures over the share of annotated training scans."""

from collections.abc import Sequence

from busi_lab.report import words
from busi_lab.report.figures.shapes import Axis, Group, Panel, Plot, Series
from busi_lab.report.results.annotations import AnnotationCurve


def annotation_panels(curves: Sequence[AnnotationCurve], metrics: Sequence[str], file: str) -> Group:
    """A panel for each metric, a curve for each way of learning."""
    panels = []
    for metric in metrics:
        known = [(i, curve, *curve.figures(metric)) for i, curve in enumerate(curves)]
        known = [each for each in known if each[2]]
        series = tuple(
            Series([100 * share for share in shares], values, i, marker="os"[i % 2]) for i, _, shares, values in known
        )
        told = "; ".join(
            f"{curve.name} from {words.figure(values[0])} at {shares[0]:.0%} to {words.figure(values[-1])} at "
            f"{shares[-1]:.0%}"
            for _, curve, shares, values in known
        )
        plot = Plot(series, Axis("annotated training scans, %", log=True), Axis(""), 2.6)
        panels.append(Panel(metric, (plot,), f"{metric}: {told}"))
    caption = "A point is the mean over the runs of an experiment, on the test images; shares stand on a log scale."
    legend = tuple((i, curve.name) for i, curve in enumerate(curves))
    return Group("Figures over annotations", caption, tuple(panels), legend, file)
