"""A report on classes of other names: what is said of them comes from the run's record, never from BUSI's names."""

from pathlib import Path

import pytest

from busi_lab.compare import compare
from busi_lab.files import read_rows, write_rows
from busi_lab.summary import DataRecord, Objective, SplitRecord, Summary, write_summary
from tests.report.said import rows, said


def make_run(folder: Path, wrong: int) -> None:
    """60 cysts and 40 solid lesions with masks, of which the first ``wrong`` of either are taken for the other."""
    lines = []
    for i in range(100):
        label = "cyst" if i < 60 else "solid"
        right = i >= wrong if label == "cyst" else i >= 60 + wrong
        p = 0.8 if (label == "solid") == right else 0.2
        line = {"image": f"{i}", "label": label, "prediction": "solid" if p > 0.5 else "cyst", "p_cyst": 1 - p}
        masks = {"dice": 0.5, "iou": 0.3, "lesion_pixels": 9, "predicted_pixels": 9, "pixels": 99}
        lines.append({**line, "p_solid": p, "group": f"{i}", **masks})
    names, matrix = ("cyst", "solid"), [[60 - wrong, wrong], [wrong, 40 - wrong]]
    metrics = {"val/f1": 1 - wrong / 100, "test/accuracy": 1 - wrong / 50, "test/confusion_matrix": matrix}
    write_summary(
        folder,
        Summary(
            "finished",
            task="multitask",
            experiment=f"wrong{wrong}",
            split=SplitRecord("holdout", 0, digest="s", test_digest="t", leaked=0),
            data=DataRecord("cysts", digest="d", test=100, class_names=names, positive_class="solid"),
            objective=Objective("val/f1", "max"),
            metrics={**metrics, "test/auroc_solid": 0.75, "test/f1": 0.7, "test/f1_present": 0.7},
        ),
    )
    write_rows(folder / "predictions.csv", lines, lines[0])
    write_rows(folder / "validation.csv", lines, lines[0])


def test_two_classes_of_other_names_without_one_without_a_lesion(tmp_path: Path) -> None:
    for wrong in (4, 8):
        make_run(tmp_path / f"runs/{wrong}", wrong)
    analysis = compare([tmp_path / "runs"], tmp_path / "made")
    told = said(analysis)
    found = told["What was found"].sentences
    assert found[1].endswith("it finds about 9 of 10 solid images and calls about 1 of 15 cyst images solid.")
    assert found[2].startswith("Counted: 36 of 40 (90%, 95 % interval 76% to 96%) solid images found; 4 of 60 (7%")
    assert any(sentence.startswith("It ranks solid images above the others with an AUROC of 0.9") for sentence in found)
    table = next(section for title, section in told.items() if title.startswith("Table 1"))
    assert table.grids[0].titles == ("rank", "run", "val/f1", "accuracy", "f1_present", "auroc_solid")  # and no f1
    assert rows(told["Solid against the rest"].grids[0])[0][:3] == ["wrong4", "40", "60"]
    (line, _) = read_rows(tmp_path / "made/repeats.csv")
    pairs = 36 * 56 + (36 * 4 + 4 * 56) / 2  # in order, and tied
    assert float(line["auroc_solid/mean"]) == pytest.approx(pairs / (40 * 60))
    page = (tmp_path / "made/report.html").read_text(encoding="utf-8")
    markdown = (tmp_path / "made/table.md").read_text(encoding="utf-8")
    assert "actual cyst: 56 cyst, 4 solid; actual solid: 4 cyst, 36 solid" in page
    assert "Dice of solid images" in page
    for name in ("malignant", "benign", "normal scans"):
        assert name not in page and name not in markdown
