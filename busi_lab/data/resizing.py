"""Scans and masks at the size of a network."""

import numpy as np
from PIL import Image

from busi_lab.data.scan import Gray, Mask


def resize_scan(image: Gray, size: int) -> Gray:
    """Resize to ``[size, size]`` without keeping the aspect ratio, smoothing where it shrinks."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def resize_mask(mask: Mask, size: int) -> Mask:
    """Resize to bool ``[size, size]``: a pixel is lesion where half of its area is.

    A lesion too small for that keeps one pixel, at its centre of mass.
    """
    cover = Image.fromarray(mask.astype(np.uint8) * 255).resize((size, size), Image.Resampling.BOX)
    resized: Mask = np.asarray(cover) >= 128
    if mask.any() and not resized.any():
        row, column = (
            int((axis.mean() + 0.5) * size / side) for axis, side in zip(mask.nonzero(), mask.shape, strict=True)
        )
        resized[min(row, size - 1), min(column, size - 1)] = True
    return resized
