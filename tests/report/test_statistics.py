"""Intervals, tests and calibration against hand-worked values and the libraries that define them."""

import math

import numpy as np
import pytest
import torch

from busi_lab.classes import BUSI
from busi_lab.report.results.statistics import (
    area_under,
    bland_altman,
    brier_score,
    class_figures,
    counts_at,
    expected_calibration_error,
    fit_temperature,
    scale_temperature,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
    threshold_for_specificity,
    weighted_roc,
    youden_threshold,
)
from busi_lab.report.results.uncertainty import cluster_weights
from busi_lab.tasks.classification import ClassificationPart

POSITIVE = np.array([True, True, False, True, False, False, True, False])
SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.4, 0.1])
ONE = np.ones((1, 8))


def test_weights_are_repetitions() -> None:
    rng = np.random.default_rng(0)
    actual, raw = rng.integers(0, 3, 40), rng.random((40, 3)).round(1) + 0.05
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    weights = cluster_weights([str(i // 2) for i in range(40)], resamples=5)
    weighted = class_figures(actual, probabilities, weights)
    for i, times in enumerate(weights.astype(int)):
        repeated = class_figures(np.repeat(actual, times), np.repeat(probabilities, times, axis=0), np.ones((1, 40)))
        for name, values in weighted.items():
            assert values[i] == pytest.approx(repeated[name][0])


def test_class_figures_by_hand() -> None:
    # confusion: benign 2 of 3 right, one called malignant; malignant 1 of 1; no normal image, none predicted
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.5, 0.2]])
    found = class_figures(np.array([0, 0, 0, 1]), probabilities, np.ones((1, 4)))
    expected = {
        "accuracy": 3 / 4,
        "accuracy_without_normal": 3 / 4,
        "precision_present": (1 + 1 / 2) / 2,
        "recall_present": (2 / 3 + 1) / 2,
        "f1_present": (4 / 5 + 2 / 3) / 2,
        "auroc": 2 / 3,  # benign: 0.3 is below 0.8 and 0.6, above 0.2; malignant: 0.5 above 0.1 and 0.3, below 0.7
        "auroc_malignant": 2 / 3,
        "auroc_benign_malignant": 2 / 3,  # 5 / 8 is above 1 / 9 and 3 / 9, below 7 / 9
    }
    assert {name: float(value[0]) for name, value in found.items()} == pytest.approx(expected)


def test_class_figures_agree_with_those_of_the_task() -> None:
    rng = np.random.default_rng(3)
    for classes, few in ((3, 40), (2, 40), (3, 9)):
        actual = np.append(rng.integers(0, classes, few), [0, 1])
        raw = rng.random((len(actual), 3)).astype(np.float32) + (np.arange(3) == 2) * 0.2  # normal is often predicted
        probabilities = raw / raw.sum(axis=1, keepdims=True)
        ours = class_figures(actual, probabilities.astype(np.float64), np.ones((1, len(actual))))
        part = ClassificationPart()
        logits = torch.from_numpy(np.log(probabilities))
        theirs = part.summarize("test", {"logits": logits, "label": torch.from_numpy(actual)}, BUSI.names)
        del theirs["confusion_matrix"]
        assert ours.keys() == theirs.keys()
        assert {k: float(v[0]) for k, v in ours.items()} == pytest.approx({k: float(v) for k, v in theirs.items()})


def test_areas_without_a_side_are_not_defined() -> None:
    areas = area_under(*weighted_roc(np.array([True, False]), np.array([0.2, 0.1]), np.array([[1.0, 1], [2, 0]]))[:2])
    assert areas[0] == 1 and math.isnan(areas[1])


def test_sensitivity_at_specificity_by_hand() -> None:
    # from the top: 1, 2 of 4 malignant before the first of 4 others, 3 before the second, all with the third (a tie)
    curve = weighted_roc(POSITIVE, SCORE, ONE)[:2]
    assert sensitivity_at_specificity(*curve, 0.9)[0] == 0.5
    assert sensitivity_at_specificity(*curve, 0.75)[0] == 0.75
    assert specificity_at_sensitivity(*curve, 0.75)[0] == 0.75
    assert specificity_at_sensitivity(*curve, 0.9)[0] == 0.25
    assert area_under(*curve)[0] == pytest.approx((4 + 4 + 3 + 1.5) / 16)


def test_thresholds_by_hand() -> None:
    assert threshold_for_specificity(POSITIVE, SCORE, 0.9) == 0.8
    assert threshold_for_specificity(POSITIVE, SCORE, 0.75) == 0.6
    assert youden_threshold(POSITIVE, SCORE) == 0.8  # level with 0.6: 0.5 + 1 and 0.75 + 0.75
    assert counts_at(POSITIVE, SCORE, 0.6) == (3, 4, 3, 4)
    assert math.isinf(threshold_for_specificity(np.array([False, True]), np.array([0.9, 0.5]), 0.9))


def test_calibration_error_and_brier_score_by_hand() -> None:
    # bins of 1/15: 0.95 and 0.95 (one right) share the last, 0.6 (right; (8/15, 9/15]) has one of its own
    probabilities = np.array([[0.95, 0.05, 0.0], [0.95, 0.0, 0.05], [0.1, 0.6, 0.3]])
    actual = np.array([0, 1, 1])
    error = (2 * abs(0.5 - 0.95) + abs(1 - 0.6)) / 3
    assert expected_calibration_error(probabilities, actual) == pytest.approx(error)
    brier = (0.05**2 * 2 + 0.95**2 + 1 + 0.05**2 + 0.1**2 + 0.4**2 + 0.3**2) / 3
    assert brier_score(probabilities, actual) == pytest.approx(brier)
    assert brier_score(np.array([[0.0, 1.0, 0.0]]), np.array([0])) == 2
    assert expected_calibration_error(np.array([[1.0, 0, 0]]), np.array([0])) == 0


def test_temperature_is_recovered_and_scales_logits() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (40_000, 3))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    actual = (rng.random((40_000, 1)) > np.cumsum(true, axis=1)).sum(axis=1)
    confident = np.exp(2.5 * logits) / np.exp(2.5 * logits).sum(axis=1, keepdims=True)
    assert scale_temperature(confident, 2.5) == pytest.approx(true, abs=1e-9)
    temperature = fit_temperature(confident, actual)
    assert temperature == pytest.approx(2.5, rel=0.03)
    scaled = scale_temperature(confident, temperature)
    assert expected_calibration_error(scaled, actual) < 0.1 * expected_calibration_error(confident, actual)
    assert (scaled.argmax(axis=1) == confident.argmax(axis=1)).all()


def test_agreement_by_hand() -> None:
    # differences 1, 3, 2: mean 2, sample standard deviation 1
    assert bland_altman(np.array([2.0, 5, 4]), np.array([1.0, 2, 2])) == pytest.approx((2, 0.04, 3.96))
