"""Prediction sets: the classes that a scan may have, so that the true one is among them with a stated probability.

Split conformal prediction (Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005; Angelopoulos &
Bates, arXiv:2107.07511, 2021) with the score 1 - p of the true class (Sadinle, Lei & Wasserman, JASA 114(525), 2019),
and a threshold for each class, so that the coverage holds among the scans of each class (Vovk, "Conditional validity of
inductive conformal predictors", ACML 2012): one threshold for all may buy its coverage with the frequent class alone.

It holds for scans that are exchangeable with those that the thresholds are from, whatever the network is.
"""

import math

import numpy as np

from busi_lab.report.results.statistics import Indices
from busi_lab.report.results.uncertainty import Bools, Floats

COVERAGES = (0.8, 0.9, 0.95)
"""Those that thresholds are kept for."""
COVERAGE = 0.9
"""That of reports."""


def lowest_probabilities(probabilities: Floats, actual: Indices, coverage: float) -> Floats:
    """The probability from which on a class is in the set, for each class ``[C]``.

    Of the n images of a class, the one at place ceil((n + 1) * coverage) by score, smallest first, gives it. Where n is
    smaller than that, no image can, and it is 0: the class is in every set.

    Args:
        probabilities: ``[N, C]`` of images that the network has not learnt from, and that are not reported with it.
        actual: ``[N]``.
        coverage: above 0 and below 1.
    """
    found = np.zeros(probabilities.shape[1])
    for column in range(len(found)):
        own = np.sort(probabilities[actual == column, column])[::-1]
        place = math.ceil(round((len(own) + 1) * coverage, 9))  # 10 * 0.9 is 9, and no 9.000000000000002
        if place <= len(own):
            found[column] = own[place - 1]
    return found


def prediction_sets(probabilities: Floats, lowest: Floats) -> Bools:
    """Which classes are in the set of which image, ``[N, C]``, of ``probabilities [N, C]`` and ``lowest [C]``."""
    sets: Bools = probabilities >= lowest
    return sets


def accuracy_of_the_surest(confidence: Floats, right: Bools) -> tuple[Floats, Floats]:
    """The share of images that is kept when the least confident ones are left out, and how many of those are right.

    Source: El-Yaniv & Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 11, 2010: coverage and
    one minus the risk.

    Args:
        confidence: ``[N]``; images of equal confidence are kept together.
        right: ``[N]``.

    Returns:
        Shares ``[K]``, rising to 1, and accuracies ``[K]``.
    """
    order = np.argsort(-confidence, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
    kept = last_of_tie + 1
    return kept / len(confidence), np.cumsum(right[order])[last_of_tie] / kept
