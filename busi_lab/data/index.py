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
from busi_lab.data.case_files import CaseFiles, Defect
from busi_lab.data.layout import list_notes
from busi_lab.data.layouts import classes_of, find_root, list_cases
from busi_lab.data.mask_checks import MaskChecks
from busi_lab.data.masks import MaskFile, read_mask_file
from busi_lab.data.options import AS_FOUND, DatasetOptions
from busi_lab.data.reading import read_scan
from busi_lab.data.scan import Gray, Mask, Scan, UnreadableImageError, spacing_of
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
        spacing: millimetres between rows and between columns of the stored scan, as the table or else its file says;
            None where neither does.
    """

    height: int
    width: int
    lesion_pixels: int
    content_hash: str


@dataclass(frozen=True)
class Index:
    """All cases of a dataset, in the order of :func:`busi_lab.data.layout.list_files`."""

    root: Path
    cases: tuple[Case, ...]
    classes: Classes = BUSI
    options: DatasetOptions = AS_FOUND

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
    return content.scan.pixels, content.mask


@dataclass(frozen=True, eq=False)
class _Content:
    """What the files of one image hold: the scan, its united mask, and its mask files by name."""

    scan: Scan
    mask: Mask
    files: dict[str, MaskFile]


def _read(root: Path, case: CaseFiles) -> tuple[list[Defect], _Content | None]:
    """Read a case and gather its defects; None where the scan or a mask is of no use."""
    defects: list[Defect] = []
    scan: Scan | None = None
    try:
        scan = read_scan(root / case.image)
    except UnreadableImageError as error:
        defects.append(Defect(case.image, f"{error}; restore or remove the file"))
    union: Mask | None = None
    files: dict[str, MaskFile] = {}
    for name in case.masks:
        try:
            files[name] = read_mask_file(root / name, case.lesion_values)
            mask = files[name].lesion
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
    return [], _Content(scan, np.zeros(scan.pixels.shape, np.bool_) if union is None else union, files)


_Look = Callable[[int, CaseFiles, _Content], None]


def _scan(root: Path, files: Sequence[CaseFiles], look: _Look | None) -> Iterator[tuple[Case | None, list[Defect]]]:
    """Decode every case on all cores; yields in order."""

    def scan(item: tuple[int, CaseFiles]) -> tuple[Case | None, list[Defect]]:
        number, case = item
        defects, content = _read(root, case)
        if content is None:
            return None, defects
        image, mask = content.scan.pixels, content.mask
        if look is not None:
            look(number, case, content)
        height, width = image.shape
        content_hash = hashlib.sha256(f"{height}x{width}".encode())
        content_hash.update(image.tobytes())
        content_hash.update(np.packbits(mask).tobytes())
        digest = content_hash.hexdigest()
        spacing = case.spacing or spacing_of(mask, content.scan.spacing, content.scan.regions)
        size = {"height": height, "width": width, "spacing": spacing}
        return Case(**{**vars(case), **size}, lesion_pixels=int(mask.sum()), content_hash=digest), []

    with ThreadPoolExecutor(max_workers=cpu_count()) as pool:
        yield from pool.map(scan, enumerate(files))


def index_dataset(root: str | Path | None, visit: Visit | None = None, options: DatasetOptions = AS_FOUND) -> Index:
    """Decode a whole dataset once and index it.

    Args:
        root: a dataset folder, or one above it.
        visit: called with the case's number, its scan (uint8 ``[H, W]``) and its mask (bool ``[H, W]``) from
            several threads, so that a caller can keep what was decoded.
        options: how the folder is to be read.

    Raises:
        UserError: the folder is not a sound dataset; names the first defect and counts the others.
    """
    folder = find_root(root, options)
    files, defects = list_cases(folder, options)
    look: _Look | None = None
    if visit is not None:
        look = lambda number, _, content: visit(number, content.scan.pixels, content.mask)  # noqa: E731
    if not defects:
        cases: list[Case] = []
        for case, found in _scan(folder, files, look):
            defects += found
            if case is not None:
                cases.append(case)
        if not defects:
            _refuse_no_lesion(folder, cases, options.lesion_values)
            return Index(folder, tuple(cases), classes_of(folder, options), options)
    others = f" (and {len(defects) - 1} more)" if len(defects) > 1 else ""
    raise UserError(f"{folder}: {defects[0]}{others}; list all with: busi-data check '{folder}'{_as_flags(options)}")


def _refuse_no_lesion(root: Path, cases: Sequence[Case], lesion_values: tuple[str, ...]) -> None:
    """Refuse chosen values that no mask file holds."""
    if lesion_values and any(case.masks for case in cases) and not any(case.lesion_pixels for case in cases):
        raise UserError(
            f"{root}: no mask file has a pixel of the lesion values {', '.join(lesion_values)}; see which values there "
            f"are with: busi-data check '{root}'"
        )


def _as_flags(options: DatasetOptions) -> str:
    """What a command must say to read the folder in the same way."""
    file = "" if options.labels is None else f" --labels '{options.labels}'"
    pairs = ",".join(f"{word}={meant}" for word, meant in options.label_map)
    values = ",".join(options.lesion_values)
    if options.layout != "auto":
        file += f" --layout {options.layout}"
    return file + (f" --label-map '{pairs}'" if pairs else "") + (f" --lesion-values '{values}'" if values else "")


def check_dataset(root: str | Path, options: DatasetOptions = AS_FOUND) -> tuple[Index, list[Defect]]:
    """Look for every defect of a dataset; the index holds the cases that can be read.

    Raises:
        UserError: there is no dataset folder to look into.
    """
    index, defects, _ = inspect_dataset(root, options)
    return index, defects


def inspect_dataset(root: str | Path, options: DatasetOptions = AS_FOUND) -> tuple[Index, list[Defect], list[Defect]]:
    """The same, and behind the defects what should be known though it need not be wrong.

    Raises:
        UserError: there is no dataset folder to look into.
    """
    folder = find_root(root, options)
    files, defects = list_cases(folder, options)
    notes = list_notes(folder, files, options) if options.layout == "auto" else []
    classes = classes_of(folder, options)
    checks = MaskChecks()

    def look(number: int, case: CaseFiles, content: _Content) -> None:
        checks.look(number, case, content.scan.pixels, content.mask, content.files)

    cases: list[Case] = []
    for case, found in _scan(folder, files, look):
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
    return Index(folder, tuple(cases), classes, options), [*defects, *checks.defects()], [*notes, *checks.notes()]
