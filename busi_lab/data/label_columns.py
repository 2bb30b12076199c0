"""What the columns of a table of labels mean, told by their names."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from busi_lab.data.text_table import TableError

_MEANT: dict[str, tuple[str, ...]] = {
    "file": ("filename", "files", "path", "filepath", "image", "images", "imagefile", "imagepath", "imagename", "scan"),
    "label": ("labels", "class", "classes", "classname", "diagnosis", "pathology", "category", "target"),
    "mask_file": (
        *("mask", "masks", "maskfile", "maskfiles", "maskpath", "maskname", "maskfilename", "segmentation"),
        *("segmentationfile", "seg", "annotation", "annotationfile", "groundtruth", "gt"),
    ),
}
"""Column -> names that may mean it, and are asked to be renamed."""
SPACING_NAMES = ("spacing", "spacingmm", "pixelspacing", "pixelspacingmm", "mmperpixel", "pixelsize", "pixelsizemm")
_IDENTITY = r"(?:s|id|ids|uid|key|code|no|nr|num|number|name|identifier|pseudonym|hash)?"
_PERSON = re.compile(rf"(?:anon(?:ymi[sz]ed)?)?(?:patient|subject|person|participant|proband){_IDENTITY}|pid|mrn|ptid")
_CASE = re.compile(rf"(?:case|study|exam|examination|visit|accession|session|lesion){_IDENTITY}")
_ABOUT_A_PERSON = re.compile(r"patient|subject|participant|person")
_DETAIL = re.compile(r"age|sex|gender|birth|weight|height|size|history|race|ethnic|position|comment|status|date")


@dataclass(frozen=True)
class LabelColumns:
    """The columns of a table as they are written in its heading; None where there is none.

    Attributes:
        file: the scan.
        label: its class.
        masks: its mask files.
        patient: whose values keep scans together in grouped splits.
        spacing: millimetres per pixel.
        further: all others, which are kept.
        notes: what a user should know of how the names were understood.
    """

    file: str
    label: str | None
    masks: str | None
    patient: str | None
    spacing: str | None
    further: tuple[str, ...]
    notes: tuple[str, ...]


def find_columns(heading: Sequence[str], separator: str) -> LabelColumns:
    """Tell columns by their names; capitals, spaces, dashes and underscores do not matter.

    Args:
        heading: names of the columns; further ones without a name hold nothing.
        separator: what stands between them, in words.

    Raises:
        TableError: there is no column ``file``, or a name can be understood in two ways.
    """
    names = [name for name in heading if name]
    if twice := [name for name, count in Counter(map(str.casefold, names)).items() if count > 1]:
        found = next(name for name in names if name.casefold() == twice[0])
        raise TableError(f"the column {found} stands twice in the first line; rename one")
    own = {wanted: next((name for name in names if _plain(name) == _plain(wanted)), None) for wanted in _MEANT}
    for wanted, others in _MEANT.items():
        if own[wanted] is None and (near := [name for name in names if _plain(name) in others]):
            raise TableError(
                f"the column {wanted} is missing; rename {near[0]} to {wanted} if it holds that"
                + ("" if wanted == "file" else f", or add an empty column {wanted}")
            )
    if own["file"] is None:
        raise TableError(
            f"expected the column file, and perhaps label and mask_file, in the first line; found "
            f"{', '.join(names) or 'nothing'}, separated by {separator}"
        )
    taken = {name for name in own.values() if name}
    spacings = [name for name in names if _plain(name) in SPACING_NAMES]
    if len(spacings) > 1:
        raise TableError(f"the columns {' and '.join(spacings)} both mean the pixel spacing; rename one")
    spacing = spacings[0] if spacings else None
    patient, notes = _find_patient([name for name in names if name not in taken])
    taken |= {name for name in (patient, spacing) if name}
    return LabelColumns(
        own["file"],
        own["label"],
        own["mask_file"],
        patient,
        spacing,
        tuple(name for name in names if name not in taken),
        tuple(notes),
    )


def _find_patient(names: Iterable[str]) -> tuple[str | None, list[str]]:
    """The one column that tells which scans are of one person, and what to say of how it was chosen."""
    names = list(names)
    persons = [name for name in names if _PERSON.fullmatch(_plain(name))]
    cases = [name for name in names if _CASE.fullmatch(_plain(name))]
    exact = [name for name in persons if _plain(name) == "patient"]
    candidates = exact or persons or cases
    if len(candidates) > 1:
        listed = ", ".join(candidates)
        return None, [f"the columns {listed} could each tell patients, so none does; rename the right one to patient"]
    if candidates:
        chosen, others = candidates[0], [name for name in persons if name not in candidates]
        notes = [] if exact else [f"the column {chosen} keeps scans together, as a column patient would"]
        if others:
            notes.append(f"the column {', '.join(others)} keeps no scans together beside {chosen}")
        return chosen, notes
    near = [name for name in names if _ABOUT_A_PERSON.search(_plain(name)) and not _DETAIL.search(_plain(name))]
    return None, [
        f"the column {name} keeps no scans together; rename it to patient if it tells patients" for name in near
    ]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
