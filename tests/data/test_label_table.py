"""Tables as spreadsheets, hospitals and other programs write them: what each column and each word means."""

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from busi_lab import datasets
from busi_lab.classes import BUSI
from busi_lab.data.cache import open_cache
from busi_lab.data.index import index_dataset
from busi_lab.data.label_columns import find_columns
from busi_lab.data.label_words import LabelWords, plain_label_map
from busi_lab.data.labels import read_labels
from busi_lab.data.layout import require_layout, resolve_root
from busi_lab.data.options import DatasetOptions
from busi_lab.data.spacing import parse_spacing
from busi_lab.data.text_table import TableError, read_table
from busi_lab.errors import UserError

SCAN = np.arange(48, dtype=np.uint8).reshape(6, 8)


def dataset(root: Path, *rows: str, names: Sequence[str] = ("a.png", "b.png")) -> Path:
    root.mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(SCAN).save(root / name)
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


# ------------------------------------------------------------------------------------------ text of a table


@pytest.mark.parametrize(
    ("content", "separator"),
    [
        (b"file,label\na.png,benign\n", "commas"),
        (b"file;label\r\na.png;benign\r\n", "semicolons"),
        (b"file\tlabel\na.png\tbenign\n", "tabs"),
        (b"sep=;\r\nfile;label\r\na.png;benign\r\n", "semicolons"),
        (b'\xef\xbb\xbf"file";"label"\n"a.png";"benign"\n;\n', "semicolons"),
        ("file\tlabel\na.png\tbenign\n".encode("utf-16"), "tabs"),
    ],
)
def test_the_first_line_says_what_separates_cells(tmp_path: Path, content: bytes, separator: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    table = read_table(path)
    assert (table.heading, table.separator) == (("file", "label"), separator)
    assert [row for _, row in table.rows] == [("a.png", "benign")]
    assert table.rows[0][0] == 2 + content.startswith(b"sep")


@pytest.mark.parametrize("magic", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"])
def test_a_spreadsheet_is_called_one(tmp_path: Path, magic: bytes) -> None:
    (tmp_path / "labels.csv").write_bytes(magic + b"\0" * 9)
    with pytest.raises(TableError, match="the file is a spreadsheet; save it as CSV"):
        read_table(tmp_path / "labels.csv")


# ------------------------------------------------------------------------------------------------- columns


@pytest.mark.parametrize(
    ("names", "patient", "notes"),
    [
        (["patient"], "patient", []),
        (["Patient"], "Patient", []),
        (["subject_id"], "subject_id", ["the column subject_id keeps scans together, as a column patient would"]),
        (["PatientNumber"], "PatientNumber", ["the column PatientNumber keeps scans together"]),
        (["Case ID"], "Case ID", ["the column Case ID keeps scans together"]),
        (["case", "subject"], "subject", ["the column subject keeps scans together"]),
        (["patient", "subject_id"], "patient", ["the column subject_id keeps no scans together beside patient"]),
        (["patient_id", "subject"], None, ["the columns patient_id, subject could each tell patients, so none does"]),
        (["case", "exam"], None, ["the columns case, exam could each tell patients, so none does; rename"]),
        (["patient_code_2"], None, ["the column patient_code_2 keeps no scans together; rename it to patient if"]),
        (["patient_age", "PatientSex", "subject height"], None, []),
    ],
)
def test_patients_have_many_names(names: list[str], patient: str | None, notes: list[str]) -> None:
    columns = find_columns(["file", *names, ""], "commas")
    assert columns.patient == patient
    assert columns.further == tuple(name for name in names if name != patient)
    assert len(columns.notes) == len(notes)
    assert all(found.startswith(note) for found, note in zip(columns.notes, notes, strict=True))


def test_columns_are_known_whatever_their_capitals() -> None:
    columns = find_columns(["Age", "FILE", "Label", "Mask File", "Pixel_Spacing"], "commas")
    assert (columns.file, columns.label, columns.masks, columns.spacing) == (
        *("FILE", "Label", "Mask File", "Pixel_Spacing"),
    )
    assert (columns.further, columns.patient) == (("Age",), None)


@pytest.mark.parametrize(
    ("heading", "message"),
    [
        (["label", "age"], "expected the column file, .* found label, age, separated by commas"),
        (["filename", "label"], "the column file is missing; rename filename to file if it holds that$"),
        (["file", "diagnosis"], "label is missing; rename diagnosis to label if it holds that, or add an empty column"),
        (["file", "label", "masks"], "mask_file is missing; rename masks to mask_file"),
        (["file", "Age", "age"], "the column Age stands twice"),
        (["file", "spacing", "pixel_spacing"], "spacing and pixel_spacing both mean the pixel spacing"),
    ],
)
def test_columns_that_may_mean_two_things_are_refused(heading: list[str], message: str) -> None:
    with pytest.raises(TableError, match=message):
        find_columns(heading, "commas")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1", (0.1, 0.1)),
        ("0,1", (0.1, 0.1)),
        ("0.1x0.12", (0.1, 0.12)),
        ("0.1 \u00d7 0.12 mm", (0.1, 0.12)),
        ("[0.1, 0.12]", (0.1, 0.12)),
        ("0.1\\0.12", (0.1, 0.12)),
        ("0,1; 0,12", (0.1, 0.12)),
    ],
)
def test_spacings(text: str, expected: tuple[float, float]) -> None:
    assert parse_spacing(text) == expected


