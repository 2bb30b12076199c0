"""A dataset folder in BUSI's layout -> one row per image.

Layout (Al-Dhabyani et al., Data in Brief 28:104863, 2020): ``CLASS/CLASS (N).png`` with the mask
``CLASS (N)_mask.png`` and, for an image with several lesions, ``_mask_1.png``, ``_mask_2.png``. The lesion
mask of an image is the union of its files.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from busi_lab.data.reading import Gray, Mask, UnreadableImageError, read_image, read_mask
from busi_lab.errors import UserError
from busi_lab.run_directory import CLASSES

Visit = Callable[[int, Gray, Mask], None]

_MASK_NAME = re.compile(r"(?P<image>.+?)_mask(?:_(?P<number>\d+))?$")
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}  # dropped by file managers, like every name with a leading dot


@dataclass(frozen=True)
class CaseFiles:
    """The files of one image, relative to the dataset's root, with forward slashes."""

    case_id: str
    label: str
    image: str
    masks: tuple[str, ...]


@dataclass(frozen=True)
class Case(CaseFiles):
    """One image of a dataset.

    Attributes:
        case_id: file name without ending, such as ``benign (1)``; unique in a dataset.
        label: one of :data:`busi_lab.run_directory.CLASSES`.
        height: rows of the stored scan, pixels.
        width: columns of the stored scan, pixels.
        lesion_pixels: foreground of the united mask at the stored size, pixels.
        content_hash: SHA-256 of the gray pixels and the united mask, so that recompression without loss
            changes nothing.
    """

    height: int
    width: int
    lesion_pixels: int
    content_hash: str


