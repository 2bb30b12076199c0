"""The multi-task network on a U-Net like nnU-Net's: Aumente-Maestro et al., CMPB 260, 2025."""

from typing import Any

import torch
from torch import Tensor, nn

from busi_lab.models.instance_blocks import AumenteSettings, ClassHead, DoubleConvolution, convolution, from_scratch
from busi_lab.models.interface import BuiltModel, Outputs, Wanted
from busi_lab.models.registry import register

_WIDTHS = (32, 64, 128, 256, 320)


@register("aumente_nnunet", AumenteSettings, gives=("both",))
def build(settings: AumenteSettings, wanted: Wanted) -> BuiltModel:
    """Build it.

    Raises:
        UserError: ImageNet weights are asked for.
    """
    assert wanted.classes is not None
    return from_scratch(AumenteNNUNet(wanted.classes, settings.in_chans, settings.dropout), settings)


class _Encoder(nn.Module):
    """Five levels of 32, 64, 128, 256, 320 channels with max-pooling behind each, and a bottleneck of 320."""

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        inputs = (in_chans, *_WIDTHS[:-1])
        self.levels = nn.ModuleList(map(DoubleConvolution, inputs, _WIDTHS))
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = DoubleConvolution(_WIDTHS[-1], _WIDTHS[-1])

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The maps of the levels, the finest first, and the bottleneck's."""
        maps: list[Tensor] = []
        features = image
        for level in self.levels:
            maps.append(level(features))
            features = self.pool(maps[-1])
        return maps, self.bottleneck(features)


class AumenteNNUNet(nn.Module):
    """Mask logits from the decoder, and class logits from what meets at the bottleneck.

    The class head takes the last encoder level, the bottleneck and the first decoder level side by side, each with 320
    channels. In training, the three decoder levels below the last give mask logits as well, enlarged to the image.

    Args:
        num_classes: outputs of the class head.
        in_chans: input channels.
        dropout: probability before the class logits.
    """

    def __init__(self, num_classes: int, in_chans: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = _Encoder(in_chans)
        widths = _WIDTHS[::-1]
        below = (*_WIDTHS[-2::-1], _WIDTHS[0])  # channels of each decoder level, the coarsest first
        self.ups = nn.ModuleList(nn.ConvTranspose2d(width, width, kernel_size=2, stride=2) for width in widths)
        outputs = (*below[:-1], below[-1] // 2)
        self.decoder = nn.ModuleList(
            DoubleConvolution(2 * width, out, middle) for width, out, middle in zip(widths, outputs, below, strict=True)
        )
        self.segmentation_head = nn.Conv2d(outputs[-1], 1, kernel_size=1)
        self.auxiliary_heads = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(width, width, factor, factor), nn.Conv2d(width, 1, kernel_size=1))
            for width, factor in zip(outputs[3:0:-1], (2, 4, 8), strict=True)
        )
        self.of_encoder = convolution(_WIDTHS[-1], _WIDTHS[-1])
        self.of_decoder = convolution(outputs[0], _WIDTHS[-1])
        self.classification_head = ClassHead(convolution(3 * _WIDTHS[-1], 512), num_classes, dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="leaky_relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Outputs:
        """Class and mask logits of float ``[B, C, S, S]``, S a multiple of 32."""
        skips, features = self.encoder(image)
        ups: Any = self.ups
        bottleneck = ups[0](features)
        levels: list[Tensor] = []
        for up, level, skip in zip(ups, self.decoder, reversed(skips), strict=True):
            enlarged = up(features) if levels else bottleneck
            features = level(torch.cat([skip, enlarged], dim=1))
            levels.append(features)
        joined = torch.cat([self.of_encoder(skips[-1]), bottleneck, self.of_decoder(levels[0])], dim=1)
        auxiliary = None
        if self.training:
            auxiliary = tuple(head(level) for head, level in zip(self.auxiliary_heads, levels[3:0:-1], strict=True))
        return Outputs(self.classification_head(joined), self.segmentation_head(features), auxiliary)
