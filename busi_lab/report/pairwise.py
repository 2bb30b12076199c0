"""What can be told apart: models on the same images, and protocols of one experiment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from busi_lab.report.cases import Cases, Estimate, shared
from busi_lab.report.repeats import Experiment
from busi_lab.report.statistics import (
    LEVEL,
    Floats,
    bootstrap_p,
    cluster_weights,
    holm,
    mcnemar_p,
    percentile_interval,
)

MODELS_TESTED = 8
"""Experiments in a family of tests at most, best by validation first: 28 pairs, which 2,000 resamples can tell apart
even after Holm's correction."""

TOGETHER = "Test sets with common images or groups, whose groups are resampled together"
APART = "Test sets without an image or a group in common, which are independent and resampled apart"

MEASURES = {"accuracy": "accuracy", "dice": "mean Dice"}


@dataclass(frozen=True)
class Difference:
    """``first`` minus ``second`` in a measure; ``p`` as tested, ``corrected`` after Holm over its family.

    ``images`` are those of both, ``relation`` says how the two sets of images hang together.
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
        """Whether the corrected p is below 5 %."""
        return self.corrected < 1 - LEVEL


def compare_models(experiments: Sequence[Experiment]) -> list[Difference]:
    """All pairs of ``experiments`` on the images that both predicted, for each measure that both have.

    Classes are tested with McNemar's exact test of the predictions, Dice with the paired cluster bootstrap.
    """
    found = []
    for measure in MEASURES:
        known = [item for item in experiments if measure in item.estimates][:MODELS_TESTED]
        family = [
            test for first, second in combinations(known, 2) if (test := _paired(first, second, measure)) is not None
        ]
        found += _corrected(family)
    return found


def _paired(first: Experiment, second: Experiment, measure: str) -> Difference | None:
    assert first.cases is not None and second.cases is not None
    left, right = shared(first.cases, second.cases)
    if len(left) == 0:
        return None
    one, weights = np.ones((1, len(left))), left.weights()
    values = [float(cases.figures_of(measure, one)[0]) for cases in (left, right)]
    resampled = left.figures_of(measure, weights) - right.figures_of(measure, weights)
    estimate = Estimate(values[0] - values[1], *percentile_interval(resampled))
    if not np.isfinite(estimate.value):
        return None
    if measure == "accuracy":
        test, p = "McNemar, exact", mcnemar_p(left.right, right.right)
    else:
        test, p = "paired cluster bootstrap", bootstrap_p(resampled)
    return Difference(first, second, measure, test, len(left), (values[0], values[1]), estimate, p, p)


def _corrected(family: Sequence[Difference]) -> list[Difference]:
    return [replace(test, corrected=p) for test, p in zip(family, holm([test.p for test in family]), strict=True)]


def compare_protocols(experiments: Sequence[Experiment]) -> list[Difference]:
    """All pairs of protocols of one experiment for each measure, by the cluster bootstrap.

    Where two test sets have neither an image nor a group in common, each is resampled by itself; else the groups of
    both together are, so that what is common comes and goes in both.
    """
    found = []
    for measure in MEASURES:
        known = [item for item in experiments if measure in item.estimates]
        found += _corrected([_between(first, second, measure) for first, second in combinations(known, 2)])
    return found


def _between(first: Experiment, second: Experiment, measure: str) -> Difference:
    left, right = first.cases, second.cases
    assert left is not None and right is not None
    images, left_weights, right_weights, relation = joint_weights(left, right)
    resampled = left.figures_of(measure, left_weights) - right.figures_of(measure, right_weights)
    values = (first.estimates[measure].value, second.estimates[measure].value)
    estimate = Estimate(values[0] - values[1], *percentile_interval(resampled))
    p = bootstrap_p(resampled)
    return Difference(first, second, measure, "cluster bootstrap", images, values, estimate, p, p, relation)


def joint_weights(left: Cases, right: Cases) -> tuple[int, Floats, Floats, str]:
    """Resamples of two sets of images, together where they have an image or a group in common, else apart.

    Returns:
        Images of both, weights ``[B, N]`` of either set, and in words how they hang together.
    """
    images = len(set(left.images.tolist()) & set(right.images.tolist()))
    groups = len(set(left.clusters.tolist()) & set(right.clusters.tolist()))
    if images or groups:
        weights = cluster_weights(np.concatenate([left.clusters, right.clusters]))
        return images, weights[:, : len(left)], weights[:, len(left) :], TOGETHER
    return 0, cluster_weights(left.clusters, seed=1), cluster_weights(right.clusters, seed=2), APART


def outcome(test: Difference) -> str:
    """A plain sentence without a full stop: better, worse, or not told apart; of two protocols higher or lower."""
    up, down = ("higher", "lower") if test.relation else ("better", "worse")
    first, second = ((item.protocol if test.relation else item.label) for item in (test.first, test.second))
    if not test.told_apart:
        return f"{first} and {second} are not told apart"
    return f"{first} is {up if test.difference.value > 0 else down} than {second}"
