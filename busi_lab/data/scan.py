"""What every reader of image files has in common: the scan that it yields, the sizes it takes, and its errors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from busi_lab.data.spacing import Spacing

Gray = NDArray[np.uint8]
Mask = NDArray[np.bool_]

MAX_PIXELS = 50_000_000  # of one frame, times its samples in DICOM; a file of a few bytes can declare billions
EXPECTED = "expected PNG, JPEG, BMP, TIFF or DICOM"


class UnreadableImageError(Exception):
    """A file that is no intact image; the message says why."""


class NoPictureError(UnreadableImageError):
    """A sound file of a kind that holds no picture, such as the directory of a disc or a report."""


@dataclass(frozen=True)
class Region:
    """A part of a picture with a calibration of its own: rows ``top`` to ``bottom`` and columns alike, ends excluded.

    ``spacing`` is None where it has no sound one.
    """

    top: int
    bottom: int
    left: int
    right: int
    spacing: Spacing | None


@dataclass(frozen=True)
class Origin:
    """What a file says of where its picture comes from; None for what it does not say.

    Attributes:
        modality: ``US`` for ultrasound (DICOM PS3.3, C.7.3.1.1.1).
        sop_instance_uid: the name of the file that no other file in the world has.
        frame_time_ms: milliseconds from the frame before to this one.
        burned_in_annotation: ``YES`` where the picture may show the patient's name, or ``NO``.
    """

    modality: str | None = None
    sop_instance_uid: str | None = None
    frame_time_ms: float | None = None
    burned_in_annotation: str | None = None


UNKNOWN = Origin()
"""Of every file that is no DICOM."""


@dataclass(frozen=True, eq=False)
class Scan:
    """One picture of a file.

    Attributes:
        pixels: uint8 ``[H, W]``.
        spacing: millimetres between rows and between columns; None where the file does not tell. Only DICOM does:
            the resolution in other formats is meant for printers.
        frame: number from 0 in a file of several frames; None in a file of one.
        regions: where the spacing holds, if the file says that; its regions may differ, and ``spacing`` then is None.
        origin: what the file says of it.
    """

    pixels: Gray
    spacing: Spacing | None
    frame: int | None
    regions: tuple[Region, ...] = ()
    origin: Origin = UNKNOWN


def spacing_of(mask: Mask, spacing: Spacing | None, regions: Sequence[Region]) -> Spacing | None:
    """The spacing of the pixels of a mask ``[H, W]``, which counts only inside the regions of its scan.

    Args:
        mask: of a lesion.
        spacing: of a scan without regions, or all of whose regions agree.
        regions: of the scan.

    Returns:
        None where a pixel lies outside all regions, or in two that disagree.
    """
    if not regions or not mask.any():
        return spacing
    outside, found = mask.copy(), []
    for region in regions:
        place = slice(region.top, region.bottom), slice(region.left, region.right)
        if mask[place].any():
            outside[place] = False
            found.append(region.spacing)
    return None if outside.any() else common_spacing(found)


def common_spacing(spacings: Sequence[Spacing | None]) -> Spacing | None:
    """The spacing that all have; None where there is none, one is not known, or two differ by more than 0.1 %."""
    first = spacings[0] if spacings else None
    if first is None:
        return None
    for other in spacings:
        if other is None or not all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(first, other, strict=True)):
            return None
    return first


def check_size(columns: int, rows: int, samples: int = 1) -> None:
    """Refuse a size before anything of it is decoded.

    Raises:
        UnreadableImageError: the image is empty, or has more than :data:`MAX_PIXELS` values.
    """
    if rows < 1 or columns < 1:
        raise UnreadableImageError(f"the image is {columns} x {rows} pixels; expected at least one pixel")
    if rows * columns * samples > MAX_PIXELS:
        raise UnreadableImageError(
            f"the image is {columns} x {rows} pixels{f' of {samples} values' if samples > 1 else ''}; expected at most "
            f"{MAX_PIXELS} values"
        )
