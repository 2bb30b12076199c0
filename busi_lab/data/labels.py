"""A folder with a table ``labels.csv`` -> the files of each image; no image is opened.

The table has a row an image, with the columns ``file``, ``label`` (empty where it is not known) and ``mask_file``
(empty where no mask is known; several files are separated by ``;``), perhaps ``patient``, and further columns, which
are kept. Files are named by their paths in the folder.
"""

import csv
from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath

from busi_lab.classes import Classes
from busi_lab.data.case_files import CaseFiles, Defect
from busi_lab.data.dataset import DATASET, read_classes
from busi_lab.errors import one_line
from busi_lab.plurals import counted

LABELS = "labels.csv"

_COLUMNS = ("file", "label", "mask_file")
_NEARLY_PATIENT = {"patient", "patients", "patient_id", "patientid", "patient id"}


def has_labels(folder: Path) -> bool:
    """Whether a folder has the layout with ``labels.csv``."""
    path = folder / LABELS
    return path.exists() or path.is_symlink()


def read_labels(root: Path) -> tuple[list[CaseFiles], list[Defect]]:
    """The rows of ``labels.csv``, in lexicographic order of file, and everything that is wrong with them."""
    try:
        with (root / LABELS).open(encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file, strict=True)
            heading = [name.strip() for name in next(table, [])]
            rows = [(table.line_num, [cell.strip() for cell in row]) for row in table]
    except UnicodeDecodeError:
        return [], [Defect(LABELS, "the text is not UTF-8; save the table as CSV in UTF-8")]
    except (OSError, csv.Error) as error:
        return [], [Defect(LABELS, f"the table cannot be read ({one_line(error)}); restore it")]
    if missing := [name for name in _COLUMNS if name not in heading]:
        found = ", ".join(heading) or "nothing"
        expected = f"expected {', '.join(_COLUMNS)} in the first line, separated by commas"
        return [], [Defect(LABELS, f"{expected}; {', '.join(missing)} missing, found {found}")]
    if twice := [name for name, count in Counter(heading).items() if name and count > 1]:
        return [], [Defect(LABELS, f"the column {twice[0]} stands twice in the first line; rename one")]
    if "patient" not in heading and (near := [name for name in heading if name.lower() in _NEARLY_PATIENT]):
        return [], [Defect(LABELS, f"the column {near[0]} would keep no patient together; rename it to patient")]
    cases: list[CaseFiles] = []
    defects: list[Defect] = []
    classes = read_classes(root)
    listed: dict[str, tuple[str, int]] = {}  # case id -> file and line
    for line, row in rows:
        place = f"{LABELS}, line {line}"
        if not any(row):
            continue
        if len(row) != len(heading):
            advice = "put a cell that holds a comma into double quotes"
            defects.append(Defect(place, f"expected {counted(len(heading), 'cell')}, found {len(row)}; {advice}"))
            continue
        case, complaints = _read_row(root, classes, dict(zip(heading, row, strict=True)))
        defects += [Defect(place, complaint) for complaint in complaints]
        if case is None:
            continue
        if case.case_id in listed:
            other, before = listed[case.case_id]
            twin = f"'{case.image}' stands in line {before} already; list each file once"
            if other != case.image:
                twin = f"'{case.image}' and '{other}' of line {before} are both named {case.case_id}; rename one"
            defects.append(Defect(place, twin))
            continue
        listed[case.case_id] = case.image, line
        cases.append(case)
    if not listed and not defects:
        defects.append(Defect(LABELS, "the table names no image"))
    return sorted(cases, key=lambda case: case.image), defects


def _read_row(root: Path, classes: Classes, cells: dict[str, str]) -> tuple[CaseFiles | None, list[str]]:
    """The files of one row as far as they are sound, None without a scan, and what is wrong with it."""
    image, *masks = (
        str(PurePosixPath(name.strip().replace("\\", "/"))) if name.strip() else ""
        for name in (cells["file"], *cells["mask_file"].split(";"))
    )
    if not image:
        return None, ["file is empty; expected the path of an image in this folder"]
    wrong = {name: complaint for name in (image, *masks) if name and (complaint := _complaint(root, name))}
    complaints = list(wrong.values())
    label = cells["label"]
    if label not in (*classes.names, ""):
        names = ", ".join(classes.names)
        complaints.append(f"unknown label '{label}'; expected {names} or nothing; {DATASET} names other classes")
        label = ""
    if image in masks:
        complaints.append(f"'{image}' is named as its own mask; name the mask file, or none")
    if image in wrong:
        return None, complaints
    files = tuple(name for name in masks if name and name not in wrong)
    return CaseFiles(
        str(PurePosixPath(image).with_suffix("")),
        label,
        image,
        files,
        mask_known=bool(files) or (bool(label) and label == classes.without_lesion),
        patient=cells.get("patient", ""),
        further=tuple((name, cell) for name, cell in cells.items() if name and name not in (*_COLUMNS, "patient")),
    ), complaints


def _complaint(root: Path, name: str) -> str:
    """Why a name is not that of a file in the folder, or nothing."""
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return f"'{name}' leaves the folder; expected a path within it, without .."
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()):
            return f"'{name}' leaves the folder by a link; put the file itself there"
        if path.is_file():
            return ""
    except (OSError, RuntimeError, ValueError) as error:
        return f"'{name}' cannot be looked up ({one_line(error)}); correct the path"
    return f"'{name}' is missing; restore the file or correct the path"
