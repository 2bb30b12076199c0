"""The two layouts of a dataset folder -> the files of each image; no image is opened.

- BUSI's (Al-Dhabyani et al., Data in Brief 28:104863, 2020): ``CLASS/CLASS (N).png`` with the mask
  ``CLASS (N)_mask.png`` and, for an image with several lesions, ``_mask_1.png``, ``_mask_2.png``.
- A folder with a table ``labels.csv`` (:mod:`busi_lab.data.labels`).

A folder that holds ``labels.csv`` has the second layout. Classes are BUSI's, or those that ``dataset.json`` names
(:mod:`busi_lab.data.dataset`). The lesion mask of an image is the union of its files.
"""

import re
from collections import Counter
from pathlib import Path

from busi_lab.classes import BUSI
from busi_lab.data.case_files import CaseFiles, Defect
from busi_lab.data.dataset import DATASET, read_classes
from busi_lab.data.labels import LABELS, NO_TABLE, LabelTable, read_labels, similar_tables
from busi_lab.errors import UserError

_MASK_NAME = re.compile(r"(?P<image>.+?)_mask(?:_(?P<number>\d+))?$")
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}  # dropped by file managers, like every name with a leading dot


def resolve_root(root: str | Path | None, table: LabelTable = NO_TABLE) -> Path:
    """The folder of a dataset in either layout: ``root`` itself or the only such folder directly in it.

    With a table from elsewhere it is ``root``, whatever it holds.

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
    if table.file is not None:
        return folder
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    matches = [path for path in candidates if table.stands_beside(path) or _has_classes(path)]
    if matches and matches[0] == folder:
        return folder
    if len(matches) != 1:
        found = ", ".join(sorted(path.name for path in matches)) or "none"
        advice = similar_tables(folder) or f"point data.root at the dataset, and name other classes in {DATASET}"
        raise UserError(
            f"data.root={folder}: expected the folders {', '.join(read_classes(folder).names)} or {LABELS} in it or in "
            f"one folder below it, found {found}; {advice}"
        )
    return matches[0]


def _has_classes(folder: Path) -> bool:
    return any((folder / label).is_dir() for label in read_classes(folder).names)


def require_layout(root: str | Path | None, name: str, table: LabelTable = NO_TABLE) -> None:
    """Check that a dataset folder has the layout that ``busi`` or ``labels`` means; any other name takes either.

    Raises:
        UserError: no dataset folder, or one of the other layout.
    """
    if name == "labels" and not root:
        raise UserError(f"data.root is not set: data=labels needs data.root=DIR, the folder that holds {LABELS}")
    if table.file is not None and name == "busi":
        raise UserError(f"data.labels={table.file}: names a table, and data=busi reads folders; use data=labels")
    folder = resolve_root(root, table)
    names = ", ".join(read_classes(folder).names)
    if table.label_map and not table.stands_beside(folder):
        raise UserError(f"data.label_map: says what labels of a table mean, and {folder} has no {LABELS}; leave it out")
    if table.stands_beside(folder) and name == "busi":
        raise UserError(
            f"data.root={folder}: expected the folders {names} alone, found {LABELS}; use data=labels, "
            "or move that file away"
        )
    if not table.stands_beside(folder) and name == "labels":
        raise UserError(f"data.root={folder}: expected {LABELS}, found {names} folders; use data=busi")


def list_files(root: Path, table: LabelTable = NO_TABLE) -> tuple[list[CaseFiles], list[Defect]]:
    """Find the images and masks of a dataset; no image is opened.

    Returns:
        The cases in lexicographic order of class and file name, of a folder with ``labels.csv`` in that of the files'
        paths, and everything that does not fit the layout.

    Raises:
        UserError: ``table`` names no file or no class.
    """
    if not table.stands_beside(root):
        return _pair_by_name(root)
    listing = read_labels(root, table)
    return listing.cases, listing.defects


def list_notes(root: Path, table: LabelTable = NO_TABLE) -> list[str]:
    """What a user should know of how the table of a folder was understood; it is no defect.

    Raises:
        UserError: as :func:`list_files`.
    """
    return read_labels(root, table).notes if table.stands_beside(root) else []


def _pair_by_name(root: Path) -> tuple[list[CaseFiles], list[Defect]]:
    """The images and masks in BUSI's layout."""
    cases: list[CaseFiles] = []
    classes = read_classes(root)
    names = classes.names
    foreign = [entry.name for entry in sorted(root.iterdir()) if not _is_system_file(entry)]
    defects = [
        Defect(name, f"foreign entry: expected only {', '.join(names)}; move it away")
        for name in foreign
        if name not in (*names, DATASET)
    ]
    for label in names:
        folder = root / label
        if not folder.is_dir():
            defects.append(Defect(label, "class folder is missing"))
            continue
        images: dict[str, str] = {}
        masks: dict[str, list[tuple[int, str]]] = {}
        for path in sorted(folder.iterdir(), key=lambda item: item.name):
            name = f"{label}/{path.name}"
            if _is_system_file(path):
                continue
            if not path.is_file() or path.suffix.lower() != ".png":
                defects.append(Defect(name, "foreign entry: expected only .png files; move it away"))
            elif match := _MASK_NAME.match(path.stem):
                masks.setdefault(match["image"], []).append((int(match["number"] or 0), name))
            else:
                images[path.stem] = name
        if not images:
            defects.append(Defect(label, "class folder holds no image"))
        for stem, image in images.items():
            files = tuple(name for _, name in sorted(masks.pop(stem, [])))
            if not files:
                defects.append(Defect(image, f"mask is missing: expected {label}/{stem}_mask.png"))
            cases.append(
                CaseFiles(stem, label, image, files, mask_known=bool(files) or label == classes.without_lesion)
            )
        for stem, orphans in masks.items():
            defects += [Defect(name, f"mask without image: expected {label}/{stem}.png") for _, name in orphans]
    twins = [stem for stem, count in Counter(case.case_id for case in cases).items() if count > 1]
    defects += [Defect(stem, "the name stands in two class folders; names must be unique") for stem in twins]
    return cases, defects


def _is_system_file(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_FILES
