"""Figures of predicted images, and calibration: pure functions of arrays.

Every figure that gets an interval is a function of weights ``[B, N]`` of the images, so that the figure itself
(weights of one) and its bootstrap (how often a resample has the image) come from the same lines.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from busi_lab.classes import BUSI, Classes
from busi_lab.report.results.uncertainty import Bools, Floats

Indices = NDArray[np.intp]

ECE_BINS = 15


def weighted_roc(positive: Bools, score: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """ROC curves of weighted images, images with equal scores at one threshold.

    Args:
        positive: ``[N]``.
        score: ``[N]``, higher for positive.
        weights: ``[B, N]``.

    Returns:
        False and true positive rates ``[B, T + 1]`` from 0 to 1 for the T distinct scores, highest first, and the
        scores ``[T + 1]``, of which the first is infinite. Rates are NaN where a resample lacks a side.
    """
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    truth = positive[order]

    def rates(side: Bools) -> Floats:
        sums = np.pad(np.cumsum(weights[:, order[side]], axis=1), ((0, 0), (1, 0)))
        with np.errstate(invalid="ignore"):
            shares: Floats = sums[:, np.append(0, np.cumsum(side)[last_of_tie])] / sums[:, -1:]
        return shares

    return rates(~truth), rates(truth), np.append(np.inf, score[order][last_of_tie])


def area_under(false_rate: Floats, true_rate: Floats) -> Floats:
    """Area under each curve of :func:`weighted_roc`, ties with half credit, ``[B]``; NaN where a side is missing."""
    area: Floats = (np.diff(false_rate, axis=1) * (true_rate[:, 1:] + true_rate[:, :-1])).sum(axis=1) / 2
    return area


@dataclass(frozen=True)
class Roc:
    """A receiver operating characteristic from (0, 0) to (1, 1); ``auc`` is the area below it."""

    false_positive_rate: Floats
    true_positive_rate: Floats
    auc: float


def roc(positive: Bools, score: Floats) -> Roc | None:
    """The curve of unweighted images, ``positive [N]`` and ``score [N]``; None where one side is missing."""
    if positive.all() or not positive.any():
        return None
    false_rate, true_rate, _ = weighted_roc(positive, score, np.ones((1, len(score))))
    return Roc(false_rate[0], true_rate[0], float(area_under(false_rate, true_rate)[0]))


def precision_recall(positive: Bools, score: Floats) -> tuple[Floats, Floats] | None:
    """Recall and precision ``[T + 1]`` from (0, 1) on, one threshold after another; None without a positive image."""
    if not positive.any():
        return None
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    hits = np.cumsum(positive[order])[last_of_tie]
    return np.append(0.0, hits / hits[-1]), np.append(1.0, hits / (last_of_tie + 1))


def class_figures(
    actual: Indices, probabilities: Floats, weights: Floats, classes: Classes = BUSI
) -> dict[str, Floats]:
    """Classification figures of weighted images, as the task defines them.

    ``precision``, ``recall`` and ``f1`` are means over the classes of the images (of a resample), ``auroc`` as well;
    where one of the classes has no image, their names are ``precision_present``, ``recall_present`` and
    ``f1_present``. Where all classes with a lesion have images, ``accuracy_without_WITHOUT_LESION`` is that of the most
    probable one of them, and ``auroc_NEGATIVE_POSITIVE`` has the score p_positive / (p_negative + p_positive); both
    leave images without a lesion out. ``auroc_POSITIVE`` is that of the positive class against the rest.

    Args:
        actual: ``[N]``, indices into the names of ``classes``.
        probabilities: ``[N, C]``; the largest is the prediction.
        weights: ``[B, N]``.
        classes: their names, and which have a role.

    Returns:
        Metric name to ``[B]``, NaN where a resample does not define it.
    """
    predicted = probabilities.argmax(axis=1)
    columns = range(len(classes.names))
    right = np.stack([weights @ ((actual == i) & (predicted == i)) for i in columns])
    labelled = np.stack([weights @ (actual == i) for i in columns])
    chosen = np.stack([weights @ (predicted == i) for i in columns])
    present = labelled > 0
    areas = np.stack([area_under(*weighted_roc(actual == i, probabilities[:, i], weights)[:2]) for i in columns])

    def macro(shares: Floats, divisor: Floats) -> Floats:
        each = np.divide(shares, divisor, out=np.zeros_like(shares), where=divisor > 0)
        with np.errstate(invalid="ignore"):
            mean: Floats = np.where(present, each, 0.0).sum(axis=0) / present.sum(axis=0)
        return mean

    known = np.isfinite(areas)
    with np.errstate(invalid="ignore"):
        accuracy = right.sum(axis=0) / labelled.sum(axis=0)
        auroc = np.where(known, areas, 0.0).sum(axis=0) / known.sum(axis=0)
    folded = _lesion_figures(actual, probabilities, weights, classes)
    ending = "" if len(set(actual.tolist())) == len(classes.names) else "_present"
    positive = classes.positive and {f"auroc_{classes.positive}": areas[classes.number(classes.positive)]}
    return {
        "accuracy": accuracy,
        **folded,
        f"precision{ending}": macro(right, chosen),
        f"recall{ending}": macro(right, labelled),
        f"f1{ending}": macro(2 * right, labelled + chosen),
        "auroc": auroc,
        **(positive or {}),
    }


def _lesion_figures(actual: Indices, probabilities: Floats, weights: Floats, classes: Classes) -> dict[str, Floats]:
    """The figures of :func:`class_figures` that leave images without a lesion out."""
    columns = [classes.number(name) for name in classes.lesions]
    if len(columns) < 2 or not all((actual == column).any() for column in columns):
        return {}
    found: dict[str, Floats] = {}
    lesion = np.isin(actual, columns)
    if classes.accuracy_lesions:
        chosen = np.array(columns)[probabilities[:, columns].argmax(axis=1)]
        found[classes.accuracy_lesions] = weighted_mean(
            np.where(lesion, (chosen == actual).astype(np.float64), np.nan), weights
        )
    if classes.auroc_lesions and classes.positive:
        positive = classes.number(classes.positive)
        score = lesion_score(probabilities, classes)
        curve = weighted_roc(actual[lesion] == positive, score[lesion], weights[:, lesion])
        found[classes.auroc_lesions] = area_under(*curve[:2])
    return found


def lesion_score(probabilities: Floats, classes: Classes) -> Floats:
    """The share of the positive class in the probability of both classes with a lesion, ``[N]``; 0.5 where both are 0.

    Args:
        probabilities: ``[N, C]``.
        classes: with a negative class.
    """
    assert classes.negative and classes.positive
    pair = probabilities[:, [classes.number(classes.negative), classes.number(classes.positive)]]
    both = pair.sum(axis=1)
    share: Floats = np.divide(pair[:, 1], both, out=np.full(len(both), 0.5), where=both > 0)
    return share


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Mean of the defined ``values [N]`` under ``weights [B, N]``, as ``[B]``; NaN where a resample has none."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = (weights @ np.where(known, values, 0.0)) / (weights @ known.astype(np.float64))
    return mean


def sensitivity_at_specificity(false_rate: Floats, true_rate: Floats, specificity: float) -> Floats:
    """The highest sensitivity of any threshold with at least ``specificity``, ``[B]``, of :func:`weighted_roc`."""
    best: Floats = np.where(1 - false_rate >= specificity - 1e-12, true_rate, 0.0).max(axis=1)
    return np.where(np.isnan(true_rate[:, 0] + false_rate[:, 0]), np.nan, best)


def specificity_at_sensitivity(false_rate: Floats, true_rate: Floats, sensitivity: float) -> Floats:
    """The highest specificity of any threshold with at least ``sensitivity``, ``[B]``, of :func:`weighted_roc`."""
    best: Floats = np.where(true_rate >= sensitivity - 1e-12, 1 - false_rate, 0.0).max(axis=1)
    return np.where(np.isnan(true_rate[:, 0] + false_rate[:, 0]), np.nan, best)


def threshold_for_specificity(positive: Bools, score: Floats, specificity: float) -> float:
    """The lowest of the scores ``[N]`` that, as a threshold (positive from it upwards), has ``specificity`` or more.

    It is infinite, so that no image is positive, where no score reaches it.
    """
    false_rate, _, thresholds = weighted_roc(positive, score, np.ones((1, len(score))))
    allowed = np.flatnonzero(1 - false_rate[0] >= specificity - 1e-12)
    return float(thresholds[allowed[-1]])


def youden_threshold(positive: Bools, score: Floats) -> float:
    """The score with the largest sensitivity + specificity - 1 (Youden, Cancer 3, 1950); of equals the highest."""
    false_rate, true_rate, thresholds = weighted_roc(positive, score, np.ones((1, len(score))))
    return float(thresholds[int(np.argmax(np.round(true_rate[0] - false_rate[0], 12)))])


def counts_at(positive: Bools, score: Floats, threshold: float) -> tuple[int, int, int, int]:
    """True positives, positives, true negatives, negatives when scores ``[N]`` from ``threshold`` are positive."""
    called = score >= threshold
    return int((called & positive).sum()), int(positive.sum()), int((~called & ~positive).sum()), int((~positive).sum())


def expected_calibration_error(probabilities: Floats, actual: Indices, bins: int = ECE_BINS) -> float:
    """The :func:`calibration_error` of the largest probability.

    Args:
        probabilities: ``[N, C]``.
        actual: ``[N]``.
        bins: of the range 0 to 1.
    """
    return calibration_error(*surest(probabilities, actual), bins)


def surest(probabilities: Floats, actual: Indices) -> tuple[Floats, Bools]:
    """The largest probability of each image ``[N]``, and whether its class is the actual one."""
    right: Bools = probabilities.argmax(axis=1) == actual
    return probabilities.max(axis=1), right


def calibration_error(confidence: Floats, right: Bools, bins: int = ECE_BINS) -> float:
    """Mean distance of the share that is right and of confidence over bins of equal width, weighted by their numbers.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; a bin excludes its lower edge.

    Args:
        confidence: ``[N]``, the stated probability to be right.
        right: ``[N]``.
        bins: of the range 0 to 1.
    """
    _, stated, share, count = reliability(confidence, right, bins)
    return float((count * np.abs(share - stated)).sum() / count.sum())


def reliability(confidence: Floats, right: Bools, bins: int = ECE_BINS) -> tuple[Floats, Floats, Floats, Floats]:
    """The bins of :func:`calibration_error` that hold anything.

    Returns:
        Their middles, mean confidence, share that is right and number, ``[at most bins]`` each.
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins).astype(np.float64)
    held = count > 0
    each = (confidence, right.astype(np.float64))
    means = [np.bincount(place, values, bins)[held] / count[held] for values in each]
    return (np.flatnonzero(held) + 0.5) / bins, means[0], means[1], count[held]


