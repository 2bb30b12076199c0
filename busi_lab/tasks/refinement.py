"""Class and mask made consistent, as Aumente-Maestro et al. (CMPB 260, 2025) do it before they judge both.

A scan that is called without a lesion has an empty mask, and one with an empty mask is called without a lesion. Both
rules look at what the network predicted, neither at what the other rule has changed.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from busi_lab.classes import Classes
from busi_lab.metrics import overlap

REFINED_METRICS = ("dice_refined", "accuracy_refined", "false_positive_rate_refined")


def refined_predictions(gathered: Mapping[str, Tensor], classes: Classes) -> Tensor:
    """Number of the class of each image, int64 ``[B]``, after refinement.

    Args:
        gathered: ``logits`` ``[B, K]`` and ``predicted``, the pixels of each mask, ``[B]``.
        classes: with a class without a lesion.
    """
    predicted = gathered["logits"].argmax(dim=1)
    return torch.where(gathered["predicted"] == 0, _without_lesion(classes), predicted)


def refined_figures(gathered: Mapping[str, Tensor], classes: Classes) -> dict[str, Tensor]:
    """Figures of each image after refinement, float ``[B]``, NaN where one is not defined; their means are the metrics.

    Args:
        gathered: as for :func:`refined_predictions`, with ``label``, ``true_positive`` and ``lesion``, ``[B]``.
        classes: with a class without a lesion.
    """
    called_empty = gathered["logits"].argmax(dim=1) == _without_lesion(classes)
    hits, marked = (gathered[name].masked_fill(called_empty, 0) for name in ("true_positive", "predicted"))
    lesion = gathered["lesion"]
    dice, _ = overlap(hits, marked, lesion)
    right = refined_predictions(gathered, classes) == gathered["label"]
    alarm = torch.where(lesion > 0, math.nan, (marked > 0).float())
    return {
        "dice_refined": dice.float().to(lesion.device),
        "accuracy_refined": right.float(),
        "false_positive_rate_refined": alarm,
    }


def _without_lesion(classes: Classes) -> int:
    assert classes.without_lesion is not None
    return classes.number(classes.without_lesion)
