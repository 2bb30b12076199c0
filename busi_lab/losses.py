"""Losses of lesion masks: weighted sums of segmentation-models-pytorch's, taken image by image."""

from collections.abc import Mapping

import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss, FocalLoss, JaccardLoss, TverskyLoss
from torch import Tensor, nn

from busi_lab.errors import UserError

LOSSES = ("bce", "dice", "jaccard", "focal", "tversky")


class SegmentationLoss(nn.Module):
    """A weighted sum of losses of mask logits, each a mean over images, so that it depends on no batch.

    Dice, Jaccard and Tversky are taken image by image, as the metrics are, and are 0 for an image without a lesion,
    whose false alarms only ``bce`` and ``focal`` see. The published loss is ``{"bce": 1, "dice": 1}`` (Dajam &
    Qahmash, IJACSA 16(5), 2025); that it is taken image by image is inferred.

    Args:
        weights: factor by name, of ``LOSSES``; 0 leaves one out.
        focal_gamma: how much less easy pixels count in ``focal`` (Lin et al., ICCV 2017).
        tversky_beta: share of missed lesion pixels against false ones in ``tversky`` (Salehi et al., MLMI 2017).

    Raises:
        UserError: an unknown name, a negative factor, no factor above 0, or a setting outside its range.
    """

    def __init__(self, weights: Mapping[str, float], focal_gamma: float = 2.0, tversky_beta: float = 0.7) -> None:
        super().__init__()
        if unknown := [name for name in weights if name not in LOSSES]:
            raise UserError(f"task.loss.{unknown[0]}: unknown loss; known: {', '.join(LOSSES)}")
        for name, weight in weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
                raise UserError(f"task.loss.{name}={weight}: expected a factor of 0 or more")
        self._weights = {name: float(weight) for name, weight in weights.items() if weight > 0}
        if not self._weights:
            raise UserError(f"task.loss={dict(weights)}: expected at least one factor above 0")
        if focal_gamma < 0:
            raise UserError(f"task.focal_gamma={focal_gamma}: expected 0 or more")
        if not 0 < tversky_beta < 1:
            raise UserError(f"task.tversky_beta={tversky_beta}: expected a share between 0 and 1")
        # A channel is what the library takes a region loss over, so images are given as channels of one image.
        self._by_image = nn.ModuleDict(
            {
                "dice": DiceLoss(mode="multilabel"),
                "jaccard": JaccardLoss(mode="multilabel"),
                "tversky": TverskyLoss(mode="multilabel", alpha=1 - tversky_beta, beta=tversky_beta),
            }
        )
        self._focal = FocalLoss(mode="binary", gamma=focal_gamma)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Loss of logits float ``[B, 1, H, W]`` against masks ``[B, 1, H, W]`` of 0 and 1."""
        logits, target = logits.float(), mask.to(logits.device).float()
        total = logits.new_zeros(())
        for name, weight in self._weights.items():
            if name == "bce":
                value = F.binary_cross_entropy_with_logits(logits, target)
            elif name == "focal":
                value = self._focal(logits, target)
            else:
                value = self._by_image[name](logits.transpose(0, 1), target.transpose(0, 1))
            total = total + weight * value
        return total
