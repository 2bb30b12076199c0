"""A dataset folder in any layout (:mod:`busi_lab.data.layouts`) -> one row per image, decoded once."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from busi_lab.classes import BUSI, Classes
from busi_lab.data.layout import CaseFiles, Defect
from busi_lab.data.layouts import classes_of, find_root, list_cases
from busi_lab.data.reading import read_mask, read_scan
from busi_lab.data.scan import Gray, Mask, Scan, UnreadableImageError
from busi_lab.errors import UserError
from busi_lab.machine import cpu_count

Visit = Callable[[int, Gray, Mask], None]


@dataclass(frozen=True)
class Case(CaseFiles):
    """One image of a dataset.

    Attributes:
        height: rows of the stored scan, pixels.
        width: columns of the stored scan, pixels.
        lesion_pixels: foreground of the united mask at the stored size, pixels; 0 where no mask is known.
        content_hash: SHA-256 of the gray pixels and the united mask, so that recompression without loss
            changes nothing.
        spacing: millimetres between rows and between columns of the stored scan; None where its file does not tell.
    """

    height: int
    width: int
    lesion_pixels: int
    content_hash: str
    spacing: tuple[float, float] | None = None


@dataclass(frozen=True)
class Index:
    """All cases of a dataset, in the order of :func:`busi_lab.data.layout.list_files`."""

    root: Path
    cases: tuple[Case, ...]
    classes: Classes = BUSI
    layout: str = "auto"

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits that change when a case, label, pixel or mask does."""
        lines = sorted(
            f"{case.case_id}\t{case.label}\t{case.content_hash}" + ("" if case.mask_known else "\tno mask")
            for case in self.cases
        )
        if self.classes != BUSI:
            lines.append(f"{self.classes}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Images of each class; those without a label are in none."""
        found = Counter(case.label for case in self.cases)
        return {label: found[label] for label in self.classes.names}


def read_case(root: Path, case: CaseFiles) -> tuple[Gray, Mask]:
    """Read one scan and its united mask, both ``[H, W]``; a mask without files is empty.

    Raises:
        UserError: a file is unreadable or a mask differs in size.
    """
    defects, content = _read(root, case)
    if content is None:
        raise UserError(f"{root}: {defects[0]}")
    return content[0].pixels, content[1]


def _read(root: Path, case: CaseFiles) -> tuple[list[Defect], tuple[Scan, Mask] | None]:
    """Read a case and gather its defects; None where the scan or a mask is of no use."""
    defects: list[Defect] = []
    scan: Scan | None = None
    try:
        scan = read_scan(root / case.image)
    except UnreadableImageError as error:
        defects.append(Defect(case.image, f"{error}; restore or remove the file"))
    union: Mask | None = None
    for name in case.masks:
        try:
            mask = read_mask(root / name)
        except UnreadableImageError as error:
            defects.append(Defect(name, f"{error}; restore or remove the file"))
            continue
        if scan is not None and mask.shape != scan.pixels.shape:
            expected, found = (f"{width} x {height}" for height, width in (scan.pixels.shape, mask.shape))
            defects.append(Defect(name, f"mask of another size than its image: expected {expected}, found {found}"))
            continue
        union = mask if union is None or union.shape != mask.shape else union | mask
    if defects or scan is None:
        return defects, None
    return [], (scan, np.zeros(scan.pixels.shape, np.bool_) if union is None else union)


def _scan(root: Path, files: Sequence[CaseFiles], visit: Visit | None) -> Iterator[tuple[Case | None, list[Defect]]]:
    """Decode every case on all cores; yields in order."""

    def scan(item: tuple[int, CaseFiles]) -> tuple[Case | None, list[Defect]]:
        number, case = item
        defects, content = _read(root, case)
        if content is None:
            return None, defects
        read, mask = content
        image = read.pixels
        if visit is not None:
            visit(number, image, mask)
        height, width = image.shape
        content_hash = hashlib.sha256(f"{height}x{width}".encode())
        content_hash.update(image.tobytes())
        content_hash.update(np.packbits(mask).tobytes())
        digest = content_hash.hexdigest()
        size = {"height": height, "width": width, "spacing": read.spacing}
        return Case(**vars(case), **size, lesion_pixels=int(mask.sum()), content_hash=digest), []

    with ThreadPoolExecutor(max_workers=cpu_count()) as pool:
        yield from pool.map(scan, enumerate(files))


def index_dataset(root: str | Path | None, visit: Visit | None = None, layout: str = "auto") -> Index:
    """Decode a whole dataset once and index it.

    Args:
        root: a dataset folder, or its parent.
        visit: called with the case's number, its scan (uint8 ``[H, W]``) and its mask (bool ``[H, W]``) from
            several threads, so that a caller can keep what was decoded.
        layout: see :mod:`busi_lab.data.layouts`.

    Raises:
        UserError: the folder is not a sound dataset; names the first defect and counts the others.
    """
    folder = find_root(root, layout)
    files, defects = list_cases(folder, layout)
    if not defects:
        cases: list[Case] = []
        for case, found in _scan(folder, files, visit):
            defects += found
            if case is not None:
                cases.append(case)
        if not defects:
            return Index(folder, tuple(cases), classes_of(folder, layout), layout)
    others = f" (and {len(defects) - 1} more)" if len(defects) > 1 else ""
    option = "" if layout == "auto" else f" --layout {layout}"
    raise UserError(f"{folder}: {defects[0]}{others}; list all with: busi-data check '{folder}'{option}")


def check_dataset(root: str | Path, layout: str = "auto") -> tuple[Index, list[Defect]]:
    """Look for every defect of a dataset; the index holds the cases that can be read.

    Raises:
        UserError: there is no dataset folder to look into.
    """
    folder = find_root(root, layout)
    files, defects = list_cases(folder, layout)
    classes = classes_of(folder, layout)
    cases: list[Case] = []
    for case, found in _scan(folder, files, None):
        defects += found
        if case is None:
            continue
        cases.append(case)
        if case.label and case.label == classes.without_lesion and case.lesion_pixels:
            defects.append(Defect(case.image, f"{case.label} scan with {case.lesion_pixels} lesion pixels in its mask"))
        if case.label in classes.lesions and case.masks and not case.lesion_pixels:
            defects.append(Defect(case.image, f"{case.label} scan with an empty mask"))
        if case.lesion_pixels == case.height * case.width:
            defects.append(Defect(case.image, "the mask covers the whole scan"))
    return Index(folder, tuple(cases), classes, layout), defects
