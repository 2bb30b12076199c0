"""The lesions that a predicted mask outlines, one by one: how sure the network is of each, and how well it fits."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


class OutlinedLesion(NamedTuple):
    """An 8-connected part of a predicted mask.

    Attributes:
        pixels: of it.
        confidence: mean lesion probability of its pixels.
        iou: with the true lesions that it shares a pixel with, taken together; 0 where there are none.
    """

    pixels: int
    confidence: float
    iou: float


def judge_lesions(probabilities: NDArray[np.float32], predicted: Mask, truth: Mask) -> list[OutlinedLesion]:
    """All parts of a predicted mask, largest first.

    Args:
        probabilities: of a lesion, ``[H, W]``.
        predicted: ``[H, W]``.
        truth: ``[H, W]``; its lesions are 8-connected, too.
    """
    count, parts = cv2.connectedComponents(predicted.astype(np.uint8), connectivity=8)
    known, lesions = cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)
    part, lesion = parts[predicted] - 1, lesions[predicted]
    pixels = np.bincount(part, minlength=count - 1)
    confidence = np.bincount(part, probabilities[predicted], count - 1) / pixels
    common = np.bincount(part * known + lesion, minlength=(count - 1) * known).reshape(count - 1, known)[:, 1:]
    touched = (common > 0) @ np.bincount(lesions.ravel(), minlength=known)[1:]
    shared = common.sum(axis=1)
    iou = shared / (pixels + touched - shared)
    order = np.argsort(-pixels, kind="stable").tolist()
    return [OutlinedLesion(int(pixels[i]), float(confidence[i]), float(iou[i])) for i in order]
