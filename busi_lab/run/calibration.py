"""What a run learns from its validation images of how sure it is.

A temperature, thresholds of prediction sets, and how often an outlined lesion of some confidence is right.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from busi_lab.report.results.conformal import COVERAGES, lowest_probabilities
from busi_lab.report.results.lesions import fit_lesion_calibration
from busi_lab.report.results.statistics import Indices, fit_temperature, has_no_optimum
from busi_lab.report.results.uncertainty import Floats
from busi_lab.summary import LesionCalibration, Summary


def learn_confidence(
    summary: Summary,
    rows: Sequence[Mapping[str, Any]],
    lesions: Sequence[Mapping[str, Any]] | None,
    classes: Sequence[str],
) -> None:
    """Note in the summary of a run what its validation images tell.

    Args:
        summary: of the run.
        rows: of ``validation.csv``.
        lesions: outlined on validation images, as rows of ``lesions.csv``; None without lesion probabilities.
        classes: in the order of probabilities.
    """
    summary.temperature = validation_temperature(rows, classes)
    summary.set_thresholds = validation_thresholds(rows, classes)
    summary.lesion_calibration = validation_lesions(lesions or [])


def validation_temperature(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> float | None:
    """The temperature that fits validation images best, see :func:`fit_temperature`.

    Args:
        rows: of ``validation.csv``.
        classes: in the order of probabilities.

    Returns:
        None without classes, and where none inside the range is best.
    """
    if not rows or "prediction" not in rows[0]:
        return None
    probabilities, actual = _judged(rows, classes)
    if (probabilities.argmax(axis=1) == actual).all():  # the surer the better
        return None
    found = fit_temperature(probabilities, actual)
    return None if has_no_optimum(found) else found


def validation_thresholds(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """The probabilities from which on classes are in a prediction set, see :func:`lowest_probabilities`.

    Args:
        rows: of ``validation.csv``.
        classes: in the order of probabilities.

    Returns:
        By stated coverage (``0.9``), then by class; empty without classes.
    """
    if not rows or "prediction" not in rows[0]:
        return {}
    judged = _judged(rows, classes)
    return {
        str(coverage): dict(zip(classes, lowest_probabilities(*judged, coverage).tolist(), strict=True))
        for coverage in COVERAGES
    }


def validation_lesions(lesions: Sequence[Mapping[str, Any]]) -> LesionCalibration | None:
    """From confidence to the probability that an outline is right, see :func:`fit_lesion_calibration`.

    Args:
        lesions: outlined on validation images, as rows of ``lesions.csv``.
    """
    confidence, right = (np.array([lesion[name] for lesion in lesions]) for name in ("confidence", "right"))
    return fit_lesion_calibration(confidence, right == 1)


def _judged(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> tuple[Floats, Indices]:
    probabilities = np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows])
    return probabilities, np.array([classes.index(row["label"]) for row in rows])
