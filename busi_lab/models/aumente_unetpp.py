"""The multi-task network on a UNet++: Aumente-Maestro et al., CMPB 260, 2025; UNet++: Zhou et al., DLMIA 2018."""

from typing import Any

import torch
from torch import Tensor, nn

from busi_lab.models.instance_blocks import AumenteSettings, ClassHead, DoubleConvolution, from_scratch
from busi_lab.models.interface import BuiltModel, Outputs, Wanted
from busi_lab.models.registry import register

_WIDTHS = (24, 48, 96, 192, 384)
_SLOPE = 0.1  # of the leaky ReLU


@register("aumente_unetpp", AumenteSettings, gives=("both",))
def build(settings: AumenteSettings, wanted: Wanted) -> BuiltModel:
    """Build it.

    Raises:
        UserError: ImageNet weights are asked for.
    """
    assert wanted.classes is not None
    return from_scratch(AumenteUNetPP(wanted.classes, settings.in_chans, settings.dropout), settings)


def _block(inputs: int, outputs: int) -> DoubleConvolution:
    return DoubleConvolution(inputs, outputs, slope=_SLOPE, affine=True)


class _Node(nn.Module):
    """A node of the nested decoder: the map below, enlarged, behind all maps before it on its level.

    The finest level keeps the channels of what is enlarged, the others halve them.
    """

    def __init__(self, level: int, before: int) -> None:
        super().__init__()
        inputs, width = _WIDTHS[level + 1], _WIDTHS[level]
        enlarged = inputs if level == 0 else inputs // 2
        self.up = nn.ConvTranspose2d(inputs, enlarged, kernel_size=2, stride=2)
        self.convolutions = _block(before * width + enlarged, width)

    def forward(self, below: Tensor, before: list[Tensor]) -> Tensor:
        features: Tensor = self.convolutions(torch.cat([*before, self.up(below)], dim=1))
        return features


class AumenteUNetPP(nn.Module):
    """Mask logits from the nested decoder, and class logits from what meets at the bottleneck.

    The class head takes the last encoder level before the bottleneck, the bottleneck, and the first decoder level side
    by side, each with 384 channels at 1/16 of the image. In training, the inner nodes of the finest level give mask
    logits as well.

    Args:
        num_classes: outputs of the class head.
        in_chans: input channels.
        dropout: probability before the class logits.
    """

    def __init__(self, num_classes: int, in_chans: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        depth = len(_WIDTHS) - 1
        self.encoder = nn.ModuleList(map(_block, (in_chans, *_WIDTHS[:-1]), _WIDTHS))
        self.pool = nn.MaxPool2d(2)
        self.decoder = nn.ModuleList(
            nn.ModuleList(_Node(level, column) for level in range(depth - column + 1)) for column in range(1, depth + 1)
        )
        self.segmentation_heads = nn.ModuleList(nn.Conv2d(_WIDTHS[0], 1, kernel_size=1) for _ in range(depth))
        self.shrunk = nn.Sequential(nn.MaxPool2d(2), _block(_WIDTHS[-2], _WIDTHS[-1]))
        self.classification_head = ClassHead(_block(3 * _WIDTHS[-1], 512), num_classes, dropout)

    def forward(self, image: Tensor) -> Outputs:
        """Class and mask logits of float ``[B, C, S, S]``, S a multiple of 16."""
        grid: list[list[Tensor]] = []  # by level, each in the order of its columns
        features = image
        for number, encode in enumerate(self.encoder):
            features = encode(self.pool(features) if number else features)
            grid.append([features])
        nodes: Any
        for column, nodes in enumerate(self.decoder, start=1):
            for level, node in enumerate(nodes):
                grid[level].append(node(grid[level + 1][column - 1], grid[level][:column]))
        joined = torch.cat([self.shrunk(grid[-2][0]), grid[-1][0], self.shrunk(grid[-2][1])], dim=1)
        heads: Any = self.segmentation_heads
        auxiliary = None
        if self.training:
            auxiliary = tuple(heads[column - 1](grid[0][column]) for column in range(len(heads) - 1, 0, -1))
        return Outputs(self.classification_head(joined), heads[-1](grid[0][-1]), auxiliary)
