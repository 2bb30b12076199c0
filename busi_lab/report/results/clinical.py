"""What clinicians ask of runs: operating points, calibration, agreement of lesion areas."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from busi_lab.report.results.cases import Cases, read_test_cases, read_validation_cases
from busi_lab.report.results.estimates import Estimate, estimate
from busi_lab.report.results.statistics import (
    area_under,
    bland_altman,
    brier_score,
    counts_at,
    expected_calibration_error,
    has_no_optimum,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
    threshold_for_specificity,
    weighted_mean,
    weighted_roc,
    youden_threshold,
)
from busi_lab.report.results.subjects import Subject
from busi_lab.report.results.tables import Table
from busi_lab.report.results.uncertainty import (
    Bools,
    Floats,
    cluster_weights,
    effective_groups,
    share_interval,
)

RUNS_SHOWN = 3
"""Runs of a table at most, best by validation first."""

Counts = tuple[int, int, int, int]
"""True positives, positives, true negatives, negatives."""

LEVELS = (0.90, 0.95)
SPECIFICITY = 0.90
"""Of the operating point that is chosen on validation."""


@dataclass(frozen=True)
class Curve:
    """Figures of the ROC curve of the positive class: its area, and what any threshold reaches at best."""

    label: str
    positives: int
    negatives: int
    estimates: dict[str, Estimate]

    @property
    def few(self) -> bool:
        """Whether there are too few groups for an interval."""
        return any(each.few for each in self.estimates.values())


@dataclass(frozen=True)
class Point:
    """A threshold for each fold, chosen by ``rule`` on validation, its counts there, and what the test images say."""

    label: str
    rule: str
    thresholds: tuple[float, ...]
    validation: Counts
    sensitivity: Estimate
    specificity: Estimate


@dataclass(frozen=True)
class Calibrated:
    """Expected calibration error and Brier score before and after scaling, None where nothing was scaled."""

    label: str
    temperatures: tuple[float, ...]
    errors: tuple[float, float | None]
    brier: tuple[float, float | None]

    @property
    def at_the_end(self) -> bool:
        """Whether a temperature is at the end of its range, so that no optimum was found."""
        return any(map(has_no_optimum, self.temperatures))


@dataclass(frozen=True)
class Agreement:
    """Predicted minus true lesion area in points of the image, after Bland and Altman."""

    label: str
    images: int
    bias: float
    low: float
    high: float


@dataclass(frozen=True)
class Clinical:
    """All that is known of ``subjects``; ``lacking`` names those without validation images to choose a point on.

    ``joined`` says whether one of them has several runs.
    """

    subjects: tuple[Subject, ...]
    curves: tuple[Curve, ...]
    points: tuple[Point, ...]
    lacking: tuple[str, ...]
    calibrated: tuple[Calibrated, ...]
    agreements: tuple[Agreement, ...]
    joined: bool

    @property
    def positive(self) -> str:
        """The name of the positive class."""
        known = [subject.cases for subject in self.subjects if subject.cases is not None]
        return (known[0].classes.positive if known else None) or "positive"


def subjects_of(table: Table) -> list[Subject]:
    """The best runs of a table."""
    return [Subject(row.label, ((row.run,),)) for row in table.rows[:RUNS_SHOWN]]


def judge(subjects: Sequence[Subject]) -> Clinical:
    """All that is known for ``subjects``; nothing where none has readable predictions."""
    points, lacking = [], []
    for subject in subjects:
        found = _points(subject)
        if found is not None:
            points += found
            lacking += [] if found else [subject.label]
    return Clinical(
        tuple(subjects),
        tuple(curve for subject in subjects if (curve := _curve(subject)) is not None),
        tuple(points),
        tuple(lacking),
        tuple(calibrated for subject in subjects if (calibrated := _calibrated(subject)) is not None),
        tuple(agreement for subject in subjects if (agreement := _agreement(subject)) is not None),
        any(len(subject.parts) > 1 for subject in subjects),
    )


def positive_and_score(cases: Cases) -> tuple[Bools, Floats] | None:
    """Positive or not, and its probability, ``[N]`` each; None where one side is missing."""
    if cases.probabilities is None or cases.classes.positive is None:
        return None
    column = cases.classes.number(cases.classes.positive)
    positive = cases.actual == column
    return None if positive.all() or not positive.any() else (positive, cases.probabilities[:, column])


def _curve_figures(cases: Cases, weights: Floats) -> dict[str, Floats]:
    """Figures of the weighted ROC curve by their titles, ``[B]`` each; none where one side is missing."""
    known = positive_and_score(cases)
    if known is None:
        return {}
    false_rate, true_rate, _ = weighted_roc(*known, weights)
    curve = (false_rate, true_rate)
    return {
        f"auroc_{cases.classes.positive}": area_under(*curve),
        **{f"sensitivity at {x:.0%} specificity": sensitivity_at_specificity(*curve, x) for x in LEVELS},
        **{f"specificity at {x:.0%} sensitivity": specificity_at_sensitivity(*curve, x) for x in LEVELS},
    }


def _curve(subject: Subject) -> Curve | None:
    known = positive_and_score(subject.cases) if subject.cases else None
    if known is None:
        return None
    positives = int(known[0].sum())
    return Curve(subject.label, positives, len(known[0]) - positives, estimate(subject.parts, _curve_figures))


def _rules(positive: Bools, score: Floats) -> dict[str, float]:
    """The thresholds that validation images choose."""
    return {
        "specificity": threshold_for_specificity(positive, score, SPECIFICITY),
        "Youden": youden_threshold(positive, score),
    }


def _points(subject: Subject) -> list[Point] | None:
    """A point for each rule; none where a run has no validation images, None where there is nothing to judge."""
    if subject.cases is None or positive_and_score(subject.cases) is None:
        return None
    found: dict[str, list[tuple[float, Counts, Cases]]] = defaultdict(list)
    runs = subject.repeats[0]
    for run in runs:
        test, validation = read_test_cases(run), read_validation_cases(run)
        chosen = positive_and_score(validation) if validation else None
        if chosen and test and test.probabilities is not None:
            for rule, threshold in _rules(*chosen).items():
                found[rule].append((threshold, counts_at(*chosen, threshold), test))
    if any(len(points) < len(runs) for points in found.values()):
        return []
    made = []
    for rule, points in found.items():
        thresholds, validated, judged = zip(*points, strict=True)
        hits, positives, spared, negatives = (sum(column) for column in zip(*validated, strict=True))
        sides = _judged(thresholds, judged)
        made.append(Point(subject.label, rule, tuple(thresholds), (hits, positives, spared, negatives), *sides))
    return made


def _judged(thresholds: Sequence[float], tests: Sequence[Cases]) -> tuple[Estimate, Estimate]:
    """Sensitivity and specificity on the test images of folds, each with its own threshold."""
    called = []
    for at, cases in zip(thresholds, tests, strict=True):
        assert cases.probabilities is not None and cases.classes.positive is not None
        called.append(cases.probabilities[:, cases.classes.number(cases.classes.positive)] >= at)
    return sides_of(tests, np.concatenate(called))


def sides_of(tests: Sequence[Cases], called: Bools) -> tuple[Estimate, Estimate]:
    """Sensitivity and specificity, with intervals that respect groups.

    Args:
        tests: images, of one run or of several folds.
        called: ``[N]`` of all of them, whether they were called positive.
    """
    clusters = np.concatenate([cases.clusters for cases in tests])
    positive = np.concatenate([np.array(cases.labels) == cases.classes.positive for cases in tests])
    return share_estimate(clusters, positive, called), share_estimate(clusters, ~positive, ~called)


def share_estimate(clusters: "np.ndarray[tuple[int, ...], np.dtype[np.str_]]", side: Bools, right: Bools) -> Estimate:
    """The share of ``side`` that is ``right``, all ``[N]``, with Wilson's interval for images in groups."""
    values = np.where(side, right.astype(np.float64), np.nan)
    share, groups = float(right[side].mean()), effective_groups(clusters, side)
    ends = share_interval(share, weighted_mean(values, cluster_weights(clusters)), int(side.sum()), groups)
    return Estimate(share, *ends, len(set(clusters[side].tolist())))


def _calibrated(subject: Subject) -> Calibrated | None:
    found = subject.calibration
    if found is None:
        return None
    figures = []
    for measure in (expected_calibration_error, brier_score):
        after = None if found.scaled is None else measure(found.scaled, found.cases.actual)
        figures.append((measure(found.probabilities, found.cases.actual), after))
    return Calibrated(subject.label, found.temperatures, *figures)


def areas(cases: Cases) -> tuple[Floats, Floats] | None:
    """Predicted and true lesion area in percent of the image, of images with a lesion; None for fewer than two."""
    if not cases.masks:
        return None
    lesion, predicted, pixels = (cases.masks[name] for name in ("lesion_pixels", "predicted_pixels", "pixels"))
    known = (lesion > 0) & (pixels > 0) & np.isfinite(predicted)
    if known.sum() < 2:
        return None
    return 100 * predicted[known] / pixels[known], 100 * lesion[known] / pixels[known]


def _agreement(subject: Subject) -> Agreement | None:
    known = areas(subject.cases) if subject.cases else None
    return None if known is None else Agreement(subject.label, len(known[0]), *bland_altman(*known))
