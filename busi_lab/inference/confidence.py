"""The confidence of outlined lesions as the probability that an outline is right, where a run has found how."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from busi_lab.inference.measures import Lesion
from busi_lab.report.results.lesions import calibrated_confidence
from busi_lab.summary import LesionCalibration, Summary


def find_calibration(segmenters: Mapping[Path, Summary], changed: bool) -> LesionCalibration | None:
    """What the one segmenter has found on its validation images.

    Args:
        segmenters: by directory.
        changed: whether lesion probabilities are others than those that it was found with.

    Returns:
        None of several runs, whose mean has none, of changed probabilities, and where the run has found nothing.
    """
    if len(segmenters) != 1 or changed:
        return None
    (summary,) = segmenters.values()
    int8 = summary.export is not None and summary.export.int8
    return None if int8 else summary.lesion_calibration


def calibrate(lesions: Sequence[Lesion], calibration: LesionCalibration | None) -> tuple[Lesion, ...]:
    """Lesions with the probability that their outline is right; as they are without a calibration."""
    if calibration is None:
        return tuple(lesions)
    confidence = np.array([lesion.confidence for lesion in lesions], np.float64)
    found = calibrated_confidence(confidence, calibration).tolist()
    return tuple(replace(lesion, confidence=value) for lesion, value in zip(lesions, found, strict=True))
