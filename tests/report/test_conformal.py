import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import betabinom

from busi_lab.report.results.conformal import accuracy_of_the_surest, lowest_probabilities, prediction_sets
from busi_lab.report.results.uncertainty import Floats
from tests.simulate_conformal import World, coverages

IMAGES, TESTED, REPETITIONS, COVERAGE = 100, 200, 400, 0.9


def two_classes(first: Floats) -> Floats:
    return np.stack([first, 1 - first], axis=1)


def test_the_threshold_is_at_the_corrected_place() -> None:
    first = np.linspace(0.05, 0.95, 19)  # of 19 images place ceil(20 * 0.9) = 18 by score: the second lowest
    assert lowest_probabilities(two_classes(first), np.zeros(19, int), 0.9) == pytest.approx([0.1, 0])
    nine = lowest_probabilities(two_classes(first[:9]), np.zeros(9, int), 0.9)  # 10 * 0.9 is 9: just enough
    assert nine == pytest.approx([0.05, 0])
    assert lowest_probabilities(two_classes(first[:8]), np.zeros(8, int), 0.9).tolist() == [0, 0]  # in every set


def test_sets_hold_the_classes_from_their_thresholds_on() -> None:
    sets = prediction_sets(np.array([[0.6, 0.3, 0.1], [0.2, 0.29, 0.51]]), np.array([0.6, 0.3, 0.0]))
    assert sets.tolist() == [[True, True, True], [False, False, True]]


def covered_of(lowest_of: Callable[[Floats], float], seed: int) -> Floats:
    """How many of the test images of one class have it in their set, by repetition."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(REPETITIONS):
        scores = random.beta(3, 2, IMAGES + TESTED)
        lowest = lowest_of(scores[:IMAGES])
        found.append((scores[IMAGES:] >= lowest).sum())
    return np.array(found, float)


def within_the_exact_range(covered: Floats) -> bool:
    """Mean over the repetitions against the Beta-binomial that the sets follow exactly, at 4 standard errors."""
    place = math.ceil((IMAGES + 1) * COVERAGE)
    exact = betabinom(TESTED, place, IMAGES + 1 - place)
    errors = abs(covered.mean() - exact.mean()) / (exact.std() / math.sqrt(len(covered)))
    shares = [(covered <= exact.ppf(level)).mean() - exact.cdf(exact.ppf(level)) for level in (0.05, 0.5, 0.95)]
    return bool(errors < 4 and max(map(abs, shares)) < 0.1)


def test_coverage_of_exchangeable_images_is_exactly_what_is_stated() -> None:
    def right(scores: Floats) -> float:
        return float(lowest_probabilities(two_classes(scores), np.zeros(len(scores), int), COVERAGE)[0])

    def uncorrected(scores: Floats) -> float:
        return float(np.sort(scores)[::-1][math.ceil(len(scores) * COVERAGE) - 1])

    covered = covered_of(right, 0)
    assert within_the_exact_range(covered) and covered.mean() / TESTED >= COVERAGE - 0.005
    assert not within_the_exact_range(covered_of(uncorrected, 0))


def test_coverage_holds_in_each_class_and_with_images_in_groups() -> None:
    for world, least in ((World(100), 0.9), (World(30), 0.9), (World(40, 5, 0.6), 0.88)):
        by_class, sizes = coverages(world, 200)
        errors = by_class.std(axis=0) / math.sqrt(len(by_class))
        assert (by_class.mean(axis=0) + 3 * errors >= least).all()
        assert 1 < sizes.mean() < 3
    by_class, _ = coverages(World(100, bonus=1.0), 200)  # surer on validation than on new patients
    assert (by_class.mean(axis=0) < 0.88).all()


def test_the_surest_are_kept_first_and_ties_together() -> None:
    shares, accuracies = accuracy_of_the_surest(np.array([0.5, 0.9, 0.7, 0.7]), np.array([False, True, True, False]))
    assert shares == pytest.approx([0.25, 0.75, 1])
    assert accuracies == pytest.approx([1, 2 / 3, 0.5])
