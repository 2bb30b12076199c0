"""What every reader of image files has in common: the scan that it yields, the sizes it takes, and its error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]
Mask = NDArray[np.bool_]

MAX_PIXELS = 50_000_000  # of one frame, times its samples in DICOM; a file of a few bytes can declare billions
EXPECTED = "expected PNG, JPEG, BMP, TIFF or DICOM"


class UnreadableImageError(Exception):
    """A file that is no intact image; the message says why."""


@dataclass(frozen=True, eq=False)
class Scan:
    """One picture of a file.

    Attributes:
        pixels: uint8 ``[H, W]``.
        spacing: millimetres between rows and between columns; None where the file does not tell. Only DICOM does:
            the resolution in other formats is meant for printers.
        frame: number from 0 in a file of several frames; None in a file of one.
    """

    pixels: Gray
    spacing: tuple[float, float] | None
    frame: int | None


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
