"""What can be told apart: models on the same images, and protocols of one experiment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray

from busi_lab.report.results.cases import Cases
from busi_lab.report.results.estimates import Estimate, difference_of, mean_figures, mean_results
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.statistics import weighted_mean
from busi_lab.report.results.uncertainty import (
    LEVEL,
    Bools,
    Floats,
    bootstrap_p,
    cluster_weights,
    effective_groups,
    holm,
    percentile_interval,
    swap_p,
)

MODELS_TESTED = 8
"""Experiments in a family of tests at most, best by validation first: 28 pairs, which the resamples can tell apart even
after Holm's correction."""

TOGETHER = "Test sets with common images or groups, whose groups are resampled together"
APART = "Test sets without an image or a group in common, which are independent and resampled apart"

Names = NDArray[np.str_]

MEASURES = {"accuracy": "accuracy", "dice": "mean Dice"}


@dataclass(frozen=True)
class Difference:
    """``first`` minus ``second`` in a measure; ``p`` as tested, ``corrected`` after Holm over its family.

    Both are NaN where there are fewer than ``FEW_GROUPS`` groups, of which nothing is claimed. ``images`` are those of
    both, ``relation`` says how the two sets of images hang together.
    """

    first: Experiment
    second: Experiment
    measure: str
    test: str
    images: int
    values: tuple[float, float]
    difference: Estimate
    p: float
    corrected: float
    relation: str = ""

    @property
    def related(self) -> bool:
        """Whether the two sets of images have some in common, or groups."""
        return self.relation == TOGETHER

    @property
    def told_apart(self) -> bool:
        """Whether the corrected p is below 5 %; never with too few groups."""
        return self.corrected < 1 - LEVEL


def compare_models(experiments: Sequence[Experiment]) -> list[Difference]:
    """All pairs of ``experiments`` on the images that both predicted, for each measure that both have.

    An image counts with the mean over the runs of an experiment, so that five seeds are one typical run and no
    ensemble. Whole groups swap the results of both: see :func:`.swap_p`.
    """
    found = []
    for measure in MEASURES:
        usable = (item for item in experiments if item.whole and measure in item.estimates)
        known = list(islice(usable, MODELS_TESTED))
        family = [
            test for first, second in combinations(known, 2) if (test := _paired(first, second, measure)) is not None
        ]
        found += corrected(family)
    return found


def _paired(first: Experiment, second: Experiment, measure: str) -> Difference | None:
    left, right = (mean_results(list(item.parts.values()), measure) for item in (first, second))
    _, one, other = np.intersect1d(left.images, right.images, assume_unique=True, return_indices=True)
    differences = left.values[one] - right.values[other]
    known: Bools = np.isfinite(differences)
    if not known.any():
        return None
    clusters, _ = _joined(left.images[one], left.clusters[one], right.images[other], right.clusters[other], False)
    groups = len(set(clusters[known].tolist()))
    ends = percentile_interval(weighted_mean(differences, cluster_weights(clusters)), effective_groups(clusters, known))
    estimate = Estimate(float(differences[known].mean()), *ends, groups)
    p = np.nan if estimate.few else swap_p(differences, clusters)
    values = (float(left.values[one][known].mean()), float(right.values[other][known].mean()))
    return Difference(first, second, measure, "groups swapped", int(known.sum()), values, estimate, p, p)


def corrected(family: Sequence[Difference]) -> list[Difference]:
    """The tests with their p after Holm; those of too few groups claim nothing and cost the others nothing."""
    tested = [test for test in family if np.isfinite(test.p)]
    found = dict(zip(map(id, tested), holm([test.p for test in tested]), strict=True))
    return [replace(test, corrected=found.get(id(test), np.nan)) for test in family]


def compare_protocols(experiments: Sequence[Experiment]) -> list[Difference]:
    """All pairs of protocols of one experiment for each measure, by the cluster bootstrap.

    Where two test sets have neither an image nor a group in common, each is resampled by itself; else the groups of
    both together are, so that what is common comes and goes in both.
    """
    found = []
    for measure in MEASURES:
        known = [item for item in experiments if item.whole and measure in item.estimates]
        found += corrected([_between(first, second, measure) for first, second in combinations(known, 2)])
    return found


def _between(first: Experiment, second: Experiment, measure: str) -> Difference:
    return between(first, second, [measure])[measure]


def between(first: Experiment, second: Experiment, measures: Sequence[str]) -> dict[str, Difference]:
    """``first`` minus ``second`` in figures that both have, by the cluster bootstrap."""
    left, right = first.cases, second.cases
    assert left is not None and right is not None
    files = [(item.settings or {}).get("split.groups") for item in (first, second)]
    images, left_weights, right_weights, relation = joint_weights(left, right, files[0] == files[1])

    def figures(cases: Cases, weights: Floats) -> dict[str, Floats]:
        if set(measures) <= MEASURES.keys():  # the others would take their time
            return {measure: cases.figures_of(measure, weights) for measure in measures}
        return dict(cases.figures(weights))

    resampled = [
        mean_figures(list(item.parts.values()), cases, weights, figures)
        for item, cases, weights in ((first, left, left_weights), (second, right, right_weights))
    ]
    found = {}
    for measure in measures:
        values = (first.estimates[measure].value, second.estimates[measure].value)
        gap = resampled[0][measure] - resampled[1][measure]
        estimate = difference_of(left, right, measure, values[0] - values[1], gap)
        effective = min(left.effective_groups(measure), right.effective_groups(measure))
        p = np.nan if estimate.few else bootstrap_p(gap, effective)
        test = "cluster bootstrap"
        found[measure] = Difference(first, second, measure, test, images, values, estimate, p, p, relation)
    return found


def joint_weights(left: Cases, right: Cases, same_names: bool = True) -> tuple[int, Floats, Floats, str]:
    """Resamples of two sets of images, together where they have an image or a group in common, else apart.

    Args:
        left: the first set.
        right: the second set.
        same_names: whether a group of one name is the same in both; else groups meet in common images alone.

    Returns:
        Images of both, weights ``[B, N]`` of either set, and in words how they hang together.
    """
    images = len(set(left.images.tolist()) & set(right.images.tolist()))
    both = _joined(left.images, left.clusters, right.images, right.clusters, same_names)
    if images or set(both[0].tolist()) & set(both[1].tolist()):
        weights = cluster_weights(np.concatenate(both))
        return images, weights[:, : len(left)], weights[:, len(left) :], TOGETHER
    return 0, cluster_weights(left.clusters, seed=1), cluster_weights(right.clusters, seed=2), APART


def _joined(
    images: Names, clusters: Names, other_images: Names, others: Names, same_names: bool
) -> tuple[Names, Names]:
    """The groups of two sets of images as one grouping: those that share an image, or a name, are one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = [f"a{name}" for name in clusters.tolist()]
    names += [f"{'a' if same_names else 'b'}{name}" for name in others.tolist()]
    _, group = np.unique(names, return_inverse=True)
    _, one, other = np.intersect1d(images, other_images, return_indices=True)
    edges = (np.ones(len(one)), (group[one], group[len(clusters) + other]))
    _, component = connected_components(coo_array(edges, shape=(group.max() + 1, group.max() + 1)), directed=False)
    joined = component[group].astype(str)
    return joined[: len(clusters)], joined[len(clusters) :]
