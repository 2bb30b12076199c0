"""What prediction sets and abstention give on test images: of a run, or of an experiment's folds together."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from busi_lab.report.results.cases import read_test_cases, read_validation_cases
from busi_lab.report.results.clinical import share_estimate
from busi_lab.report.results.conformal import (
    COVERAGE,
    accuracy_of_the_surest,
    lowest_probabilities,
    prediction_sets,
)
from busi_lab.report.results.estimates import Estimate
from busi_lab.report.results.subjects import Subject
from busi_lab.report.results.uncertainty import Floats


@dataclass(frozen=True)
class JudgedSets:
    """Prediction sets of test images.

    Attributes:
        label: of the run or the experiment.
        images: of all folds.
        coverage: share of the sets with the true class.
        by_class: the same among the images of each class that has some.
        size: mean number of classes in a set.
        single: share of the sets with one class.
        empty: share of the sets with none.
        always: classes with too few validation images, in some fold, for a threshold: they are in every set there.
    """

    label: str
    images: int
    coverage: Estimate
    by_class: Mapping[str, Estimate]
    size: float
    single: float
    empty: float
    always: tuple[str, ...]


@dataclass(frozen=True)
class Abstention:
    """The accuracy among the images that are kept ``[K]``, against their share ``[K]``, rising to 1; of ``images``."""

    label: str
    images: int
    shares: Floats
    accuracies: Floats


def judge_sets(subject: Subject, coverage: float = COVERAGE) -> JudgedSets | None:
    """The sets of the first pair of seeds, each fold with the thresholds that its own validation images give.

    None without classes, and where a run has no readable test or validation images.
    """
    tests, sets, always = [], [], []
    for run in subject.repeats[0]:
        test, validation = read_test_cases(run), read_validation_cases(run)
        if test is None or test.probabilities is None or validation is None or validation.probabilities is None:
            return None
        lowest = lowest_probabilities(validation.probabilities, validation.actual, coverage)
        always += [name for name, least in zip(test.classes.names, lowest, strict=True) if least == 0]
        sets.append(prediction_sets(test.probabilities, lowest))
        tests.append(test)
    together, names = np.concatenate(sets), tests[0].classes.names
    actual, clusters = (np.concatenate([getattr(test, name) for test in tests]) for name in ("actual", "clusters"))
    covered, sizes = together[np.arange(len(actual)), actual], together.sum(axis=1)
    of_class = {name: actual == column for column, name in enumerate(names)}
    return JudgedSets(
        subject.label,
        len(actual),
        share_estimate(clusters, np.ones(len(actual), np.bool_), covered),
        {name: share_estimate(clusters, side, covered) for name, side in of_class.items() if side.any()},
        float(sizes.mean()),
        float((sizes == 1).mean()),
        float((sizes == 0).mean()),
        tuple(name for name in names if name in always),
    )


def abstain(subject: Subject) -> Abstention | None:
    """The curve of the first pair of seeds; None without classes or readable predictions.

    Each fold leaves out the same share, because confidences of different networks are not ranked together.
    """
    parts = subject.parts[: len(subject.repeats[0])]
    ranks, right = [], []
    for part in parts:
        if part.probabilities is None:
            return None
        confidence = part.probabilities.max(axis=1)
        surer = len(part) - np.searchsorted(np.sort(confidence), confidence, side="left")
        ranks.append(-surer / len(part))  # images that are at least as sure
        right.append(part.right)
    if not parts:
        return None
    shares, accuracies = accuracy_of_the_surest(np.concatenate(ranks), np.concatenate(right))
    return Abstention(subject.label, sum(map(len, parts)), shares, accuracies)
