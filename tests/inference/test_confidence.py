"""The confidence of outlined lesions in what busi-predict gives: a mean probability, or the chance to be right."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from busi_lab import predict
from busi_lab.summary import LesionCalibration, Summary, read_summary, write_summary
from tests.inference.small_runs import Cli, make_segmenter, save_run, scan

SURE = 1 / (1 + math.exp(-4))
"""Lesion probability of every pixel."""


@pytest.fixture
def calibrated(tmp_path: Path) -> Path:
    """A run that takes everything for a lesion, and has found that logits of 4 are right as often as those of 1."""
    curve = LesionCalibration(slope=0.5, intercept=-1.0, lesions=30, right=20)
    return save_run(tmp_path / "calibrated", make_segmenter(lesion=True), lesion_calibration=curve)


def test_the_mean_probability_of_a_run_without_a_curve(cli: Cli, runs: Path, tmp_path: Path) -> None:
    called = cli(scan(tmp_path / "scan.png"), "--run", runs / "all")
    (line,), (row,) = called.lines, called.table()
    assert line["confidence_calibrated"] is False
    assert [lesion["confidence"] for lesion in line["lesions"]] == [pytest.approx(SURE, abs=1e-6)]
    assert float(row["lesion_confidence"]) == pytest.approx(SURE, abs=1e-6)
    (nothing,) = cli(scan(tmp_path / "scan.png"), "--run", runs / "none").lines
    assert (nothing["lesions"], nothing["confidence_calibrated"]) == ([], False)
    (classes,) = cli(scan(tmp_path / "scan.png"), "--run", runs / "random").lines
    assert (classes["lesions"], classes["confidence_calibrated"]) == (None, None)


def test_the_chance_to_be_right_of_a_run_with_a_curve(cli: Cli, calibrated: Path, tmp_path: Path) -> None:
    called = cli(scan(tmp_path / "scan.png"), "--run", calibrated)
    (line,), (row,) = called.lines, called.table()
    expected = 1 / (1 + math.exp(-1))
    assert line["confidence_calibrated"] is True
    assert [lesion["confidence"] for lesion in line["lesions"]] == [pytest.approx(expected, abs=1e-5)]
    assert float(row["lesion_confidence"]) == pytest.approx(expected, abs=1e-5)


def test_other_probabilities_than_the_runs_own_are_not_calibrated(calibrated: Path, runs: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    for predictor, mean in (
        (predict.load(calibrated, tta=True), SURE),
        (predict.load(segmenter=[calibrated, runs / "all"]), SURE),
    ):
        found = predictor.predict(pixels)
        assert found.lesions is not None
        assert (found.confidence_calibrated, found.lesions[0].confidence) == (False, pytest.approx(mean, abs=1e-6))


def test_the_curve_is_kept_in_the_summary(calibrated: Path, tmp_path: Path) -> None:
    assert read_summary(calibrated).lesion_calibration == LesionCalibration(0.5, -1.0, 30, 20)
    older = Path(shutil.copytree(calibrated, tmp_path / "older"))
    content = json.loads((older / "summary.json").read_text())
    del content["lesion_calibration"]
    (older / "summary.json").write_text(json.dumps(content))
    assert read_summary(older).lesion_calibration is None
    write_summary(older, Summary("finished"))
    assert json.loads((older / "summary.json").read_text())["lesion_calibration"] is None
