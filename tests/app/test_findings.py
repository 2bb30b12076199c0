"""What the page says of a scan: probabilities, sets, warnings, and what is off."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from busi_lab.app.about import describe_model
from busi_lab.app.findings import find, warnings
from busi_lab.app.models import Model, common_classes, distinct_names, load_models
from busi_lab.app.uploads import Upload, read_frame
from busi_lab.app.words import measure_rows, set_sentence
from busi_lab.data.known_scans import NearCopy
from busi_lab.data.reading import read_image
from busi_lab.data.scan import Origin, Scan
from busi_lab.errors import UserError
from busi_lab.inference.prediction import Prediction
from busi_lab.inference.predictor import Predictor
from busi_lab.summary import LesionCalibration, read_summary, write_summary
from tests.inference.small_runs import make_classifier, make_segmenter, save_run

BLANK = Scan(np.zeros((4, 5), np.uint8), None, None)
PREDICTION = Prediction(4, 5, None, {"benign": 0.7, "malignant": 0.3}, None, None, ())


def test_probabilities_are_those_of_the_calibrated_logits(models: list[Model], opened: Callable[[str], Upload]) -> None:
    classifier = models[1]
    assert classifier.temperature is not None
    scan = read_frame(opened("benign"), 0)
    expected = Predictor([classifier.directory], [], "cpu", calibrated=True).predict(scan).probabilities
    found = find(classifier, scan).probabilities
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_scan_that_a_model_has_learnt_from_is_named(models: list[Model], phantom_root: Path) -> None:
    joint = models[0]
    assert joint.learnt is not None
    learnt = next(name for name in joint.learnt.names if "malignant" in name)
    pixels = read_image(phantom_root / "malignant" / f"{learnt}.png")
    first, *_ = find(joint, Scan(pixels[:, ::-1].copy(), None, None)).warnings
    assert first.startswith(f"Near-copy of a scan that the model has learnt from ({learnt}, similarity ")


def test_a_model_of_phantoms_says_so(models: list[Model], opened: Callable[[str], Upload]) -> None:
    for model in models:
        said = find(model, read_frame(opened("benign"), 0)).warnings
        assert "This run has learnt from phantoms alone: its answer says nothing about a patient." in said


def test_what_speaks_against_a_prediction_is_said() -> None:
    assert warnings(PREDICTION, 0.9, None, BLANK) == ()
    copy = NearCopy("benign (1)", 0.5)
    assert warnings(PREDICTION, 0.9, copy, BLANK)[0].startswith("Near-copy of a scan")
    assert warnings(replace(PREDICTION, lesions=()), None, None, BLANK)[0].startswith("No lesion was found.")
    noted = replace(PREDICTION, lesions=(), notes=("benign, but no lesion was found",))
    assert warnings(noted, None, None, BLANK) == ("Benign, but no lesion was found.",)
    everything = replace(PREDICTION, prediction_set=("benign", "malignant"))
    assert warnings(everything, 0.9, None, BLANK)[0].startswith("Every class is in the set at 90%")
    assert warnings(replace(PREDICTION, prediction_set=()), 0.9, None, BLANK)[0].startswith("No class is probable")
    named = replace(BLANK, origin=Origin(burned_in_annotation="YES"))
    assert "the patient's name" in warnings(PREDICTION, None, None, named)[0]


def test_sets_are_shown_where_the_run_has_thresholds(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", make_classifier((0.7, 0.2, 0.1)))
    (without,) = load_models([run], "cpu")
    assert set_sentence(find(without, BLANK)) == ""
    assert any(said.startswith("Prediction sets: ") and "no thresholds" in said for said in without.off)
    lowest = {"0.9": {"benign": 0.5, "malignant": 0.15, "normal": 0.5}}
    write_summary(run, replace(read_summary(run), set_thresholds=lowest))
    (model,) = load_models([run], "cpu")
    assert set_sentence(find(model, BLANK)) == "Prediction set at 90%: benign, malignant"
    with pytest.raises(UserError, match=r"--sets 0\.5: expected one of"):
        load_models([run], "cpu", 0.5)


def test_checks_that_cannot_be_made_are_named(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", make_segmenter(lesion=True))
    (model,) = load_models([run], "cpu")
    assert (model.learnt, model.explainer, model.coverage) == (None, None, None)
    assert any("the training data are not here" in said for said in model.off)
    assert any("Scans unlike the training scans: not looked for" in said for said in model.off)
    finding = find(model, replace(BLANK, spacing=(0.5, 0.5)))
    assert measure_rows(finding) == [
        ("lesions", "1"),
        ("lesion", "3.2 mm long, 5 mm², confidence 98%"),
        ("confidence", "not calibrated"),
    ]
    assert dict(measure_rows(find(model, BLANK)))["lesion"] == "6 pixels long, 20 pixels, confidence 98%"


def test_the_confidence_of_an_outline_is_the_chance_to_be_right_where_the_run_knows_it(tmp_path: Path) -> None:
    curve = LesionCalibration(slope=0.5, intercept=-2.0, lesions=30, right=20)  # the logit 4 becomes 0
    run = save_run(tmp_path / "run", make_segmenter(lesion=True), lesion_calibration=curve)
    (model,) = load_models([run], "cpu")
    rows = dict(measure_rows(find(model, BLANK)))
    assert rows["lesion"] == "6 pixels long, 20 pixels, confidence 50%"
    assert rows["confidence"] == "chance that an outline is right"


def test_a_card_has_figures_with_intervals_and_leaks(models: list[Model]) -> None:
    card = describe_model(models[1])
    rows = dict(card.rows)
    assert rows["data"].endswith("made by a program: figures say nothing of patients")
    assert rows["leaks"] == "0 of 5 test images have a near-copy or their patient in training or validation"
    name, value, interval = card.figures[0]
    assert name == "accuracy"
    low, _, high = interval.partition(",")[0].split()
    assert 0 <= float(low) <= float(value) <= float(high) <= 1


def test_models_have_names_that_differ_and_classes_that_agree(tmp_path: Path, models: list[Model]) -> None:
    assert distinct_names([Path("/a/x"), Path("/b/x"), Path("/b/y")]) == ["a/x", "b/x", "y"]
    assert common_classes(models, "--save DIR") == ("benign", "malignant", "normal")
    with pytest.raises(UserError, match="no run to serve"):
        load_models([], "cpu")
    with pytest.raises(UserError, match="5 runs: expected at most 4"):
        load_models([tmp_path] * 5, "cpu")
