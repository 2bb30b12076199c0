"""The header of a DICOM file -> where its spacing holds, and where its picture comes from."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from busi_lab.data.dicom_levels import first_number
from busi_lab.data.scan import Origin, Region, common_spacing
from busi_lab.data.spacing import Spacing

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CENTIMETRES, _PLANE = 3, 1  # PhysicalUnitsXDirection and RegionSpatialFormat, PS3.3 C.8.5.5


def find_spacing(dataset: "Dataset") -> tuple[Spacing | None, tuple[Region, ...]]:
    """Millimetres between rows and between columns, and the regions in which they hold.

    Ultrasound has its calibration in regions (PS3.3, C.8.5.5), outside of which it says nothing; where they disagree,
    there is no spacing of the whole. ImagerPixelSpacing is not used: it is measured at the detector of a projection
    radiograph, not in the patient.
    """
    regions = tuple(
        _region(item, int(dataset.Rows), int(dataset.Columns))
        for item in dataset.get("SequenceOfUltrasoundRegions") or ()
        if item.get("RegionSpatialFormat") == _PLANE
        and item.get("PhysicalUnitsXDirection") == item.get("PhysicalUnitsYDirection") == _CENTIMETRES
    )
    if regions:
        return common_spacing([region.spacing for region in regions]), regions
    return _sound([float(value) for value in dataset.get("PixelSpacing") or ()]), ()


def _region(item: "Dataset", rows: int, columns: int) -> Region:
    """A region; one that does not say where it lies is the whole picture. A negative delta is a direction."""
    names = ("RegionLocationMinY0", "RegionLocationMaxY1", "RegionLocationMinX0", "RegionLocationMaxX1")
    top, bottom, left, right = (first_number(item, name) for name in names)
    deltas = [abs(10 * (first_number(item, name) or 0)) for name in ("PhysicalDeltaY", "PhysicalDeltaX")]
    spacing = _sound(deltas)
    if top is None or bottom is None or left is None or right is None or bottom < top or right < left:
        return Region(0, rows, 0, columns, spacing)
    return Region(max(0, int(top)), int(bottom) + 1, max(0, int(left)), int(right) + 1, spacing)


def _sound(numbers: list[float]) -> Spacing | None:
    if len(numbers) != 2 or not all(math.isfinite(value) and value > 0 for value in numbers):
        return None
    return numbers[0], numbers[1]


def origin_of(dataset: "Dataset") -> Callable[[int], Origin]:
    """What the header says of each frame, by its number from 0."""
    modality, name, annotation = (_text(dataset, key) for key in ("Modality", "SOPInstanceUID", "BurnedInAnnotation"))
    time = first_number(dataset, "FrameTime")
    times: Any = dataset.get("FrameTimeVector")
    each = [] if times is None else [float(value) for value in (times if hasattr(times, "__len__") else [times])]

    def origin(frame: int) -> Origin:
        own = each[frame] if frame < len(each) else time
        return Origin(modality, name, own if own is not None and math.isfinite(own) else None, annotation)

    return origin


def _text(dataset: "Dataset", key: str) -> str | None:
    """A short text of the header; None where it is empty, or what a damaged file may have put there."""
    text = str(dataset.get(key) or "").strip()
    return text if text and text.isprintable() and len(text) <= 64 else None
