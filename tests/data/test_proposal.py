"""busi-data labels: what the names below a folder suggest."""

import csv
from pathlib import Path

import pytest

from busi_lab import datasets
from busi_lab.data.index import check_dataset
from busi_lab.data.proposal import propose_labels
from busi_lab.errors import UserError
from tests.data.image_files import noise, write


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / name, noise(4, 5))
    return root


def proposed(root: Path) -> dict[str, tuple[str, str]]:
    return {row["file"]: (row["label"], row["mask_file"]) for row in propose_labels(root)[0]}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Benign/1.jpg", "Benign/1_mask.png"), {"Benign/1.jpg": ("benign", "Benign/1_mask.png")}),
        (
            ("images/m-01 malignant.png", "masks/m-01 malignant.png"),
            {"images/m-01 malignant.png": ("malignant", "masks/m-01 malignant.png")},
        ),
        (("a_seg.png", "a.png", "a_GT_2.png"), {"a.png": ("", "a_GT_2.png|a_seg.png")}),
        (("Normal cases/x.png", "notabenign.png"), {"Normal cases/x.png": ("normal", ""), "notabenign.png": ("", "")}),
        (("benign_or_malignant/x.png",), {"benign_or_malignant/x.png": ("", "")}),
        (("benign/malignantCase.png",), {"benign/malignantCase.png": ("malignant", "")}),
        (
            ("benign/1.png", "malignant/1.png", "benign/mask/1.png", "malignant/mask/1.png"),
            {"benign/1.png": ("benign", "benign/mask/1.png"), "malignant/1.png": ("malignant", "malignant/mask/1.png")},
        ),
        (("a/1.png", "b/1.png", "masks/1.png"), {"a/1.png": ("", ""), "b/1.png": ("", "")}),
    ],
)
def test_labels_and_masks_are_guessed_from_names(
    tmp_path: Path, names: tuple[str, ...], expected: dict[str, tuple[str, str]]
) -> None:
    assert proposed(folder(tmp_path, *names)) == expected


def test_own_classes_are_used_and_what_is_undecided_is_said(tmp_path: Path) -> None:
    root = folder(tmp_path, "cyst/1.png", "other/2.png", "masks/9.png", "cyst/.hidden.png")
    (root / "dataset.json").write_text('{"classes": ["cyst", "solid"]}')
    rows, remarks = propose_labels(root)
    assert [(row["file"], row["label"]) for row in rows] == [("cyst/1.png", "cyst"), ("other/2.png", "")]
    assert remarks == [
        "2 scans: 1 cyst; 0 with a mask",
        "undecided: other/2.png: it names none of the classes cyst, solid, so its label is left empty",
        "undecided: masks/9.png: it is named like a mask, but its scan was not found, so it is left out",
        "patients were not guessed: fill in the column patient, or scans of one woman may be split",
    ]


def test_the_proposal_is_a_dataset_and_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "set", "Benign/1.png", "Normal/2.png")
    datasets.main(["labels", str(root)])
    printed = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert printed[0] == {"file": "Benign/1.png", "label": "benign", "mask_file": "", "patient": ""}
    datasets.main(["labels", str(root), "--out", str(root / "labels.csv")])
    assert capsys.readouterr().err.splitlines()[-1].endswith("proposes labels for 2 images; read it before you use it")
    index, defects = check_dataset(root)
    assert (index.counts, defects) == ({"benign": 1, "malignant": 0, "normal": 1}, [])
    before = (root / "labels.csv").read_bytes()
    with pytest.raises(SystemExit):
        datasets.main(["labels", str(root), "--out", str(root / "labels.csv")])
    assert "it is there already and is not overwritten" in capsys.readouterr().err
    assert (root / "labels.csv").read_bytes() == before
    with pytest.raises(UserError, match="no scan found"):
        propose_labels(folder(tmp_path / "empty", "x/.y.png"))
