"""busi-data import: what is odd, ambiguous, damaged or hostile in a source is said, and never guessed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from busi_lab import datasets
from busi_lab.data.index import check_dataset, index_dataset
from busi_lab.files import read_rows
from tests.data.published_layouts import LAYOUTS, sheet, small_cases, write
from tests.programs import outcome

CASES = small_cases()
TABLE = "BUSBRA/bus_data.csv"
HEADING = "ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX\n"


class Imported:
    """A folder in a published layout, to damage and then to import."""

    def __init__(self, folder: Path) -> None:
        self.source, self.out = folder / "source", folder / "out"

    def make(self, name: str) -> Path:
        LAYOUTS[name](self.source, CASES)
        return self.source

    def run(self, name: str, *options: str) -> None:
        datasets.main(["import", name, str(self.source), "--out", str(self.out), *options])
        assert check_dataset(self.out)[1] == []

    def refused(self, name: str) -> str:
        code, message = outcome("datasets", "import", name, str(self.source), "--out", str(self.out))
        assert code == 2 and "\n" not in message and not self.out.exists()
        assert not list(self.out.parent.glob(".out*"))
        return message

    @property
    def labels(self) -> dict[str, str]:
        return {case.case_id.removeprefix("images/"): case.label for case in index_dataset(self.out).cases}

    @property
    def masked(self) -> list[bool]:
        return [case.mask_known for case in index_dataset(self.out).cases]

    @property
    def notes(self) -> dict[str, str]:
        """What is left out -> why."""
        return {row["source"]: row["note"] for row in read_rows(self.out / "import.csv") if not row["used_as"]}


@pytest.fixture
def imported(tmp_path: Path) -> Imported:
    return Imported(tmp_path)


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_bytes(change(path.read_bytes().decode()).encode())


# ------------------------------------------------------------------------------------------------ tables


def test_rows_that_are_missing_or_stand_twice(imported: Imported) -> None:
    source = imported.make("busbra")
    lines = (source / TABLE).read_text().splitlines()
    rows = [lines[1], lines[1], lines[2], lines[2].replace("malignant", "benign"), lines[3].replace("0002", "0009")]
    (source / TABLE).write_text("\n".join([lines[0], *rows]))
    imported.run("busbra")
    assert imported.labels == {"bus_0000-l": "benign"}
    assert imported.notes[f"{TABLE}, line 3"] == f"says the same as {TABLE}, line 2"
    for line in (4, 5):
        assert imported.notes[f"{TABLE}, line {line}"] == ("2 rows say different things of 'bus_0001-l': none is taken")
    assert imported.notes[f"{TABLE}, line 6"] == "'bus_0009-l' has no image files in Images"
    assert imported.notes["BUSBRA/Images/bus_0002-l.png"].startswith("has no row in")
    assert imported.notes["BUSBRA/Masks/mask_0002-l.png"] == "no part of this format"


def test_words_of_classes(imported: Imported) -> None:
    source = imported.make("busbra")
    edit(source / TABLE, lambda text: text.replace("malignant", " MALIGNANT ").replace("benign", "Fibroma", 1))
    imported.run("busbra")
    assert imported.labels == {"bus_0000-l": "", "bus_0001-l": "malignant", "bus_0002-l": "benign"}
    assert imported.notes[f"{TABLE}, line 2"] == ("label 'Fibroma' is none of benign, malignant, normal: left empty")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(",", ";"),
        lambda text: text.replace("ID,Case", "id,CASE"),
        lambda text: "\ufeff" + text,
    ],
)
def test_how_a_table_is_written_does_not_matter(imported: Imported, change: Callable[[str], str]) -> None:
    source = imported.make("busbra")
    edit(source / TABLE, lambda text: change(text.replace('"[5, 6, 7, 8]"', "")))
    imported.run("busbra")
    assert list(imported.labels.values()) == ["benign", "malignant", "benign"]


def test_a_table_in_another_encoding_is_refused(imported: Imported) -> None:
    source = imported.make("busbra")
    (source / TABLE).write_bytes(
        (source / TABLE).read_text().replace("Cyst", "Fibroadenoma simples é").encode("latin-1")
    )
    assert imported.refused("busbra").endswith(f"{TABLE}: the text is not UTF-8; save the table as CSV in UTF-8")


def test_markup_and_formulas_stay_text(imported: Imported) -> None:
    source = imported.make("busbra")
    edit(source / TABLE, lambda text: text.replace("Cyst", "<script>alert(1)</script>").replace("Logiq 7", "=1+1"))
    edit(source / TABLE, lambda text: text.replace("Histology", "<b>Histo|logy</b>"))
    imported.run("busbra")
    further = dict(index_dataset(imported.out).cases[0].further)
    assert further["b_histo_logy_b"] == "<script>alert(1)</script>"
    assert further["device"] == "'=1+1"


def test_paths_in_tables_do_not_leave_the_folder(imported: Imported) -> None:
    write(imported.source.parent / "secret.png", CASES[0].scan)
    imported.make("breast")
    path = next(imported.source.glob("*.xlsx"))
    sheet(
        path,
        [
            ["CaseID", "Image_filename", "Mask_tumor_filename", "Classification"],
            [1, "../secret.png", None, "benign"],
            [2, "..\\secret.png", None, "benign"],
            [3, str(imported.source.parent / "secret.png"), None, "benign"],
            [4, "case002.png", "../secret.png", "benign"],
            [5, "case003.png", "case003_tumor.png & case009_tumor.png", "benign"],
        ],
    )
    imported.run("breast")
    assert list(imported.labels) == ["case002", "case003"]
    assert imported.masked == [False, False]
    for line, word in (
        (2, "leads out"),
        (3, "leads out"),
        (4, "leads out"),
        (5, "mask"),
        (6, "'case009_tumor.png' is missing"),
    ):
        assert word in imported.notes[f"{path.name}, line {line}"]


def test_breast_keeps_tumours_and_leaves_other_findings(imported: Imported) -> None:
    source = imported.make("breast")
    write(source / "case001_other1.png", CASES[0].mask)
    write(source / "case001_tumor2.png", np.roll(CASES[0].mask, 12, axis=1))
    table = [["CaseID", "Image_filename", "Mask_tumor_filename", "Mask_other_filename", "Pixel_size", "Classification"]]
    both = "case001_tumor.png&case001_tumor2.png"
    sheet(
        next(source.glob("*.xlsx")),
        [
            *table,
            [1, "CASE001.png", both, "case001_other1.png", "0,012", "Benign"],
            [2, "case002.png", "", "", "tiny", ""],
            [3, "case003.png", "", "", 0.07, ""],
        ],
    )
    imported.run("breast")
    case = index_dataset(imported.out).cases[0]
    assert case.masks == ("masks/case001.png", "masks/case001_1.png")
    assert case.spacing == (0.12, 0.12) and case.lesion_pixels == 2 * CASES[0].mask.sum()
    assert imported.notes["case001_other1.png"] == "outlines another finding than the tumour"
    for word in ("tiny", "0.07"):  # which would be 0.7 mm
        assert f"Pixel_size '{word}' is no size in centimetres: spacing is left empty" in imported.notes.values()


def test_excel_without_its_package(imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    imported.make("udiat")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert "pip install 'busi-lab[import]', or save it as CSV" in imported.refused("udiat")
    (imported.source / "DatasetB.xlsx").write_bytes(b"PK\x03\x04 damaged")
    monkeypatch.undo()
    assert "the table cannot be read" in imported.refused("udiat")


def test_udiat_takes_lists_of_names_instead(imported: Imported) -> None:
    source = imported.make("udiat")
    (source / "DatasetB.xlsx").unlink()
    (source / "Benign.txt").write_text("000001.png\r\n3\r\n17\r\n")
    (source / "malignant.txt").write_text("2\n3\n")
    imported.run("udiat")
    assert imported.labels == {"000001": "benign", "000002": "malignant", "000003": ""}
    assert imported.notes["labels, 3"] == "is listed as benign and malignant: left empty"
    assert imported.notes["labels, 17"] == "has no image"


# ------------------------------------------------------------------------------------------------- files


def test_masks_that_are_missing_damaged_or_do_not_fit(imported: Imported) -> None:
    source = imported.make("busbra")
    masks = source / "BUSBRA/Masks"
    (masks / "mask_0000-l.png").unlink()
    write(masks / "mask_0001-l.png", CASES[0].mask[:10])
    (masks / "mask_0002-l.png").write_text("no picture")
    imported.run("busbra")
    assert imported.masked == [False] * 3
    assert imported.notes[f"{TABLE}, line 2"] == "'bus_0000-l' has no mask files in Masks: no known mask"
    assert imported.notes["BUSBRA/Masks/mask_0001-l.png"] == (
        "mask of another size than its scan: expected 30 x 20, found 30 x 10; "
        "BUSBRA/Images/bus_0001-l.png has no known mask"
    )
    assert "not an image" in imported.notes["BUSBRA/Masks/mask_0002-l.png"]


def test_masks_that_contradict_the_label(imported: Imported) -> None:
    source = imported.make("busbra")
    edit(source / TABLE, lambda text: text.replace("malignant", "normal"))
    write(source / "BUSBRA/Masks/mask_0000-l.png", np.zeros((20, 30), np.bool_))
    write(source / "BUSBRA/Masks/mask_0002-l.png", np.ones((20, 30), np.bool_))
    imported.run("busbra")
    assert imported.labels == {"bus_0000-l": "benign", "bus_0002-l": "benign"}
    assert imported.masked == [False, False]
    assert imported.notes["BUSBRA/Images/bus_0001-l.png"].startswith("is normal, but its mask has a lesion")
    assert "the mask of a benign scan is empty" in imported.notes["BUSBRA/Masks/mask_0000-l.png"]
    assert "covers the whole scan" in imported.notes["BUSBRA/Masks/mask_0002-l.png"]


def test_files_of_another_kind_are_listed(imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    source = imported.make("pairs")
    (source / "Original/case1.png").write_text("no picture")
    for name in ("readme.pdf", "BUSIS562.csv", ".DS_Store", "GT/case7_GT.bmp"):
        (source / name).write_text("x")
    imported.run("pairs")
    assert list(imported.labels) == ["case0", "case2"]
    assert imported.notes == {
        ".DS_Store": "hidden, or made by a file manager",
        "BUSIS562.csv": "no part of this format",
        "GT/case1_GT.bmp": "no part of this format",
        "GT/case7_GT.bmp": "has no image of its name",
        "Original/case1.png": "the content is not an image; expected PNG, JPEG, BMP, TIFF or DICOM",
        "readme.pdf": "no part of this format",
    }
    assert "files of " in (said := capsys.readouterr().out) and ": 10 (2 scans, 2 masks, 6 left out)" in said


def test_what_is_not_entered_is_said(imported: Imported) -> None:
    source = imported.make("pairs")
    (source / "more").symlink_to(source / "Original")
    (source / ".cache").mkdir()
    (source / ".cache/a.png").write_text("x")
    imported.run("pairs")
    assert imported.notes == {
        ".cache/a.png": "hidden, or made by a file manager",
        "more": "is a linked folder, which is not entered",
    }


def test_a_file_that_two_rows_name_is_taken_once_and_long_cells_are_kept(imported: Imported) -> None:
    source = imported.make("breast")
    rows = [["CaseID", "Image_filename", "Mask_tumor_filename", "Classification", "Diagnosis"]]
    rows += [["1", "case001.png", "", "benign", "long " * 99], ["2", "./case001.png", "", "malignant", ""]]
    sheet(next(source.glob("*.xlsx")), rows)
    imported.run("breast")
    assert imported.labels == {"case001": "benign"}
    assert imported.notes["case001.png"] == "is listed twice"
    assert dict(index_dataset(imported.out).cases[0].further)["diagnosis"] == ("long " * 99).strip()


def test_pairs_in_several_parts_and_names_that_clash(imported: Imported) -> None:
    for part in ("train", "test"):
        write(imported.source / part / "images/a.png", CASES[0].scan)
        write(imported.source / part / "masks/a.png", CASES[0].mask)
    write(imported.source / "images/b;|.png", CASES[1].scan)
    write(imported.source / "masks/b;|.png", CASES[1].mask)
    write(imported.source / "images/c.png", CASES[1].scan)
    write(imported.source / "images/C.bmp", CASES[2].scan)
    imported.run("pairs")
    index = index_dataset(imported.out)
    assert [case.case_id for case in index.cases] == ["images/C", "images/b__", "images/test/a", "images/train/a"]
    assert [len(case.masks) for case in index.cases] == [0, 1, 1, 1]
    assert imported.notes["images/c.png"] == "would be named c, as images/C.bmp is: rename one"


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_that_is_not_of_the_format_is_one_line(imported: Imported, name: str) -> None:
    assert "found nothing" in imported.refused(name)
    imported.source.mkdir()
    assert "found no file; check the path" in imported.refused(name)
    (imported.source / "notes.txt").write_text("nothing of it")
    (imported.source / "table.csv").write_text("a,b\n1,2\n")
    (imported.source / "some.json").write_text("[1, 2]")
    assert str(imported.source) in imported.refused(name)


def test_the_output_is_new_and_lies_elsewhere(imported: Imported) -> None:
    source = imported.make("pairs")
    code, message = outcome("datasets", "import", "pairs", str(source), "--out", str(source / "inside"))
    assert code == 2 and "which is only read" in message
    imported.out.mkdir()
    (imported.out / "mine").write_text("x")
    code, message = outcome("datasets", "import", "pairs", str(source), "--out", str(imported.out))
    assert code == 2 and "is not empty" in message and (imported.out / "mine").read_text() == "x"
    code, message = outcome("datasets", "import", "pear", str(source), "--out", str(imported.out))
    assert code == 2 and "pear" in message


# -------------------------------------------------------------------------------------------- each format


def test_colours_say_the_class_where_no_row_does(imported: Imported) -> None:
    source = imported.make("busuclm")
    (source / "INFO.csv").unlink()
    both = np.zeros((20, 30, 3), np.uint8)
    both[2:6, 2:6, 0], both[10:14, 10:14, 1] = 255, 255
    write(source / "masks/BBBB_000.png", both)
    imported.run("busuclm")
    assert imported.labels == {"BBBB_000": "", "BBBB_001": "malignant", "CCCC_002": "benign"}
    assert "benign and malignant" in imported.notes["images/BBBB_000.png"].replace(
        "malignant and benign", "benign and malignant"
    )
    assert index_dataset(imported.out).cases[0].lesion_pixels == 32


def test_colours_that_contradict_the_table_or_are_others(imported: Imported) -> None:
    source = imported.make("busuclm")
    edit(source / "INFO.csv", lambda text: text.replace("Malignant", "Benign"))
    write(source / "masks/BBBB_000.png", np.repeat(CASES[0].mask[..., None], 3, axis=2))
    write(source / "masks/CCCC_002.png", np.zeros((20, 30), np.uint8))
    imported.run("busuclm")
    assert imported.labels == {"BBBB_000": "benign", "BBBB_001": "", "CCCC_002": ""}
    assert imported.notes["images/BBBB_001.png"] == "INFO.csv says benign, the mask malignant: the label is left empty"
    assert imported.notes["images/CCCC_002.png"] == "INFO.csv says benign, the mask normal: the label is left empty"
    assert "has another colour" in imported.notes["masks/BBBB_000.png"]
    assert imported.masked == [False, True, True]


def test_matlab_files_that_are_damaged_or_hold_something_else(imported: Imported) -> None:
    source = imported.make("oasbud")
    content = (source / "OASBUD.mat").read_bytes()
    (source / "OASBUD.mat").write_bytes(content[: len(content) // 2])
    assert "OASBUD.mat: cannot be read" in imported.refused("oasbud")
    (source / "OASBUD.mat").write_bytes(b"no MATLAB")
    assert "OASBUD.mat: cannot be read" in imported.refused("oasbud")
    savemat(source / "OASBUD.mat", {"other": [1]})
    assert "expected an array of structures 'data'" in imported.refused("oasbud")


def test_planes_that_hold_no_echoes(imported: Imported) -> None:
    imported.source.mkdir()
    sound = np.cos(np.arange(80.0)).reshape(20, 4)
    lesion: dict[str, Any] = {
        "id": "7",
        "rf1": sound,
        "rf2": sound * np.nan,
        "roi1": "none",
        "roi2": sound,
        "birads": "5",
    }
    savemat(imported.source / "OASBUD.mat", {"data": {**lesion, "class": 3}})
    imported.run("oasbud")
    assert imported.labels == {"lesion001_plane1": ""} and imported.masked == [False]
    assert imported.notes["OASBUD.mat, lesion 1"] == "class '3' is neither 0 nor 1: the label is left empty"
    assert imported.notes["OASBUD.mat, lesion 1, plane 2"] == "holds no radio-frequency lines"


def test_coco_takes_what_is_outlined(imported: Imported) -> None:
    source = imported.make("coco")
    path = source / "annotations/instances.json"
    content = json.loads(path.read_text())
    box = {"id": 9, "image_id": 0, "category_id": 0, "bbox": [1, 1, 4, 4], "segmentation": []}
    content["annotations"] += [box, {**content["annotations"][2], "category_id": 1}, {**box, "image_id": 77}]
    for number, name in ((10, "../secret.png"), (11, "missing.png"), (12, "1.png")):
        content["images"].append({"id": number, "file_name": name, "height": 20, "width": 30})
    content["annotations"][1]["segmentation"]["counts"] = [1, 2]
    path.write_text(json.dumps(content))
    imported.run("coco")
    assert imported.labels == {"0": "benign", "1": "malignant", "2": ""}
    assert imported.masked == [False, False, True]
    place = "annotations/instances.json"
    assert imported.notes[f"{place}, image 0"] == "an annotation is a box without outline: no known mask"
    assert imported.notes[f"{place}, image 1"] == "runs of 3 pixels; expected 30 x 20: no known mask"
    assert imported.notes[f"{place}, image 2"] == "is benign and malignant: the label is left empty"
    assert imported.notes[f"{place}, image 10"] == "'../secret.png' leads out of the folder"
    assert imported.notes[f"{place}, image 11"] == "'missing.png' is missing"
    assert imported.notes[f"{place}, images/1.png"] == "is listed twice"
    assert imported.notes[f"{place}, annotations"] == "1 are of images that are not listed"


def test_coco_with_one_foreign_category_has_masks_alone(imported: Imported) -> None:
    source = imported.make("coco")
    edit(
        source / "annotations/instances.json",
        lambda text: text.replace("benign", "nodule").replace("malignant", "nodule"),
    )
    imported.run("coco")
    assert set(imported.labels.values()) == {""} and imported.masked == [True] * 3
    assert "nodule alone is no class" in imported.notes["categories"]


@pytest.mark.parametrize(
    "change",
    [
        {"height": 10**9, "width": 10**9},
        {"height": "tall"},
        {"segmentation": [[0, 0, 1e300, 1, 1, 1]]},
        {"segmentation": [[0, 0, "x", 1, 1, 1]]},
        {"segmentation": [[0, 0, 1, 1]]},
        {"segmentation": {"size": [20, 30], "counts": "\x00\x00"}},
        {"segmentation": {"size": [20], "counts": [600]}},
        {"segmentation": 5},
    ],
)
def test_coco_with_hostile_numbers_has_no_mask(imported: Imported, change: dict[str, Any]) -> None:
    source = imported.make("coco")
    path = source / "annotations/instances.json"
    content = json.loads(path.read_text())
    (content["annotations"] if "segmentation" in change else content["images"])[0].update(change)
    path.write_text(json.dumps(content))
    imported.run("coco")
    assert imported.masked == [False, True, True]


def test_yolo_takes_polygons_and_no_boxes(imported: Imported) -> None:
    source = imported.make("yolo")
    (source / "labels/0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (source / "labels/1.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.1 0.1 0.5 0.1 0.5 0.5\n")
    (source / "labels/2.txt").write_text("0 0.1 0.1 0.5 7 0.5 0.5\n")
    (source / "labels/8.txt").write_text("")
    write(source / "images/3.png", CASES[0].scan)
    write(source / "images/4.png", CASES[0].scan)
    (source / "labels/4.txt").write_text("\n")
    imported.run("yolo")
    assert imported.labels == {"0": "benign", "1": "", "2": "benign", "3": "", "4": ""}
    assert imported.masked == [False, True, False, False, False]
    assert "boxes are no outlines" in imported.notes["labels/0.txt"]
    assert "no polygon" in imported.notes["labels/2.txt"]
    assert imported.notes["images/3.png"] == "has no text files: neither label nor mask is known"
    assert imported.notes["images/4.png"] == "labels/4.txt is empty: neither label nor mask is known"
    assert imported.notes["labels/8.txt"] == "has no image of its name"


def test_nnunet_values_channels_and_cases_without_masks(imported: Imported) -> None:
    source = imported.make("nnunet")
    values = CASES[0].mask * np.uint8(1)
    values[0:3, 0:3] = 2
    write(source / "labelsTr/bus_0.png", values)
    write(source / "labelsTr/bus_2.png", CASES[2].mask * np.uint8(9))
    write(source / "imagesTr/bus_0_0001.png", CASES[0].scan)
    write(source / "imagesTs/bus_5_0000.png", CASES[0].scan)
    imported.run("nnunet")
    assert imported.labels == {"bus_0": "", "bus_1": "malignant", "bus_2": "", "bus_5": ""}
    assert imported.masked == [True, True, False, False]
    assert imported.notes["imagesTr/bus_0_0000.png"] == "its mask says benign and malignant: the label is left empty"
    assert imported.notes["imagesTr/bus_0_0001.png"] == "is another channel; the first, _0000, is taken"
    assert imported.notes["imagesTs/bus_5_0000.png"] == "has no mask file: no known mask"
    assert imported.notes["labelsTr/bus_2.png"].startswith("has values that are no label")


def test_image_folders_leave_masks_and_loose_files(imported: Imported) -> None:
    for name in ("benign/a.png", "benign/a_mask.png", "Malignant/deep/b.png", "loose.png"):
        write(imported.source / name, CASES[0].scan)
    (imported.source / "benign/c.tif").write_bytes(b"II*\x00broken")
    imported.run("folder")
    assert imported.labels == {"Malignant/deep/b": "malignant", "benign/a": "benign"}
    assert "named as a mask" in imported.notes["benign/a_mask.png"]
    assert imported.notes["loose.png"] == "no part of this format"
    assert "benign/c.tif" in imported.notes
    assert Image.open(imported.out / "images/benign/a.png").size == (30, 20)
