"""busi-data export: what other programs find, and that our importers give the same dataset back."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from busi_lab import datasets
from busi_lab.data.index import Case, index_dataset, read_case
from busi_lab.data.outlines import decode_runs
from busi_lab.files import read_rows
from tests.data.published_layouts import write
from tests.programs import outcome

HOLE = np.zeros((20, 30), np.bool_)
HOLE[3:12, 4:14] = True
HOLE[6, 8] = False
TWO = np.zeros((20, 30), np.bool_)
TWO[2:6, 2:8] = TWO[10:15, 20:28] = True


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A benign scan with a hole in its mask, a malignant one with two lesions, a normal one, and one without a mask."""
    random = np.random.default_rng(0)
    folder = tmp_path / "set"
    for name in ("a (1)", "a_1", "c", "d"):
        write(folder / f"{name}.png", random.integers(0, 256, (20, 30), dtype=np.uint8))
    write(folder / "masks/a.png", HOLE)
    write(folder / "masks/b.png", TWO)
    rows = ["a (1).png,benign,masks/a.png,P1,0.1x0.2", "a_1.png,malignant,masks/b.png,P1,", "c.png,normal,,P2,"]
    (folder / "labels.csv").write_text("\n".join(["file,label,mask_file,patient,spacing", *rows, "d.png,benign,,,"]))
    return folder


def run(*arguments: object) -> None:
    datasets.main([str(argument) for argument in arguments])


def comparable(root: Path, case: Case) -> tuple[object, ...]:
    return case.label, case.patient, case.spacing, case.mask_known, *(part.tobytes() for part in read_case(root, case))


@pytest.mark.parametrize("name", ["nnunet", "coco"])
def test_what_is_exported_comes_back(name: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("export", name, "--root", root, "--out", tmp_path / "out")
    assert "1 scan without a known mask left out" in capsys.readouterr().out
    run("import", name, tmp_path / "out", "--out", tmp_path / "back")
    assert "note: export.csv: no part of this format" in capsys.readouterr().out
    first, again = index_dataset(root), index_dataset(tmp_path / "back")
    assert [comparable(again.root, case) for case in again.cases] == [
        comparable(root, case) for case in first.cases if case.mask_known
    ]
    assert [(row["case_id"], bool(row["written"])) for row in read_rows(tmp_path / "out/export.csv")] == [
        *(("a (1)", True), ("a_1", True), ("c", True), ("d", False))
    ]


def test_nnunet_finds_what_it_reads(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "Dataset001_BUS"
    run("export", "nnunet", "--root", root, "--out", out)
    content = json.loads((out / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "US"} and content["file_ending"] == ".png"
    assert content["labels"] == {"background": 0, "benign": 1, "malignant": 2} and content["numTraining"] == 3
    assert sorted(path.name for path in (out / "imagesTr").iterdir()) == [
        "a_1_0000.png",
        "a_1_2_0000.png",
        "c_0000.png",
    ]
    masks = [np.asarray(Image.open(out / "labelsTr" / name)) for name in ("a_1.png", "a_1_2.png", "c.png")]
    for mask, truth in zip(masks, (HOLE * 1, TWO * 2, HOLE * 0), strict=True):
        assert np.array_equal(mask, truth)


def test_nnunet_has_one_label_where_a_class_is_not_known(root: Path, tmp_path: Path) -> None:
    table = root / "labels.csv"
    table.write_text(table.read_text().replace("a_1.png,malignant", "a_1.png,"))
    run("export", "nnunet", "--root", root, "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out/dataset.json").read_text())["labels"] == {"background": 0, "lesion": 1}
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/labelsTr/a_1_2.png")), TWO * 1)
    run("import", "nnunet", tmp_path / "out", "--out", tmp_path / "back")
    assert [case.label for case in index_dataset(tmp_path / "back").cases] == ["benign", "", "normal"]


def test_coco_has_an_annotation_for_each_lesion(root: Path, tmp_path: Path) -> None:
    run("export", "coco", "--root", root, "--out", tmp_path / "out")
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["benign", "malignant", "normal"]
    hole, first, second = content["annotations"]
    assert (hole["category_id"], hole["area"], hole["bbox"]) == (1, 89, [4, 3, 10, 9])
    assert np.array_equal(decode_runs(hole["segmentation"]["counts"], 20, 30), HOLE)
    assert [(each["image_id"], each["category_id"], each["area"]) for each in (first, second)] == [
        (2, 2, 24),
        (2, 2, 40),
    ]
    assert first["segmentation"] == [[2, 2, 2, 6, 8, 6, 8, 2]] and first["bbox"] == [2, 2, 6, 4]
    assert [image["file_name"] for image in content["images"]] == ["images/a_1.png", "images/a_1_2.png", "images/c.png"]


def test_what_cannot_be_exported_is_one_line(root: Path, tmp_path: Path) -> None:
    code, message = outcome("datasets", "export", "coco", "--root", str(root), "--out", str(root / "inside"))
    assert code == 2 and "which is only read" in message
    (root / "labels.csv").write_text("file,label\nd.png,benign\n")
    code, message = outcome("datasets", "export", "coco", "--root", str(root), "--out", str(tmp_path / "out"))
    assert code == 2 and "found none" in message and not (tmp_path / "out").exists()
