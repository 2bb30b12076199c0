import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from busi_lab import predict
from busi_lab.classes import BUSI
from busi_lab.errors import UserError
from busi_lab.run_directory import read_run
from busi_lab.summary import Summary, write_summary
from tests.inference.small_runs import SHARES, Cli, scan


def test_a_runs_own_predictions_are_found_again(cli: Cli, joint_run: Path, phantom_root: Path) -> None:
    rows = read_run(joint_run).predictions
    files = {row["image"]: phantom_root / row["label"] / f"{row['image']}.png" for row in rows}
    called = cli(*files.values(), "--run", joint_run)
    assert called.code == 0
    assert len(called.lines) == len(rows) > 3
    for row, line, cells in zip(rows, called.lines, called.table(), strict=True):
        expected = [float(row[f"p_{name}"]) for name in BUSI.names]
        assert list(line["probabilities"]) == list(BUSI.names)
        assert list(line["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
        assert [float(cells[f"p_{name}"]) for name in BUSI.names] == pytest.approx(expected, abs=1e-5)
        assert line["class"] == cells["class"] == row["prediction"]
        assert str(line["lesion_pixels"]) == cells["lesion_pixels"] == row["predicted_pixels"]
        mask = called.picture(f"{row['image']}_mask")
        assert (mask == np.asarray(Image.open(joint_run / "masks" / f"{row['image']}.png"))).all()
        assert mask.shape == Image.open(files[row["image"]]).size[::-1] == (line["height"], line["width"])
        assert called.record(row["image"]) == line
        assert {run["role"] for run in line["runs"]} == {"classifier", "segmenter"}
        assert {(run["directory"], run["split"]["protocol"]) for run in line["runs"]} == {(str(joint_run), "holdout")}
    assert (
        0
        < sum(line["lesion_pixels"] for line in called.lines)
        < sum(line["width"] * line["height"] for line in called.lines)
    )


def test_from_python(runs: Path, tmp_path: Path) -> None:
    path = scan(tmp_path / "scan.png")
    predictor = predict.load(classifier=str(runs / "random"), segmenter=runs / "noise")
    found = predictor.predict(path)
    assert found.mask is not None
    assert found.mask.shape == (found.height, found.width) == (24, 32)
    assert found.lesion_pixels == found.mask.sum() > 0
    assert found.probabilities is not None
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.label == max(BUSI.names, key=lambda name: (found.probabilities or {})[name])
    again = predictor.predict(np.asarray(Image.open(path)))
    assert again.probabilities == found.probabilities
    assert (again.mask == found.mask).all()
    for wrong in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"expected gray levels uint8 \[H, W\]"):
            predictor.predict(wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no run to predict with"):
        predict.load()


def test_one_part_alone(runs: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    classified = predict.load(runs / "random").predict(pixels)
    assert (classified.mask, classified.lesions, classified.lesion_pixels) == (None, None, None)
    outlined = predict.load(runs / "all").predict(pixels)
    assert (outlined.probabilities, outlined.label) == (None, None)
    assert outlined.lesion_pixels == 64


def test_several_runs_are_averaged(runs: Path) -> None:
    mean = [(a + b) / 2 for a, b in zip(*SHARES.values(), strict=True)]
    pixels = np.zeros((8, 8), np.uint8)

    def shares(*given: Path) -> list[float]:
        return list((predict.load(classifier=given).predict(pixels).probabilities or {}).values())

    first, second = (runs / "constant" / name for name in SHARES)
    assert shares(first) == pytest.approx(SHARES["first"])
    assert shares(first, second) == pytest.approx(mean)
    assert shares(runs / "constant") == pytest.approx(mean)
    # one given twice counts once, however it is spelt
    assert shares(first, second, first.parent / ".." / "constant" / "first") == pytest.approx(mean)
    # lesion probabilities are averaged: (sigmoid(4) + sigmoid(-4)) / 2 is the threshold itself, 0.5
    both = predict.load(segmenter=[runs / "all", runs / "none"]).predict(pixels)
    assert both.lesion_pixels in (0, 64)
    twice = predict.load(segmenter=[runs / "all", runs / "none", runs / "all"]).predict(pixels)
    assert twice.lesion_pixels == both.lesion_pixels


def test_a_folder_of_runs_stands_for_its_finished_ones(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    shutil.copytree(runs / "constant", folder)
    for name, changes in {"failed": {"status": "failed"}, "evaluation": {"source": {"directory": "elsewhere"}}}.items():
        (folder / name).mkdir()
        write_summary(folder / name, Summary(**{"status": "finished", "task": "classification", **changes}))  # type: ignore[arg-type]
    names = [Path(run.directory).name for run in predict.load(folder).runs]
    assert names == ["first", "second"]


def test_mirrored_scans_have_mirrored_answers_with_tta(runs: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    answers = {}
    for tta in (True, False):
        predictor = predict.load([runs / "random", runs / "noise"], tta=tta)
        answers[tta] = predictor.predict(pixels), predictor.predict(mirrored)
    straight, flipped = answers[True]
    assert straight.mask is not None
    assert flipped.mask is not None
    assert 0 < straight.mask.mean() < 1
    assert (straight.mask == flipped.mask[:, ::-1]).mean() > 0.999
    assert straight.probabilities == pytest.approx(flipped.probabilities, abs=1e-6)
    straight, flipped = answers[False]
    assert straight.probabilities != pytest.approx(flipped.probabilities, abs=1e-6)