@dataclass(frozen=True)
class Defect:
    """Something wrong with a dataset folder: where, and what was expected and found."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True)
class Index:
    """All cases of a dataset in lexicographic order of class and file name."""

    root: Path
    cases: tuple[Case, ...]

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits that change when a case, label, pixel or mask does."""
        lines = sorted(f"{case.case_id}\t{case.label}\t{case.content_hash}" for case in self.cases)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Images of each class."""
        found = Counter(case.label for case in self.cases)
        return {label: found[label] for label in CLASSES}


def resolve_root(root: str | Path | None) -> Path:
    """The folder that holds the class folders: ``root`` itself or the only such folder directly in it.

    Raises:
        UserError: no such folder, or none of the class folders in it.
    """
    if not root:
        raise UserError(
            "data.root is not set: set it, or the environment variable BUSI_ROOT, to the folder that holds "
            f"{', '.join(CLASSES)} (or try data=phantom)"
        )
    folder = Path(root).expanduser()
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise UserError(f"data.root={folder}: expected a dataset folder, found {found}; check the path")
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    matches = [path for path in candidates if any((path / label).is_dir() for label in CLASSES)]
    if matches and matches[0] == folder:
        return folder
    if len(matches) != 1:
        found = ", ".join(sorted(path.name for path in matches)) or "none"
        raise UserError(
            f"data.root={folder}: expected the folders {', '.join(CLASSES)} in it or in one folder below it, "
            f"found {found}; point data.root at the dataset"
        )
    return matches[0]


def list_files(root: Path) -> tuple[list[CaseFiles], list[Defect]]:
    """Pair the images and masks below ``root`` by name; no file is opened.

    Returns:
        The cases in lexicographic order of class and file name, and everything that does not fit the layout.
    """
    cases: list[CaseFiles] = []
    defects: list[Defect] = []
    foreign = (entry for entry in sorted(root.iterdir()) if entry.name not in CLASSES and not _is_system_file(entry))
    defects += [
        Defect(entry.name, f"foreign entry: expected only {', '.join(CLASSES)}; move it away") for entry in foreign
    ]
    for label in CLASSES:
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
            cases.append(CaseFiles(stem, label, image, files))
        for stem, orphans in masks.items():
            defects += [Defect(name, f"mask without image: expected {label}/{stem}.png") for _, name in orphans]
    twins = [stem for stem, count in Counter(case.case_id for case in cases).items() if count > 1]
    defects += [Defect(stem, "the name stands in two class folders; names must be unique") for stem in twins]
    return cases, defects


def _is_system_file(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_FILES


def read_case(root: Path, case: CaseFiles) -> tuple[Gray, Mask]:
    """Read one scan and its united mask, both ``[H, W]``.

    Raises:
        UserError: a file is unreadable or a mask differs in size.
    """
    defects, content = _read(root, case)
    if content is None:
        raise UserError(f"{root}: {defects[0]}")
    return content


def _read(root: Path, case: CaseFiles) -> tuple[list[Defect], tuple[Gray, Mask] | None]:
    """Read a case and gather its defects; None where the scan or a mask is of no use."""
    defects: list[Defect] = []
    image: Gray | None = None
    try:
        image = read_image(root / case.image)
    except UnreadableImageError as error:
        defects.append(Defect(case.image, f"{error}; restore or remove the file"))
    union: Mask | None = None
    for name in case.masks:
        try:
            mask = read_mask(root / name)
        except UnreadableImageError as error:
            defects.append(Defect(name, f"{error}; restore or remove the file"))
            continue
        if image is not None and mask.shape != image.shape:
            expected, found = (f"{width} x {height}" for height, width in (image.shape, mask.shape))
            defects.append(Defect(name, f"mask of another size than its image: expected {expected}, found {found}"))
            continue
        union = mask if union is None or union.shape != mask.shape else union | mask
    if defects or image is None or union is None:
        return defects, None
    return [], (image, union)


def _scan(root: Path, files: Sequence[CaseFiles], visit: Visit | None) -> Iterator[tuple[Case | None, list[Defect]]]:
    """Decode every case on all cores; yields in order."""

    def scan(item: tuple[int, CaseFiles]) -> tuple[Case | None, list[Defect]]:
        number, case = item
        defects, content = _read(root, case)
        if content is None:
            return None, defects
        image, mask = content
        if visit is not None:
            visit(number, image, mask)
        height, width = image.shape
        content_hash = hashlib.sha256(f"{height}x{width}".encode())
        content_hash.update(image.tobytes())
        content_hash.update(np.packbits(mask).tobytes())
        row = Case(
            case.case_id, case.label, case.image, case.masks, height, width, int(mask.sum()), content_hash.hexdigest()
        )
        return row, defects

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from pool.map(scan, enumerate(files))


def index_dataset(root: str | Path | None, visit: Visit | None = None) -> Index:
    """Decode a whole dataset once and index it.

    Args:
        root: a folder in BUSI's layout, or its parent.
        visit: called with the case's number, its scan (uint8 ``[H, W]``) and its mask (bool ``[H, W]``) from
            several threads, so that a caller can keep what was decoded.

    Raises:
        UserError: the folder is not a sound dataset; names the first defect and counts the others.
    """
    folder = resolve_root(root)
    files, defects = list_files(folder)
    if not defects:
        cases: list[Case] = []
        for case, found in _scan(folder, files, visit):
            defects += found
            if case is not None:
                cases.append(case)
        if not defects:
            return Index(folder, tuple(cases))
    others = f" (and {len(defects) - 1} more)" if len(defects) > 1 else ""
    raise UserError(f"{folder}: {defects[0]}{others}; list all with: busi-data check '{folder}'")


def check_dataset(root: str | Path) -> tuple[Index, list[Defect]]:
    """Look for every defect of a dataset; the index holds the cases that can be read.

    Raises:
        UserError: there is no dataset folder to look into.
    """
    folder = resolve_root(root)
    files, defects = list_files(folder)
    cases: list[Case] = []
    for case, found in _scan(folder, files, None):
        defects += found
        if case is None:
            continue
        cases.append(case)
        if case.label == "normal" and case.lesion_pixels:
            defects.append(Defect(case.image, f"normal scan with {case.lesion_pixels} lesion pixels in its mask"))
        if case.label != "normal" and not case.lesion_pixels:
            defects.append(Defect(case.image, f"{case.label} scan with an empty mask"))
        if case.lesion_pixels == case.height * case.width:
            defects.append(Defect(case.image, "the mask covers the whole scan"))
    return Index(folder, tuple(cases)), defects
