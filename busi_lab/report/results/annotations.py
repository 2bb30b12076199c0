"""What annotations are worth: the figures of an experiment over the share of the training scans that is annotated."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from busi_lab.report.results.experiments import Experiment, trained_under, version_of
from busi_lab.report.results.settings import Settings, differences, in_words

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

    @property
    def uneven(self) -> bool:
        """Whether its points are not all of the same folds and seeds, so that more than the share differs."""
        return len({item.of_which for _, item in self.points}) > 1


def annotation_curves(experiments: Sequence[Experiment]) -> list[AnnotationCurve]:
    """The curves that experiments of one scope make, two shares of each at least.

    Those of a curve agree in all that they were configured with but the share. Curves of one name are told apart by
    the settings in which they differ.
    """
    found: dict[tuple[str, ...], dict[float, Experiment]] = defaultdict(dict)
    for item in experiments:
        if item.settings is not None and SHARE in item.settings:
            found[_way(item)][float(item.settings[SHARE])] = item
    ways = [tuple(sorted(points.items())) for points in found.values() if len(points) > 1]
    named: dict[str, list[Settings]] = defaultdict(list)
    for points in ways:
        named[points[0][1].name].append(_others(points[0][1]))
    return [AnnotationCurve(_label(points[0][1], named), points) for points in ways]


def _way(item: Experiment) -> tuple[str, ...]:
    """Equal for experiments that differ in the share alone."""
    first = item.rows[0]
    summary, trained = first.run.summary, trained_under(first)
    learnt = summary.source.data_digest if summary.source else None
    parts = (item.table.task, summary.model, version_of(first), trained and trained.protocol, learnt)
    return (item.name, *map(str, parts), str(sorted(_others(item).items())))


def _others(item: Experiment) -> Settings:
    return {key: value for key, value in (item.settings or {}).items() if key != SHARE}


def _label(item: Experiment, named: dict[str, list[Settings]]) -> str:
    keys = differences(named[item.name])
    return f"{item.name} ({in_words(_others(item), keys, most=3)})" if keys else item.name
