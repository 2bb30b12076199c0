"""Data with classes of their own, from training to the report."""

import csv
import shutil
from pathlib import Path

from busi_lab.run_directory import read_run
from busi_lab.summary import read_summary
from tests.programs import call, outcome

SMALL = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=none", "split=grouped_holdout")


def test_a_run_predicts_the_classes_of_its_data(cysts: Path, phantom_root: Path, tmp_path: Path) -> None:
    run, own = tmp_path / "run", f"data.root={cysts}"
    assert outcome("train", *SMALL, own, "data.name=cysts", f"hydra.run.dir={run}") == (0, "")
    summary = read_summary(run)
    assert (summary.data.roles.names, summary.data.roles.positive) == (("cyst", "solid"), "solid")
    assert summary.data.roles.without_lesion is None
    assert {"test/auroc_solid", "test/f1", "val/accuracy"} <= summary.metrics.keys()
    assert not any("malignant" in name or "without" in name for name in summary.metrics)
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"cyst", "solid"}
    assert all(abs(float(row["p_cyst"]) + float(row["p_solid"]) - 1) < 1e-6 for row in rows)

    found, scan = tmp_path / "found", next((cysts / "solid").glob("solid (1).png"))
    assert call("predict", "--run", str(run), str(scan), "--out", str(found)) == 0
    assert (
        (found / "predictions.csv")
        .read_text()
        .startswith("file,frame,width,height,class,p_cyst,p_solid,prediction_set,lesions")
    )

    again = tmp_path / "again"
    assert outcome("evaluate", f"run={run}", "trainer=cpu", "logger=none", f"hydra.run.dir={again}") == (0, "")
    assert read_summary(again).metrics["test/accuracy"] == summary.metrics["test/accuracy"]

    code, line = outcome("evaluate", f"run={run}", f"data.root={phantom_root}", f"hydra.run.dir={tmp_path / 'other'}")
    assert code == 2 and "has scans of the class benign, which this run cannot predict; expected cyst, solid" in line
    assert call("compare", str(run), str(again), "--out", str(tmp_path / "compared"), "--format", "csv") == 0


def test_masks_are_judged_whatever_the_classes_are_called(cysts: Path, phantom_root: Path, tmp_path: Path) -> None:
    run, there, masks = tmp_path / "run", tmp_path / "there", ("task=segmentation", "model=smp", "model.arch=FPN")
    encoder = ("model.encoder=tu-test_resnet", f"data.root={phantom_root}", f"hydra.run.dir={run}")
    assert outcome("train", *SMALL, *masks, *encoder) == (0, "")
    elsewhere = ("data.name=cysts", f"data.root={cysts}", "split=all", "trainer=cpu", "logger=none")
    assert outcome("evaluate", f"run={run}", "data=busi", *elsewhere, f"hydra.run.dir={there}") == (0, "")
    summary = read_summary(there)
    assert (summary.data.roles.names, summary.data.classes) == (("cyst", "solid"), ("cyst", "solid"))
    assert summary.source is not None and summary.source.roles.names == ("benign", "malignant", "normal")
    assert {row["label"] for row in read_run(there).predictions} == {"cyst", "solid"}
    report = tmp_path / "report"
    assert call("compare", str(run), str(there), "--out", str(report), "--format", "md") == 0
    assert "against its own test images" in (report / "table.md").read_text(encoding="utf-8")


def test_classes_that_a_run_has_not_learnt_can_be_left_out(phantom_root: Path, tmp_path: Path) -> None:
    two = tmp_path / "two"
    for label in ("benign", "malignant"):
        shutil.copytree(phantom_root / label, two / label)
    (two / "dataset.json").write_text('{"classes": ["benign", "malignant"], "positive": "malignant"}')
    run = tmp_path / "run"
    assert outcome("train", *SMALL, f"data.root={two}", "data.name=two", f"hydra.run.dir={run}") == (0, "")
    there = (f"run={run}", "data=busi", f"data.root={phantom_root}", "split=all", "trainer=cpu", "logger=none")
    code, line = outcome("evaluate", *there, f"hydra.run.dir={tmp_path / 'all'}")
    assert code == 2 and "leave others out with data.classes" in line
    chosen = ("data.classes=[benign,malignant]", f"hydra.run.dir={tmp_path / 'chosen'}")
    assert outcome("evaluate", *there, *chosen) == (0, "")
    assert read_summary(tmp_path / "chosen").data.test == 22


def test_chosen_classes_are_those_of_the_data(cysts: Path, tmp_path: Path) -> None:
    code, line = outcome(
        "train", *SMALL, f"data.root={cysts}", "data.classes=[cyst,solit]", f"hydra.run.dir={tmp_path}"
    )
    assert code == 2 and "no class solit; did you mean solid? classes: cyst, solid" in line
