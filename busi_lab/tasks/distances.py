"""Distances between outlines, in pixels of the stored scan and in millimetres."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from busi_lab.metrics import hausdorff95
from busi_lab.tasks.base import Batch

Mask = NDArray[np.bool_]
Spacing = tuple[float, float]


def distances_of(predicted: Mask, truth: Mask, spacings: tuple[Spacing, Spacing]) -> tuple[float, float]:
    """HD95 in pixels of the stored scan, and in millimetres; NaN where it is not defined."""
    pixels, millimetres = spacings
    known = not math.isnan(millimetres[0] + millimetres[1])
    return hausdorff95(predicted, truth, pixels), hausdorff95(predicted, truth, millimetres) if known else math.nan


def distance_columns(distances: list[tuple[float, float]], device: torch.device) -> dict[str, Tensor]:
    """What :func:`distances_of` gives for each image, as the metrics take it: ``distance`` and ``distance_mm``."""
    columns = torch.tensor(distances, dtype=torch.float32, device=device).view(-1, 2)
    return {"distance": columns[:, 0], "distance_mm": columns[:, 1]}


def spacings_of(batch: Batch, shape: tuple[int, ...], part: slice = slice(None)) -> list[tuple[Spacing, Spacing]]:
    """For each image, the size of a pixel of a mask of ``shape``: in pixels of the stored scan, in millimetres."""
    count = len(batch["mask"])
    sizes = batch["size"].double().cpu() if "size" in batch else torch.tensor([shape] * count).double()
    unknown = torch.full((count, 2), math.nan)
    millimetres = batch.get("spacing", unknown).double().cpu() * sizes
    sides = torch.tensor(shape).double()
    pairs = zip(*((values[part] / sides).tolist() for values in (sizes, millimetres)), strict=True)
    return [((pixels[0], pixels[1]), (mm[0], mm[1])) for pixels, mm in pairs]
