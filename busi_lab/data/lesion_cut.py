"""The part of a scan that a mask calls lesion: cut out, or with all else made black."""

import numpy as np

from busi_lab.data.scan import Gray, Mask

MODES = ("crop", "mask")
"""``crop`` cuts the box around the lesion out; ``mask`` makes all pixels outside of it black."""


def lesion_box(mask: Mask, margin: float) -> tuple[slice, slice] | None:
    """Rows and columns of the box around all lesion pixels of a mask ``[H, W]``; None where there are none.

    Args:
        mask: of a scan.
        margin: added at each side, as a share of the box's height and width; the box ends at the scan's edges.
    """
    if not mask.any():
        return None
    sides = []
    for pixels, length in zip((mask.any(axis=1), mask.any(axis=0)), mask.shape, strict=True):
        first, last = np.flatnonzero(pixels)[[0, -1]]
        more = round(margin * int(last - first + 1))
        sides.append(slice(max(0, int(first) - more), min(length, int(last) + 1 + more)))
    return sides[0], sides[1]


def lesion_cut(image: Gray, mask: Mask, mode: str, margin: float) -> Gray:
    """What is left of a scan ``[H, W]``: in the mode ``crop`` its box, of another size; whole where the mask is empty.

    Args:
        image: uint8 ``[H, W]``.
        mask: bool of the same size.
        mode: one of :data:`MODES`.
        margin: as in :func:`lesion_box`; of no matter to the mode ``mask``.
    """
    box = lesion_box(mask, margin)
    if box is None:
        return image
    return image[box] if mode == "crop" else np.where(mask, image, np.uint8(0))