def brier_score(probabilities: Floats, actual: Indices) -> float:
    """Mean over images of the squared errors of all class probabilities, summed: from 0 to 2.

    Source: Brier, Monthly Weather Review 78(1), 1950, in its original form for several classes.
    """
    truth = np.eye(probabilities.shape[1])[actual]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def scale_temperature(probabilities: Floats, temperature: float) -> Floats:
    """``p ** (1 / T)``, renormalised ``[N, C]``: what dividing the logits by T gives after softmax."""
    logarithms = np.log(np.clip(probabilities, 1e-300, None)) / temperature
    scaled = np.exp(logarithms - logarithms.max(axis=1, keepdims=True))
    shares: Floats = scaled / scaled.sum(axis=1, keepdims=True)
    return shares


TEMPERATURES = (0.05, 20.0)
"""The range in which a temperature is searched; one at its end says that the validation set has no optimum inside."""


def fit_temperature(probabilities: Floats, actual: Indices) -> float:
    """The temperature with the least negative log likelihood (Guo et al., ICML 2017), within ``TEMPERATURES``.

    Args:
        probabilities: ``[N, C]`` on images that chose no other figure that is reported with it: validation.
        actual: ``[N]``.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        scaled = scale_temperature(probabilities, math.exp(log_temperature))
        return float(-np.log(np.clip(scaled[np.arange(len(actual)), actual], 1e-300, None)).mean())

    bounds = (math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    return math.exp(float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def has_no_optimum(temperature: float) -> bool:
    """Whether a fitted temperature is at the end of its range, so that no optimum was found."""
    return not 1.01 * TEMPERATURES[0] < temperature < 0.99 * TEMPERATURES[1]


def bland_altman(measured: Floats, true: Floats) -> tuple[float, float, float]:
    """Mean of ``measured - true`` and the limits that hold 95 % of normal differences: bias, lower, upper.

    Source: Bland & Altman, Lancet 327, 1986: bias -/+ 1.96 sample standard deviations.

    Args:
        measured: ``[N]``, N at least 2.
        true: ``[N]``.
    """
    differences = measured - true
    bias, deviation = float(differences.mean()), float(differences.std(ddof=1))
    return bias, bias - 1.96 * deviation, bias + 1.96 * deviation
