"""How far to believe an outlined lesion: its confidence, whether it is right, and what makes one tell of the other.

An outlined lesion is a connected part of a predicted mask. Its confidence is the mean lesion probability of its pixels.
It is right when it overlaps with the true lesions that it touches, taken together, by an IoU of :data:`RIGHT_IOU`.
"""

import csv
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from busi_lab.report.results.estimates import Estimate
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.statistics import calibration_error, roc
from busi_lab.report.results.uncertainty import Bools, Floats, cluster_weights, effective_groups, share_interval
from busi_lab.run_directory import Run
from busi_lab.summary import LesionCalibration

RIGHT_IOU = 0.5
"""IoU from which on an outlined lesion is right."""

FEWEST = 20
"""Outlined lesions of validation, below which nothing is fitted to them."""

_EDGE = 1e-6  # the logit of 0 and 1 is infinite


def fit_lesion_calibration(confidence: Floats, right: Bools) -> LesionCalibration | None:
    """The logistic curve with the least negative log likelihood, its slope 0 or more.

    Source: Platt, "Probabilistic outputs for support vector machines", 1999, whose targets lie a little inside 0 and 1,
    so that lesions which confidence tells apart without a mistake have a finite curve.

    Args:
        confidence: ``[N]``, of lesions outlined on validation images.
        right: ``[N]``.

    Returns:
        None for fewer than :data:`FEWEST` lesions, and where all or none of them are right.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    count, hits = len(right), int(right.sum())
    if count < FEWEST or hits in (0, count):
        return None
    targets = np.where(right, (hits + 1) / (hits + 2), 1 / (count - hits + 2))
    scores = _logit(confidence)

    def loss(values: Floats) -> tuple[float, Floats]:
        logits = values[0] * scores + values[1]
        pulls = expit(logits) - targets
        likelihood = (np.logaddexp(0, logits) - targets * logits).mean()
        return float(likelihood), np.array([(pulls * scores).mean(), pulls.mean()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=((0, None), (None, None)))
    slope, intercept = found.x.tolist()
    return LesionCalibration(slope, intercept, count, hits)


def calibrated_confidence(confidence: Floats, calibration: LesionCalibration) -> Floats:
    """The probability ``[N]`` that outlined lesions of a confidence ``[N]`` are right."""
    from scipy.special import expit

    found: Floats = expit(calibration.slope * _logit(confidence) + calibration.intercept)
    return found


def _logit(probability: Floats) -> Floats:
    inside = np.clip(np.asarray(probability, np.float64), _EDGE, 1 - _EDGE)
    logits: Floats = np.log(inside / (1 - inside))
    return logits


@dataclass(frozen=True)
class Lesions:
    """Outlined lesions of test images, ``[N]`` each.

    Attributes:
        confidence: the mean lesion probability.
        calibrated: the probability that the outline is right; None where the run has no such curve.
        right: whether it is.
        clusters: the group of its image.
    """

    confidence: Floats
    calibrated: Floats | None
    right: Bools
    clusters: NDArray[np.str_]


def read_lesions(run: Run) -> Lesions | None:
    """The lesions that a run has outlined on its test images; None without any, without their file or a sound one."""
    try:
        rows = run.lesions
        confidence = np.array([float(row["confidence"]) for row in rows])
        right = np.array([bool(int(row["right"])) for row in rows], np.bool_)
        clusters = np.array([row["group"] or row["image"] for row in rows])
    except (OSError, KeyError, ValueError, TypeError, csv.Error):
        return None
    if not rows or not ((confidence >= 0) & (confidence <= 1)).all():
        return None
    curve = run.summary.lesion_calibration
    return Lesions(confidence, None if curve is None else calibrated_confidence(confidence, curve), right, clusters)


@dataclass(frozen=True)
class JudgedLesions:
    """What the confidence of an experiment's outlined lesions is worth.

    Attributes:
        label: of the experiment.
        lesions: of the first pair of seeds, folds together.
        runs: that have outlined them.
        right: the share of them that is right.
        brier: mean squared error of the confidence, before and after calibration, None where there is none.
        errors: calibration error, likewise.
        auroc: the chance that a right outline has more confidence than a wrong one; None without both kinds.
    """

    label: str
    lesions: Lesions
    runs: int
    right: Estimate
    brier: tuple[float, float | None]
    errors: tuple[float, float | None]
    auroc: float | None


def judge_lesions(item: Experiment) -> JudgedLesions | None:
    """The lesions of the folds of the first pair of seeds, each with its own curve; None where a run lacks them."""
    found = [read_lesions(row.run) for row in next(iter(item.repeats.values()))]
    known = [lesions for lesions in found if lesions is not None]
    if len(known) < len(found):
        return None
    calibrated = [lesions.calibrated for lesions in known if lesions.calibrated is not None]
    together = Lesions(
        np.concatenate([lesions.confidence for lesions in known]),
        np.concatenate(calibrated) if len(calibrated) == len(known) else None,
        np.concatenate([lesions.right for lesions in known]),
        np.concatenate([lesions.clusters for lesions in known]),
    )
    kinds = (together.confidence, together.calibrated)
    brier = [None if each is None else float(((each - together.right) ** 2).mean()) for each in kinds]
    errors = [None if each is None else calibration_error(each, together.right) for each in kinds]
    assert brier[0] is not None and errors[0] is not None
    curve = roc(together.right, together.confidence)
    scores = (brier[0], brier[1]), (errors[0], errors[1]), None if curve is None else curve.auc
    return JudgedLesions(item.label, together, len(known), _share(together), *scores)


def _share(lesions: Lesions) -> Estimate:
    """The share that is right, with an interval for lesions of images in groups."""
    groups, member = np.unique(lesions.clusters, return_inverse=True)
    hits, counts = np.bincount(member, lesions.right.astype(np.float64)), np.bincount(member).astype(np.float64)
    draws = cluster_weights(groups)  # of groups, not of lesions: an untrained network outlines thousands
    share = float(lesions.right.mean())
    ends = share_interval(
        share, (draws @ hits) / (draws @ counts), len(lesions.right), effective_groups(lesions.clusters)
    )
    return Estimate(share, *ends, len(groups))
