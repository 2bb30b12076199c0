"""A U-Net of smp whose decoder is taught at every resolution."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from busi_lab.models.interface import Outputs


class SupervisedUnet(nn.Module):
    """The parts of a U-Net under their names and, while it trains, mask logits of the inner stages of its decoder.

    A stage of half the resolution counts half as much (nnU-Net, Isensee et al., Nature Methods 18, 2021).

    Args:
        unet: of segmentation-models-pytorch.
        channels: filters of its decoder's stages, the deepest first.
    """

    def __init__(self, unet: nn.Module, channels: tuple[int, ...]) -> None:
        super().__init__()
        parts: Any = unet
        self.encoder, self.decoder = parts.encoder, parts.decoder
        self.segmentation_head, self.classification_head = parts.segmentation_head, parts.classification_head
        self.auxiliary_heads = nn.ModuleList(nn.Conv2d(width, 1, kernel_size=1) for width in reversed(channels[:-1]))
        self._stages: list[Tensor] = []
        for block in parts.decoder.blocks[:-1]:
            block.register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, inputs: Any, features: Tensor) -> None:
        if self.training:
            self._stages.insert(0, features)

    def forward(self, image: Tensor) -> Outputs:
        """Logits of float ``[B, C, S, S]``, S a multiple of 32."""
        features = self.encoder(image)
        masks = self.segmentation_head(self.decoder(features))
        classes = None if self.classification_head is None else self.classification_head(features[-1])
        if not self.training:
            return Outputs(classes, masks)
        stages, self._stages = self._stages, []
        logits = [head(stage) for head, stage in zip(self.auxiliary_heads, stages, strict=True)]
        size = image.shape[-2:]
        enlarged = (F.interpolate(each, size=size, mode="bilinear", align_corners=False) for each in logits)
        factors = tuple(0.5 ** (number + 1) for number in range(len(logits)))
        return Outputs(classes, masks, tuple(enlarged), auxiliary_factors=factors)
