import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from busi_lab import predict
from busi_lab.errors import UserError
from busi_lab.report.results.lesions import calibrated_confidence
from busi_lab.run.calibration import learn_confidence, validation_temperature, validation_thresholds
from busi_lab.run.mixture import mixture_shares
from busi_lab.run_directory import BEST_CHECKPOINT, SPLIT, read_run
from busi_lab.summary import Summary, read_summary
from tests.programs import call, outcome


def other(run: Path, folder: Path, seed: int = 1, threshold: float | None = None) -> Path:
    """A run as one that was trained with another seed: noise on its weights."""
    shutil.copytree(run, folder)
    path = folder / BEST_CHECKPOINT
    content = torch.load(path, weights_only=True)
    torch.manual_seed(seed)
    state = content["state_dict"]
    for name, value in state.items():
        if name.startswith("network.") and value.is_floating_point() and "running" not in name:
            value += 0.1 * value.abs().mean() * torch.randn_like(value)
    if threshold is not None:
        state["masks.threshold"].fill_(threshold)
    torch.save(content, path)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "seed": seed}))
    return folder


@pytest.fixture(scope="module")
def joint(trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two joint runs and their ensemble."""
    folder = tmp_path_factory.mktemp("joint")
    second = other(trained["joint"], folder / "second", threshold=0.3)
    assert call("ensemble", str(trained["joint"]), str(second), "--out", str(folder / "both")) == 0
    return trained["joint"], second, folder / "both"


def test_it_answers_as_its_members_together(joint: tuple[Path, Path, Path]) -> None:
    first, second, both = joint
    together, alone = predict.load([first, second]), predict.load(both)
    assert float(alone.task(both).mask_threshold) == pytest.approx(0.4)  # type: ignore[arg-type]
    for seed in range(3):
        scan = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
        with torch.no_grad():
            middle = alone.task(both)(torch.from_numpy(scan)[None, None]).masks.sigmoid().quantile(0.6)
        for task in (together.task(first), together.task(second), alone.task(both)):
            task.get_buffer("masks.threshold").copy_(middle)
        expected, found = together.predict(scan), alone.predict(scan)
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
        assert found.mask is not None and 0 < found.mask.mean() < 1
        assert (found.mask == expected.mask).mean() > 0.998  # a pixel may lie on the threshold


def test_its_directory_is_that_of_a_run(joint: tuple[Path, Path, Path]) -> None:
    first, second, both = joint
    runs = [read_run(first), read_run(second)]
    found = read_run(both)
    summary = found.summary
    assert (summary.status, summary.task, summary.seed) == ("finished", "multitask", None)
    assert (summary.experiment, summary.model) == ("ensemble of mobilenet_unet", "ensemble of 2 mobilenet_unet")
    assert summary.split == runs[0].summary.split
    assert summary.parameters == 2 * (runs[0].summary.parameters or 0)
    assert [member.directory for member in summary.members] == [str(first), str(second)]
    assert [(member.seed, member.weight) for member in summary.members] == [(0, 0.5), (1, 0.5)]
    assert len({member.digest for member in summary.members}) == 2
    assert len(found.predictions) == summary.data.test == len(list((both / "masks").iterdir()))
    assert len(found.validation) == summary.data.val
    assert 0 <= summary.metrics["test/dice"] <= 1
    assert read_run(both).summary.metrics["test/threshold"] == pytest.approx(0.4)
    assert [row["image"] for row in found.predictions] == [row["image"] for row in runs[0].predictions]
    assert sum(int(lesion["pixels"]) for lesion in found.lesions) == sum(
        int(row["predicted_pixels"]) for row in found.predictions
    )


def test_it_is_evaluated_and_compared_as_a_run(
    joint: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, both = joint
    again = tmp_path / "again"
    assert call("evaluate", f"run={both}", f"hydra.run.dir={again}", "logger=none") == 0
    before, after = read_summary(both), read_summary(again)
    assert after.split == before.split and after.source is not None
    for name, value in before.metrics.items():
        if name.startswith("test/"):
            assert np.allclose(after.metrics[name], value, atol=1e-6)
    assert call("compare", str(first), str(second), str(both), "--out", str(tmp_path / "out"), "--format", "csv") == 0
    assert "ensemble of mobilenet_unet" in capsys.readouterr().out


def folds(run: Path, folder: Path) -> Path:
    """A run that has swapped its test images with as many of the training, class by class."""
    fold = other(run, folder)
    split = json.loads((fold / SPLIT).read_text())
    kind = str.split
    tested, swapped = list(split["test"]), []
    for case_id in tested:
        partner = next(i for i in split["train"] if kind(i)[0] == kind(case_id)[0] and i not in swapped)
        swapped.append(partner)
    split["train"] = sorted({*split["train"], *tested} - set(swapped))
    split["test"] = sorted(swapped)
    del split["digest"]
    (fold / SPLIT).write_text(json.dumps(split))
    return fold


def test_what_any_member_has_learnt_from_counts_as_learnt(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fold = folds(trained["classifier"], tmp_path / "fold")
    both = tmp_path / "both"
    assert call("ensemble", str(trained["classifier"]), str(fold), "--out", str(both)) == 0
    assert "learnt from every image, so nothing is tested: evaluate on other data" in capsys.readouterr().out
    run = read_run(both)
    split = json.loads((both / SPLIT).read_text())
    assert (split["test"], split["protocol"], run.summary.data.test) == ([], "ensemble", 0)
    assert not run.summary.tested and not run.predictions and run.summary.metrics["val/f1"] >= 0
    again = tmp_path / "again"
    assert call("evaluate", f"run={both}", "split=grouped_holdout", f"hydra.run.dir={again}", "logger=none") == 0
    summary, rows = read_summary(again), read_run(again).predictions
    assert summary.split.leaked == summary.data.test == len(rows)
    assert all(row["near_copy_of"] for row in rows)
    code, line = outcome("evaluate", f"run={both}", f"hydra.run.dir={tmp_path / 'none'}", "logger=none")
    assert code == 2 and "no image to test on; choose another data= or split=" in line


def test_shares_are_fitted_on_validation_images(trained: dict[str, Path], tmp_path: Path) -> None:
    second = other(trained["classifier"], tmp_path / "second")
    path = second / "validation.csv"
    head, *rows = path.read_text().splitlines()
    names = head.split(",")
    cells = [dict(zip(names, row.split(","), strict=True)) for row in rows]
    for row in cells:  # it knows the truth
        row.update({name: "0.98" if name == f"p_{row['label']}" else "0.01" for name in names if name[:2] == "p_"})
    path.write_text("\n".join([head, *(",".join(row.values()) for row in cells)]) + "\n")
    both = tmp_path / "both"
    arguments = (str(trained["classifier"]), str(second), "--out", str(both), "--weights", "fit", "--name", "fitted")
    assert call("ensemble", *arguments) == 0
    summary = read_summary(both)
    assert summary.experiment == "fitted"
    assert [member.weight for member in summary.members] == pytest.approx([0, 1], abs=1e-3)
    alone = predict.load(second).predict(np.full((32, 32), 90, np.uint8)).probabilities
    assert predict.load(both).predict(np.full((32, 32), 90, np.uint8)).probabilities == pytest.approx(alone, abs=1e-3)


def test_a_mixture_is_most_likely() -> None:
    likelihoods = np.array([[0.9, 0.2, 0.6], [0.3, 0.8, 0.6]])
    shares = mixture_shares(likelihoods)
    tried = np.linspace(0, 1, 1001)
    values = [np.log(np.array([share, 1 - share]) @ likelihoods).mean() for share in tried]
    assert shares.tolist() == pytest.approx([tried[np.argmax(values)], 1 - tried[np.argmax(values)]], abs=2e-3)


def test_what_makes_no_ensemble_is_refused_in_one_line(
    trained: dict[str, Path], joint: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    classifier, out = str(trained["classifier"]), tmp_path / "out"
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    failed = Path(shutil.copytree(classifier, tmp_path / "failed"))
    content = json.loads((failed / "summary.json").read_text())
    (failed / "summary.json").write_text(json.dumps({**content, "status": "failed", "error": "no"}))
    foreign = Path(shutil.copytree(classifier, tmp_path / "foreign"))
    content["data"]["digest"] = "0123"
    (foreign / "summary.json").write_text(json.dumps(content))
    for arguments, message in (
        ((classifier, classifier), "an ensemble needs two different runs at least, found 1; give more"),
        ((classifier, str(failed)), f"{failed}: the run failed (no); give the directory of a finished run"),
        (
            (classifier, str(joint[0])),
            f"{joint[0]}: the task of an ensemble must be one, found multitask here",
        ),
        ((classifier, str(foreign)), f"{foreign}: the dataset of an ensemble must be one, found busi (0123) here and "),
        ((*map(str, joint[:2]), "--root", "nowhere"), "the data that the members have learnt from are not in nowhere"),
        ((str(trained["segmenter"]), str(joint[0])), "the task of an ensemble must be one"),
    ):
        code, line = outcome("ensemble", *arguments, "--out", str(out))
        assert code == 2 and message in line
    code, line = outcome("ensemble", *map(str, joint[:2]), "--out", str(taken))
    assert code == 2 and line == f"{taken} is not empty; expected a new or an empty folder: choose another"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["failed", "foreign", "taken"]


def test_it_cannot_be_trained(phantom_root: Path, tmp_path: Path) -> None:
    run = f"hydra.run.dir={tmp_path / 'run'}"
    code, line = outcome("train", f"data.root={phantom_root}", "model.name=ensemble", "trainer=smoke", run)
    assert (code, line.split(";")[0]) == (2, "model.name=ensemble: it is not trained, but made of finished runs")


def test_probabilities_are_calibrated_on_demand(joint: tuple[Path, Path, Path], tmp_path: Path) -> None:
    scan = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    both = Path(shutil.copytree(joint[2], tmp_path / "both"))
    content = json.loads((both / "summary.json").read_text())
    (both / "summary.json").write_text(json.dumps({**content, "temperature": 2.0}))
    plain, scaled = (predict.load(both, calibrated=calibrated).predict(scan) for calibrated in (False, True))
    assert plain.probabilities is not None
    roots = np.sqrt(list(plain.probabilities.values()))
    assert list((scaled.probabilities or {}).values()) == pytest.approx(roots / roots.sum(), abs=1e-6)
    assert [run.temperature for run in scaled.runs] == [2.0, None]  # the classifier's, the segmenter's
    assert {run.temperature for run in plain.runs} == {None}
    (both / "summary.json").write_text(json.dumps({**content, "temperature": None}))
    with pytest.raises(UserError, match=r"--calibrated: .* has no temperature"):
        predict.load(both, calibrated=True)
    with pytest.raises(UserError, match="--calibrated is of class probabilities"):
        predict.load(segmenter=both, calibrated=True)


def test_prediction_sets_have_the_classes_from_the_thresholds_of_the_run_on(
    joint: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    both = Path(shutil.copytree(joint[2], tmp_path / "both"))
    content = json.loads((both / "summary.json").read_text())
    assert content["set_thresholds"].keys() == {"0.8", "0.9", "0.95"}
    plain = predict.load(both).predict(scan)
    assert plain.probabilities is not None and plain.prediction_set is None
    names = list(plain.probabilities)
    lowest = dict(zip(names, (0.0, plain.probabilities[names[1]] - 1e-4, 1.0), strict=True))
    (both / "summary.json").write_text(json.dumps({**content, "set_thresholds": {"0.9": lowest}}))
    assert predict.load(both, coverage=0.9).predict(scan).prediction_set == tuple(names[:2])
    Image.fromarray(scan).save(tmp_path / "scan.png")
    predict.main([str(tmp_path / "scan.png"), "--run", str(both), "--sets", "0.9", "--out", str(tmp_path / "out")])
    with (tmp_path / "out" / "predictions.csv").open() as file:
        assert [row["prediction_set"] for row in csv.DictReader(file)] == [" ".join(names[:2])]
    assert json.loads((tmp_path / "out" / "scan.json").read_text())["prediction_set"] == names[:2]
    assert f"note: {names[0]}: in every prediction set" in capsys.readouterr().err
    for given, message in (
        ({"run": both, "coverage": 0.95}, r"--sets 0.95: .* has no thresholds"),
        ({"run": both, "coverage": 0.5}, r"--sets 0.5: expected one of 0.8, 0.9, 0.95"),
        ({"run": both, "coverage": 0.9, "tta": True}, r"leave --tta, --calibrated and --precision out"),
        ({"run": [both, joint[0]], "coverage": 0.9}, r"make an ensemble of them"),
        ({"segmenter": both, "coverage": 0.9}, r"sets are of classes, and no run here gives them"),
    ):
        with pytest.raises(UserError, match=message):
            predict.load(**given)


def test_thresholds_are_those_of_the_validation_images() -> None:
    shares = [0.9, 0.8, 0.7, 0.6]
    rows = [{"prediction": "a", "label": "a", "p_a": share, "p_b": 1 - share} for share in shares]
    assert validation_thresholds(rows, ("a", "b")) == {
        "0.8": {"a": 0.6, "b": 0.0},  # place ceil(5 * 0.8) = 4 of four
        "0.9": {"a": 0.0, "b": 0.0},
        "0.95": {"a": 0.0, "b": 0.0},
    }
    assert validation_thresholds([{"label": "a", "dice": 0.5}], ("a", "b")) == {}


def test_a_run_that_is_too_sure_has_a_temperature_above_one() -> None:
    sure = [{"prediction": "a", "label": label, "p_a": 0.99, "p_b": 0.01} for label in ("a", "a", "a", "b")]
    assert validation_temperature(sure, ("a", "b")) == pytest.approx(np.log(99) / np.log(3), rel=1e-3)
    assert validation_temperature(sure[:3], ("a", "b")) is None  # always right: the surer the better
    assert validation_temperature([{"label": "a", "dice": 0.5}], ("a", "b")) is None


def test_lesions_of_validation_tell_how_often_an_outline_is_right() -> None:
    sure = [{"confidence": 0.95, "right": 1}] * 9 + [{"confidence": 0.95, "right": 0}]
    unsure = [{"confidence": 0.55, "right": 1}] * 2 + [{"confidence": 0.55, "right": 0}] * 8
    summary = Summary("finished")
    learn_confidence(summary, [{"label": "a", "dice": 0.5}], [*sure, *unsure], ("a", "b"))
    found = summary.lesion_calibration
    assert found is not None and (found.lesions, found.right, summary.temperature) == (20, 11, None)
    # 9 of 10 and 2 of 10, with targets 12/13 and 1/11 for right and wrong
    expected = [(9 * 12 / 13 + 1 / 11) / 10, (2 * 12 / 13 + 8 / 11) / 10]
    assert calibrated_confidence(np.array([0.95, 0.55]), found) == pytest.approx(expected, abs=1e-3)
    learn_confidence(summary, [], None, ("a", "b"))
    assert summary.lesion_calibration is None
