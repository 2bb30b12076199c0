"""Accuracy against the share of images that is kept when the least confident ones are left out."""

from collections.abc import Sequence

from busi_lab.report import words
from busi_lab.report.figures.shapes import GRAY, Axis, Group, Panel, Plot, Series
from busi_lab.report.results.abstention import Abstention

_FEWEST = 20  # kept images that a curve begins with; of fewer, each moves it by steps


def abstention(curves: Sequence[Abstention], which: str, file: str = "", headline: str = "") -> Group:
    """A curve for each run or experiment, and below each, in gray, its accuracy without abstention."""
    series, legend = [], []
    for i, curve in enumerate(curves):
        kept = [
            (float(share), float(accuracy))
            for share, accuracy in zip(curve.shares, curve.accuracies, strict=True)
            if share * curve.images >= _FEWEST
        ] or [(1.0, float(curve.accuracies[-1]))]
        whole = kept[-1][1]
        half = next((accuracy for share, accuracy in kept if share >= 0.5), whole)
        series += [
            Series((kept[0][0], 1.0), (whole, whole), GRAY, thin=True),
            Series([share for share, _ in kept], [accuracy for _, accuracy in kept], i),
        ]
        legend.append((i, f"{curve.label}: {words.figure(whole)} of all, {words.figure(half)} of the surest half"))
    x, y = Axis("share of test images that is kept", -0.01, 1.01), Axis("accuracy among them", None, 1.01)
    alt = f"Accuracy against the share of images that is kept. {'; '.join(told for _, told in legend)}"
    told = (
        f"{which}Images are left out in the order of their largest probability, the smallest first; to the left only "
        f"the surest are kept, {_FEWEST} at least. Gray: accuracy on all images, which a network keeps that does not "
        "know when it is wrong."
    )
    panel = Panel("Accuracy when the least sure are left out", (Plot(tuple(series), x, y),), alt, tuple(legend))
    return Group("Abstention", told, (panel,), (), file, headline)
