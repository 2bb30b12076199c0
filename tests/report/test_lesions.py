"""What the confidence of outlined lesions is worth, on arrays and run directories made here."""

import numpy as np
import pytest

from busi_lab.report.results.lesions import calibrated_confidence, fit_lesion_calibration
from busi_lab.report.results.statistics import calibration_error
from busi_lab.summary import LesionCalibration


def test_a_curve_by_hand() -> None:
    curve = LesionCalibration(2.0, -1.0, 30, 20)
    # logits 0 and ln 4 become -1 and 2 ln 4 - 1
    expected = [1 / (1 + np.e), 16 / (16 + np.e)]
    assert calibrated_confidence(np.array([0.5, 0.8]), curve) == pytest.approx(expected)
    assert np.isfinite(calibrated_confidence(np.array([0.0, 1.0]), curve)).all()


def test_the_curve_behind_lesions_is_found() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000)
    true = calibrated_confidence(confidence, LesionCalibration(0.6, -1.5, 0, 0))
    right = rng.random(20_000) < true
    found = fit_lesion_calibration(confidence, right)
    assert found is not None and (found.lesions, found.right) == (20_000, right.sum())
    assert (found.slope, found.intercept) == pytest.approx((0.6, -1.5), abs=0.08)
    before, after = (
        calibration_error(confidence, right),
        calibration_error(calibrated_confidence(confidence, found), right),
    )
    assert after < 0.02 < 0.3 < before


def test_confidence_that_says_nothing_becomes_the_share_that_is_right() -> None:
    confidence, right = np.linspace(0.5, 0.99, 40), np.arange(40) < 10  # the surer, the wronger
    found = fit_lesion_calibration(confidence, right)
    assert found is not None and found.slope == 0
    # 10 of 40, by targets a little inside 0 and 1: (10 * 11 / 12 + 30 / 32) / 40
    assert calibrated_confidence(confidence, found) == pytest.approx((110 / 12 + 30 / 32) / 40, abs=1e-4)


def test_lesions_that_are_told_apart_have_a_finite_curve_and_few_have_none() -> None:
    confidence, right = np.repeat([0.55, 0.95], 10), np.repeat([False, True], 10)
    found = fit_lesion_calibration(confidence, right)
    assert found is not None
    # the curve goes through both targets, 1/12 and 11/12
    assert calibrated_confidence(confidence[9:11], found) == pytest.approx([1 / 12, 11 / 12], abs=1e-3)
    assert fit_lesion_calibration(confidence[1:], right[1:]) is None
    assert fit_lesion_calibration(confidence, np.ones(20, bool)) is None
    assert fit_lesion_calibration(confidence, np.zeros(20, bool)) is None
