"""The two layouts of a dataset folder -> the files of each image; no image is opened.

- BUSI's (Al-Dhabyani et al., Data in Brief 28:104863, 2020): ``CLASS/CLASS (N).png`` with the mask
  ``CLASS (N)_mask.png`` and, for an image with several lesions, ``_mask_1.png``, ``_mask_2.png``. Any image format, and
  names in capitals of any kind (:mod:`busi_lab.data.names`). Scans without a lesion need no masks, and a dataset may
  have none at all.
- A folder with a table ``labels.csv``: a row an image, with the columns ``file``, ``label`` (empty where it is not
  known) and ``mask_file`` (empty where no mask is known; several files are separated by ``;``), perhaps ``patient``,
  and further columns, which are kept. Files are named by their paths in the folder.

A folder that holds ``labels.csv`` has the second layout. Classes are BUSI's, or those that ``dataset.json`` names
(:mod:`busi_lab.data.dataset`). The lesion mask of an image is the union of its files.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from busi_lab.classes import BUSI, Classes
from busi_lab.data.dataset import DATASET, read_classes
from busi_lab.data.names import class_folders, folded, is_image_name, is_system_file, parse_image_name
from busi_lab.errors import UserError, one_line
from busi_lab.plurals import counted

LABELS = "labels.csv"

_COLUMNS = ("file", "label", "mask_file")
_NEARLY_PATIENT = {"patient", "patients", "patient_id", "patientid", "patient id"}
_DEEPEST = 3  # folders below the one that is named
_MOST_FOLDERS = 500  # that are looked into for a dataset


@dataclass(frozen=True)
class CaseFiles:
    """The files of one image, relative to the dataset's root, with forward slashes.

    Attributes:
        case_id: unique in a dataset: in BUSI's layout the file name without ending, such as ``benign (1)``, beside a
            ``labels.csv`` the file's path without ending, such as ``site1/scan_3``.
        label: a class of the dataset, or empty where it is not known.
        image: the scan.
        masks: the files whose union is the lesion mask.
        mask_known: whether there are mask files, or need not be, because scans of this class have no lesion.
        patient: empty where it is not known.
        further: name and value of each further column of ``labels.csv``.
        lesion_values: what is lesion in the mask files, see :func:`busi_lab.data.masks.read_mask`.
    """

    case_id: str
    label: str
    image: str
    masks: tuple[str, ...]
    mask_known: bool = field(default=False, kw_only=True)
    patient: str = field(default="", kw_only=True)
    further: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    lesion_values: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Defect:
    """Something wrong with a dataset folder: where, and what was expected and found."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def has_labels(folder: Path) -> bool:
    """Whether a folder has the layout with ``labels.csv``."""
    path = folder / LABELS
    return path.exists() or path.is_symlink()


def resolve_root(root: str | Path | None) -> Path:
    """The folder of a dataset in either layout: ``root`` itself, or the only such folder nearest below it.

    Raises:
        UserError: no such folder, or neither the class folders nor ``labels.csv`` in it.
    """
    if not root:
        raise UserError(
            "data.root is not set: set it, or the environment variable BUSI_ROOT, to the folder that holds "
            f"{', '.join(BUSI.names)} (or try data=phantom)"
        )
    folder = Path(root).expanduser()
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise UserError(f"data.root={folder}: expected a dataset folder, found {found}; check the path")
    if has_labels(folder) or _classes_in(folder):
        return folder
    matches = _nearest_datasets(folder)
    if len(matches) != 1:
        found = ", ".join(path.relative_to(folder).as_posix() for path in matches[:9]) or "none"
        raise UserError(
            f"data.root={folder}: expected the folders {', '.join(read_classes(folder).names)} or {LABELS} in it or in "
            f"one folder below it, found {found}; point data.root at the dataset, and name other classes in {DATASET}"
        )
    return matches[0]


def _nearest_datasets(folder: Path) -> list[Path]:
    """The dataset folders below one that is none, all at the least depth at which there are any.

    Archives nest, as ``BUSI/Dataset_BUSI_with_GT/benign``. Deeper than directly in ``folder``, one class folder alone
    makes no dataset, because any other folder may be called ``normal``.
    """
    level = [folder]
    for depth in range(1, _DEEPEST + 1):
        below: list[Path] = []
        for parent in level:
            try:
                below += sorted(path for path in parent.iterdir() if path.is_dir() and not is_system_file(path))
            except OSError:  # closed to this user
                continue
            if len(below) > _MOST_FOLDERS:
                return []
        if matches := [path for path in below if _is_dataset(path, 1 if depth == 1 else 2)]:
            return matches
        level = below
    return []


def _is_dataset(folder: Path, classes: int) -> bool:
    try:
        return has_labels(folder) or _classes_in(folder) >= classes
    except OSError:
        return False


def _classes_in(folder: Path) -> int:
    """How many classes have a folder here."""
    return len(class_folders(folder, read_classes(folder).names))


def require_layout(root: str | Path | None, name: str) -> None:
    """Check that a dataset folder has the layout that ``busi`` or ``labels`` means; any other name takes either.

    Raises:
        UserError: no dataset folder, or one of the other layout.
    """
    if name == "labels" and not root:
        raise UserError(f"data.root is not set: data=labels needs data.root=DIR, the folder that holds {LABELS}")
    folder = resolve_root(root)
    names = ", ".join(read_classes(folder).names)
    if has_labels(folder) and name == "busi":
        raise UserError(
            f"data.root={folder}: expected the folders {names} alone, found {LABELS}; use data=labels, "
            "or move that file away"
        )
    if not has_labels(folder) and name == "labels":
        raise UserError(f"data.root={folder}: expected {LABELS}, found {names} folders; use data=busi")


