"""A folder of scans of any layout -> a proposal for its ``labels.csv``, from the names of folders and files alone."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from busi_lab.data.dataset import read_classes
from busi_lab.data.names import is_system_file
from busi_lab.data.reading import is_scan_file
from busi_lab.errors import UserError
from busi_lab.plurals import counted

COLUMNS = ("file", "label", "mask_file", "patient")

_MASK_WORDS = ("mask", "seg", "segmentation", "gt", "groundtruth", "annotation")
_MASK_NAME = re.compile(rf"(?P<scan>.+?)[ _.-](?:{'|'.join(_MASK_WORDS)})s?(?:[ _.-]?\d+)?", re.IGNORECASE)
_MASK_FOLDERS = {*_MASK_WORDS, *(f"{word}s" for word in _MASK_WORDS), "label", "labels", "mask_images", "ground_truth"}
_LISTED = 3  # names that a remark gives as examples


def propose_labels(root: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Guess label and masks of every scan below a folder.

    A label is a class whose name stands in a folder's name or in the file's, the nearest first. A mask is a file
    named as its scan with ``_mask``, ``_seg`` or ``_gt`` behind it, or as the scan itself in a folder such as
    ``masks``. Patients are never guessed.

    Returns:
        Rows with :data:`COLUMNS`, and what could not be decided, in sentences.

    Raises:
        UserError: no such folder, or no scan in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: expected a folder of scans, found {'a file' if root.exists() else 'nothing'}")
    names = [PurePosixPath(path.relative_to(root).as_posix()) for path in _files(root)]
    if not names:
        raise UserError(f"{root}: no scan found; expected PNG, JPEG, BMP, TIFF or DICOM files")
    scans, masks, orphans = _pair(names)
    classes = read_classes(root).names
    rows, several, without = [], [], []
    for name in scans:
        label, others = _label(name, classes)
        if others:
            several.append(name)
        elif not label:
            without.append(name)
        files = "|".join(str(mask) for mask in masks[name])
        rows.append({"file": str(name), "label": label, "mask_file": files, "patient": ""})
    counts = Counter(row["label"] for row in rows if row["label"])
    found = ", ".join(f"{counts[name]} {name}" for name in classes if counts[name]) or "no label"
    remarks = [f"{counted(len(rows), 'scan')}: {found}; {sum(bool(row['mask_file']) for row in rows)} with a mask"]
    remarks += _remark(several, "names several classes, so its label is left empty")
    remarks += _remark(without, f"names none of the classes {', '.join(classes)}, so its label is left empty")
    remarks += _remark(orphans, "is named like a mask, but its scan was not found, so it is left out")
    remarks.append("patients were not guessed: fill in the column patient, or scans of one woman may be split")
    return rows, remarks


def _files(root: Path) -> Iterator[Path]:
    """All scans and masks below a folder in order; hidden and linked folders are not entered."""
    for folder, inner, names in os.walk(root, followlinks=False):
        inner[:] = sorted(name for name in inner if not is_system_file(Path(name)))
        for name in sorted(names):
            if is_scan_file(path := Path(folder) / name):
                yield path


def _pair(
    names: Sequence[PurePosixPath],
) -> tuple[list[PurePosixPath], dict[PurePosixPath, list[PurePosixPath]], list[PurePosixPath]]:
    """Scans, the masks of each, and masks without a scan."""
    suspects = {name: stem for name in names if (stem := _scan_of(name))}
    scans = [name for name in names if name not in suspects]
    by_stem: dict[str, list[PurePosixPath]] = defaultdict(list)
    for name in scans:
        by_stem[name.stem.casefold()].append(name)
    masks: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    orphans = []
    for name, stem in suspects.items():
        candidates = by_stem[stem.casefold()]
        owner = max(candidates, key=lambda scan: _nearness(scan, name), default=None)
        rivals = [scan for scan in candidates if owner and _nearness(scan, name) == _nearness(owner, name)]
        if owner is None or len(rivals) > 1:
            orphans.append(name)
        else:
            masks[owner].append(name)
    return scans, masks, orphans


def _scan_of(name: PurePosixPath) -> str:
    """The stem of the scan that a file is the mask of, by its name; empty where it is none."""
    match = _MASK_NAME.fullmatch(name.stem)
    if match:
        return match["scan"]
    return name.stem if any(part.casefold() in _MASK_FOLDERS for part in name.parts[:-1]) else ""


def _nearness(scan: PurePosixPath, mask: PurePosixPath) -> int:
    """Folders that two paths share, wherever a folder of masks stands between them."""
    shared = Counter(part.casefold() for part in scan.parts[:-1]) & Counter(p.casefold() for p in mask.parts[:-1])
    return shared.total()


def _label(name: PurePosixPath, classes: Sequence[str]) -> tuple[str, bool]:
    """The class that a path names, nearest part first, and whether one part names several."""
    for part in (name.stem, *reversed(name.parts[:-1])):
        words = re.split(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z0-9])", part)
        plain = {word.casefold() for word in words} | {part.casefold()}
        found = [label for label in classes if label.casefold() in plain]
        if len(found) > 1:
            return "", True
        if found:
            return found[0], False
    return "", False


def _remark(names: Sequence[PurePosixPath], what: str) -> list[str]:
    if not names:
        return []
    listed = ", ".join(str(name) for name in names[:_LISTED])
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return [f"undecided: {listed}{more}: each {what}" if len(names) > 1 else f"undecided: {listed}: it {what}"]
