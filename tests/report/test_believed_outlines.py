"""What the confidence of outlined lesions is worth, on arrays and run directories made here."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from busi_lab.files import write_rows
from busi_lab.report.results.lesions import calibrated_confidence, fit_lesion_calibration
from busi_lab.report.results.statistics import calibration_error
from busi_lab.report.words import MISSING
from busi_lab.run_directory import LESIONS
from busi_lab.summary import LesionCalibration
from tests.report.said import read
from tests.report.said import rows as shown
from tests.report.test_systems import LEAKY, fold, make


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


def record(folder: Path, name: str, split: dict[str, Any], rows: list[tuple[float, int]], **changes: Any) -> None:
    """A finished run that has outlined lesions of some confidence, right (1) or not (0), each of its own image."""
    make(folder, name, split, **changes)
    lesions = [
        {"image": f"{i:03}", "group": f"g{i}", "lesion": 1, "pixels": 9, "confidence": sure, "iou": 0.6 * right}
        | {"right": right}
        for i, (sure, right) in enumerate(rows)
    ]
    write_rows(folder / LESIONS, lesions, ("image", "group", "lesion", "pixels", "confidence", "iou", "right"))


ROWS = [(0.9, 1)] * 24 + [(0.9, 0)] * 6 + [(0.6, 1)] * 4 + [(0.6, 0)] * 16
TITLE = "How far to believe an outline: busi, published protocol, test set p"


def test_outlines_are_judged_beside_their_confidence(tmp_path: Path) -> None:
    # 0.9, whose logit is ln 9, becomes 0.8, and 0.6, of ln 1.5, becomes 0.2: as often as they are right
    slope = 2 * math.log(4) / math.log(6)
    curve = LesionCalibration(slope, math.log(4) - slope * math.log(9), 30, 20)
    record(tmp_path / "a", "curved", LEAKY, ROWS, lesion_calibration=curve)
    record(tmp_path / "b", "plain", LEAKY, ROWS[:15])
    make(tmp_path / "c", "old", LEAKY)
    section = read(tmp_path)[TITLE]
    (grid,) = section.grids
    found = {line[0]: line[1:] for line in shown(grid)}
    before = (24 * 0.01 + 6 * 0.81 + 4 * 0.16 + 16 * 0.36) / 50
    after = (24 * 0.04 + 6 * 0.64 + 4 * 0.64 + 16 * 0.04) / 50
    assert found.keys() == {"curved", "plain"}
    assert found["curved"][:3] == ["50", "0.560", "0.780"]
    # of 28 right and 22 wrong: 24 * 16 in the right order, 24 * 6 and 4 * 16 level, 4 * 6 in the wrong one
    assert found["curved"][3] == f"{(24 * 16 + (24 * 6 + 4 * 16) / 2) / (28 * 22):.3f}"
    assert found["curved"][4:6] == [f"{before:.3f}", f"{after:.3f}"]
    # of 30 with 0.9 the share 0.8 is right, of 20 with 0.6 the share 0.2
    assert found["curved"][6:] == [f"{(30 * 0.1 + 20 * 0.4) / 50:.3f}", "0.000"]
    assert found["plain"][3] == found["plain"][5] == found["plain"][7] == MISSING
    assert any("all or none of them right: plain." in sentence for sentence in section.sentences)
    (line,) = [line for line in grid.lines if line[0].text == "curved"]
    low, high = map(float, line[2].second[0].split(" to "))
    assert 0.40 < low < 0.45 and 0.67 < high < 0.71  # Wilson of 28 of 50: 0.423 to 0.688
    (panel,) = section.groups[0].panels
    assert panel.alt.startswith("Reliability diagram of ") and "mean lesion probability: ECE" in panel.alt


def test_folds_are_counted_together_each_with_its_own_curve(tmp_path: Path) -> None:
    flat = [LesionCalibration(0.0, intercept, 30, 20) for intercept in (0.0, -math.log(3))]  # a half, a quarter
    for number in (0, 1):
        images = range(100 * number, 100 * number + 60)
        record(tmp_path / f"{number}", "folds", fold(number), ROWS[:20], images=images, lesion_calibration=flat[number])
    section = next(each for title, each in read(tmp_path).items() if title.startswith("How far to believe"))
    (line,) = shown(section.grids[0])
    assert line[1:3] == ["40", "1.000"]
    assert line[6] == f"{(0.5**2 + 0.75**2) / 2:.3f}"
    assert any("each fold has its own curve" in sentence for sentence in section.sentences)


@pytest.mark.parametrize("cell", ["1.5", "", "sure"])
def test_a_damaged_file_says_nothing(tmp_path: Path, cell: str) -> None:
    record(tmp_path / "a", "damaged", LEAKY, ROWS)
    path = tmp_path / "a" / LESIONS
    path.write_text(path.read_text().replace(",0.9,", f",{cell},", 1))
    assert not [title for title in read(tmp_path) if title.startswith("How far to believe")]