def list_files(root: Path) -> tuple[list[CaseFiles], list[Defect]]:
    """Find the images and masks of a dataset; no image is opened.

    Returns:
        The cases in lexicographic order of class and file name, of a folder with ``labels.csv`` in that of the files'
        paths, and everything that does not fit the layout.
    """
    return _list_labelled(root) if has_labels(root) else _pair_by_name(root)


def absent_classes(root: Path) -> tuple[str, ...]:
    """The classes without a folder, of a dataset in BUSI's layout; none for a folder with ``labels.csv``."""
    names = read_classes(root).names
    if has_labels(root):
        return ()
    present = class_folders(root, names)
    return tuple(name for name in names if name not in present)


def list_notes(root: Path, cases: Sequence[CaseFiles]) -> list[Defect]:
    """What is no defect, but should be known of a dataset in BUSI's layout."""
    if has_labels(root):
        return []
    classes = read_classes(root)
    absent = absent_classes(root)
    rest = ",".join(name for name in classes.names if name not in absent)
    advice = f"data.classes=[{rest}] trains without it; else add it, or name the classes in {DATASET}"
    notes = [Defect(name, f"no folder of this class; {advice}") for name in absent]
    lesions = [case for case in cases if case.label in classes.lesions]
    if lesions and not any(case.mask_known for case in lesions):
        expected = f"segmentation needs {PurePosixPath(lesions[0].image).with_suffix('')}_mask.png and so on"
        notes.append(Defect(root.name, f"no image has a mask: classification can be trained; {expected}"))
    return notes


@dataclass
class _ClassFolder:
    """What lies in the folders of one class: names without ending -> files."""

    images: dict[str, str] = field(default_factory=dict)
    masks: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)


def _pair_by_name(root: Path) -> tuple[list[CaseFiles], list[Defect]]:
    """The images and masks in BUSI's layout."""
    classes = read_classes(root)
    names = classes.names
    folders = class_folders(root, names)
    known = {DATASET, *(folder.name for several in folders.values() for folder in several)}
    defects = [
        Defect(entry.name, f"foreign entry: expected only {', '.join(names)}; move it away")
        for entry in sorted(root.iterdir())
        if not is_system_file(entry) and entry.name not in known
    ]
    for label, several in folders.items():
        if len(several) > 1:
            places = " and ".join(folder.name for folder in several)
            defects.append(Defect(label, f"{places} are both folders of this class; put their files into one"))
    found = {label: _look_into(several[-1]) for label, several in folders.items()}
    masked = {label for label, content in found.items() if content.masks}
    cases: list[CaseFiles] = []
    for label, content in found.items():
        alike = classes.lesions if label in classes.lesions else (label,)
        needs_mask = bool(masked.intersection(alike))  # else there are none: for classification alone
        defects += content.defects
        if not content.images:
            defects.append(Defect(label, "class folder holds no image"))
        for stem, image in content.images.items():
            files = tuple(name for _, name in sorted(content.masks.pop(stem, [])))
            if not files and needs_mask:
                expected = f"{PurePosixPath(image).parent}/{stem}_mask.png"
                advice = f"add it, or list the images in {LABELS}, where a mask may be unknown"
                defects.append(Defect(image, f"mask is missing: expected {expected}; {advice}"))
            cases.append(
                CaseFiles(stem, label, image, files, mask_known=bool(files) or label == classes.without_lesion)
            )
        for stem, orphans in content.masks.items():
            for _, name in orphans:
                expected = f"{PurePosixPath(name).parent}/{stem}.png"
                defects.append(Defect(name, f"mask without image: expected {expected}"))
    twins = [stem for stem, count in Counter(case.case_id for case in cases).items() if count > 1]
    defects += [Defect(stem, "the name stands in two class folders; names must be unique") for stem in twins]
    return cases, defects


def _look_into(folder: Path) -> _ClassFolder:
    """Sort the files of one class into scans and masks."""
    content = _ClassFolder()
    seen: dict[tuple[str, str], str] = {}  # scan and ending of a mask -> file
    masks: dict[str, list[tuple[int, str]]] = {}
    for path in sorted(folder.iterdir(), key=lambda item: item.name):
        name = f"{folder.name}/{path.name}"
        if is_system_file(path):
            continue
        if not path.is_file() or not is_image_name(path):
            content.defects.append(Defect(name, "foreign entry: expected only image files; move it away"))
            continue
        parsed = parse_image_name(path.name)
        key = parsed.image, parsed.mask
        if key in seen:
            kind = "the mask" if parsed.mask else "the image"
            both = f"it and {PurePosixPath(seen[key]).name!a} are both {kind} '{parsed.image}{parsed.mask}'"
            content.defects.append(Defect(name, f"{both}; keep one, or rename one"))
            continue
        seen[key] = name
        if parsed.mask:
            masks.setdefault(parsed.image, []).append((parsed.number, name))
        else:
            content.images[parsed.image] = name
    for stem, files in masks.items():
        alike = [stem] if stem in content.images else [name for name in content.images if folded(name) == folded(stem)]
        content.masks.setdefault(alike[0] if len(alike) == 1 else stem, []).extend(files)
    return content


def _list_labelled(root: Path) -> tuple[list[CaseFiles], list[Defect]]:
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