@pytest.mark.parametrize("text", ["0", "-0.1", "nan", "inf", "100", "0.00001", "1e", "", "0.1x0.1x0.1", "0.1x"])
def test_what_is_no_spacing(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected millimetres per pixel from 0.001 to 10, as 0.1"):
        parse_spacing(text)


# ---------------------------------------------------------------------------------------------------- words


def test_labels_are_looked_up_whatever_their_capitals() -> None:
    words = LabelWords(BUSI, plain_label_map({"M": "Malignant", 1: "benign", "unclear": None, "never": "normal"}))
    found = {label: words.find(label) for label in ("BENIGN", "m", "1", "Unclear", "", "cyst")}
    assert found == {"BENIGN": "benign", "m": "malignant", "1": "benign", "Unclear": "", "": "", "cyst": None}
    assert list(words.unused.values()) == ["never"]


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ({"M": "malign"}, "data.label_map: 'M' means malign, which is no class; did you mean malignant?"),
        ({"M": "malignant", "m": "benign"}, "data.label_map: 'm' stands there twice, as malignant and benign"),
        ({"M": ["malignant"]}, r"data.label_map: 'M' means \['malignant'\]; expected the name of a class, or null"),
    ],
)
def test_a_map_to_nothing_is_refused(label_map: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LabelWords(BUSI, plain_label_map(label_map))


def test_unknown_labels_are_listed_with_their_lines(tmp_path: Path) -> None:
    names = ("a.png", "b.png", "c.png")
    root = dataset(tmp_path / "set", "file,label", "a.png,cyst", "b.png,M", "c.png,cyst", names=names)
    (defect,) = read_labels(root).defects
    assert str(defect).startswith("labels.csv: 2 unknown labels: 'cyst' (2 lines from 2), 'M' (line 3); expected")
    (root / "labels.csv").write_text("file,label\na.png,Cyst\nb.png,M\n")
    table = DatasetOptions(None, plain_label_map({"cyst": "benign", "M": "malignant"}))
    assert index_dataset(root, options=table).counts == {"benign": 1, "malignant": 1, "normal": 0}


@pytest.mark.parametrize("nothing", ["nan", "NaN", "NA", "n/a", "None", "null", "<NA>"])
def test_words_for_nothing_are_nothing(tmp_path: Path, nothing: str) -> None:
    rows = [f"{name},{nothing},{nothing},{nothing},{nothing},{nothing}" for name in ("a.png", "b.png")]
    root = dataset(tmp_path / "set", "file,label,mask_file,patient,spacing,age", *rows)
    listing = read_labels(root)
    assert not listing.defects
    for case in listing.cases:
        assert (case.label, case.masks, case.mask_known, case.patient, case.spacing) == ("", (), False, "", None)
        assert case.further == (("age", ""),)


def test_a_class_may_be_called_none(tmp_path: Path) -> None:
    root = dataset(tmp_path / "set", "file,label", "a.png,None", "b.png,cyst")
    (root / "dataset.json").write_text('{"classes": ["cyst", "none"], "without_lesion": "none"}')
    assert [case.label for case in read_labels(root).cases] == ["none", "cyst"]


# --------------------------------------------------------------------------------------------- whole tables


def test_the_file_alone_is_enough_and_semicolons_part_masks_by_bars(tmp_path: Path) -> None:
    root = dataset(tmp_path / "set", "file", "a.png", "b.png")
    assert [(case.label, case.mask_known) for case in read_labels(root).cases] == [("", False)] * 2
    (root / "labels.csv").write_text('file;mask_file;Spacing\na.png;b.png | c.png;"0,1"\n')
    (root / "c.png").symlink_to(root / "b.png")
    (case,) = read_labels(root).cases
    assert (case.masks, case.spacing) == (("b.png", "c.png"), (0.1, 0.1))


def test_the_column_spacing_reaches_the_case_and_the_cache(tmp_path: Path) -> None:
    root = dataset(tmp_path / "set", "file,spacing", "a.png,0.1x0.12", "b.png,")
    for _ in range(2):
        cases = open_cache(root, 32, tmp_path / "cache").index.cases
        assert [case.spacing for case in cases] == [(0.1, 0.12), None]
    (root / "labels.csv").write_text("file,spacing\na.png,100\n")
    assert str(read_labels(root).defects[0]).startswith("labels.csv, line 2: spacing '100': expected millimetres")


def test_links_to_files_elsewhere_are_followed(tmp_path: Path) -> None:
    root = dataset(tmp_path / "set", "file,label", "a.png,benign")
    os.renames(root / "a.png", tmp_path / "store/blob")
    (root / "a.png").symlink_to("../store/blob")
    index = index_dataset(root)
    assert [(case.image, case.height) for case in index.cases] == [("a.png", 6)]
    (tmp_path / "elsewhere.csv").write_text((root / "labels.csv").read_text())
    (root / "labels.csv").unlink()
    (root / "labels.csv").symlink_to("../elsewhere.csv")
    assert index_dataset(root).digest == index.digest
    (tmp_path / "elsewhere.csv").unlink()
    with pytest.raises(UserError, match=r"labels.csv: is a link to ../elsewhere.csv, which is not there; fetch"):
        index_dataset(root)


def test_a_table_outside_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    root = dataset(tmp_path / "set", "file,label", "a.png,benign", "b.png,normal")
    inside = index_dataset(root)
    table = DatasetOptions(str(tmp_path / "mine.csv"))
    (root / "labels.csv").rename(table.table(root))
    index = index_dataset(root, options=table)
    assert (index.digest, index.cases) == (inside.digest, inside.cases)
    require_layout(root, "labels", table)
    cached = open_cache(root, 32, tmp_path / "cache", table)
    assert cached.index.cases == index.cases
    table.table(root).write_text("file,label\na.png,malignant\n")
    assert [case.label for case in open_cache(root, 32, tmp_path / "cache", table).index.cases] == ["malignant"]
    with pytest.raises(UserError, match="names a table, and data=busi reads folders; use data=labels"):
        require_layout(root, "busi", table)
    with pytest.raises(UserError, match=r"data.labels=nothing.csv: expected a table, found no such file"):
        index_dataset(root, options=DatasetOptions("nothing.csv"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("labels.xlsx", "found none; labels.xlsx is a spreadsheet: save it as labels.csv, CSV in UTF-8"),
        ("Labels.CSV", "found none; Labels.CSV is taken if it is renamed to labels.csv, or named by data.labels="),
        ("annotations.tsv", "annotations.tsv is taken if it is renamed"),
        ("notes.txt", "point data.root at the dataset"),
    ],
)
def test_tables_of_another_name_are_mentioned(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=re.escape(message)):
        resolve_root(tmp_path)


def test_names_are_found_in_either_normal_form(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "lésion.png") for form in ("NFC", "NFD"))
    root = dataset(tmp_path / "set", "file,label", f"{composed},benign", names=(decomposed,))
    (case,) = read_labels(root).cases
    assert case.case_id == composed[:-4]
    assert (root / case.image).is_file()


def test_check_tells_how_the_table_was_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = dataset(tmp_path / "set", "file;label;case", "a.png;M;1", "b.png;B;2")
    datasets.main(["check", str(root), "--label-map", "m=malignant,b=benign,x=normal"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "images: 2 (1 benign, 1 malignant, 0 normal)"
    assert printed[-5:] == [
        "note: labels.csv: the column case keeps scans together, as a column patient would",
        "note: labels.csv: the column case has another value for each scan, so it keeps none together",
        "note: data.label_map: no row has the label 'x'",
        "3 notes",
        "0 defects",
    ]
    with pytest.raises(SystemExit):
        datasets.main(["check", str(root), "--label-map", "malignant"])
    assert "--label-map: expected pairs as Benign=benign" in capsys.readouterr().err
