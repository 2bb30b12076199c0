"""What annotations are worth: the figures of an experiment over the share of the training scans that is annotated."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from busi_lab.report.results.experiments import Experiment

SHARE = "data.annotated"


@dataclass(frozen=True)
class AnnotationCurve:
    """One way of learning: ``points`` are its experiments by their share, the smallest first."""

    name: str
    points: tuple[tuple[float, Experiment], ...]

    def figures(self, metric: str) -> tuple[list[float], list[float]]:
        """Shares, and the metric there, where it is known."""
        known = [(share, item.recorded[metric]) for share, item in self.points if metric in item.recorded]
        return [share for share, _ in known], [value for _, value in known]


def annotation_curves(experiments: Sequence[Experiment]) -> list[AnnotationCurve]:
    """The curves that experiments of one scope make: by their name, two shares of each at least."""
    found: dict[str, dict[float, Experiment]] = defaultdict(dict)
    for item in experiments:
        share = (item.settings or {}).get(SHARE)
        if share is not None:
            found[item.name].setdefault(float(share), item)
    curves = [AnnotationCurve(name, tuple(sorted(points.items()))) for name, points in found.items()]
    return [curve for curve in curves if len(curve.points) > 1]
