"""The published U-Net on a MobileNetV1 encoder, with a classification head on demand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from busi_lab.config import NetworkSettings
from busi_lab.models.decoder import five_stages
from busi_lab.models.inputs import PaddedNetwork, match_channels
from busi_lab.models.interface import BuiltModel, Outputs, Wanted
from busi_lab.models.pretrained import create_timm_model
from busi_lab.models.registry import register

PUBLISHED_WIDTHS = (512, 256, 128, 64, 32)


@dataclass
class MobileNetUNetSettings(NetworkSettings):
    """``weights`` are those of timm's MobileNetV1, or of any run on it.

    Attributes:
        decoder_channels: filters of the five steps of the decoder, the deepest first; None for the published ones.
    """

    decoder_channels: list[int] | None = None

    @property
    def timm_backbone(self) -> str | None:
        """MobileNetV1."""
        return "mobilenetv1_100"


@register("mobilenet_unet", MobileNetUNetSettings, gives=("masks", "both"))
def build(settings: MobileNetUNetSettings, wanted: Wanted) -> BuiltModel:
    """Build it on timm's MobileNetV1, to which ``weights`` belong; ``dropout`` is before the class logits.

    Raises:
        UserError: weights that are unavailable or do not fit, or filters that are not five.
    """
    widths = PUBLISHED_WIDTHS if settings.decoder_channels is None else five_stages(settings.decoder_channels)
    mobilenet = create_timm_model("mobilenetv1_100", settings.weights, settings.in_chans, 0.0)
    constants = timm.data.resolve_model_data_config(mobilenet)
    network = MobileNetUNet(MobileNetEncoder(mobilenet), wanted.classes, settings.dropout, widths)
    heads = tuple(module for child, module in network.named_children() if child != "encoder" and module is not None)
    mean, std = (match_channels(constants[key], settings.in_chans) for key in ("mean", "std"))
    return BuiltModel(PaddedNetwork(network), heads, mean, std)


class MobileNetEncoder(nn.Module):
    """MobileNetV1 as a feature pyramid with the five taps of the published U-Net.

    At 256 px, in Keras' names: conv1_relu ``[B, 32, 128, 128]``, conv_pw_3_relu ``[B, 128, 64, 64]``,
    conv_pw_5_relu ``[B, 256, 32, 32]``, conv_pw_11_relu ``[B, 512, 16, 16]``, conv_pw_13_relu ``[B, 1024, 8, 8]``
    (Dajam & Qahmash, IJACSA 16(5), 2025).

    Args:
        mobilenet: timm's ``mobilenetv1_100``.
    """

    channels = (32, 128, 256, 512, 1024)

    def __init__(self, mobilenet: Any) -> None:
        super().__init__()
        self.stem = nn.Sequential(mobilenet.conv_stem, mobilenet.bn1)  # timm's norm layer has the activation inside
        self.blocks = mobilenet.blocks

    def forward(self, image: Tensor) -> list[Tensor]:
        """The taps of float ``[B, C, S, S]``, finest first."""
        taps = [self.stem(image)]
        features = taps[0]
        for number, block in enumerate(self.blocks):
            features = block(features)
            if number > 0:  # block 0 is conv_pw_1, no tap
                taps.append(features)
        return taps


class MobileNetUNet(nn.Module):
    """The published U-Net: a MobileNetV1 encoder and a decoder of transposed convolutions.

    Each of the decoder's steps doubles the resolution by a transposed convolution and appends the encoder's features
    of that resolution, aligned to as many channels by a 1x1 convolution; the last step, to the input's resolution,
    has no features to append, and 32 filters as published (Dajam & Qahmash, IJACSA 16(5), 2025). The other widths, 3x3
    kernels, batch norm and ReLU are inferred.

    Args:
        encoder: the encoder.
        num_classes: outputs of a classification head on the encoder's pooled last features; None for no head.
        dropout: probability before that head.
        widths: filters of the five steps.
    """

    def __init__(
        self,
        encoder: MobileNetEncoder,
        num_classes: int | None = None,
        dropout: float = 0.0,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.Module()
        inputs = [encoder.channels[-1], *(2 * width for width in widths[:-1])]
        self.decoder.ups = nn.ModuleList(_double(i, width) for i, width in zip(inputs, widths, strict=True))
        skips = zip(encoder.channels[-2::-1], widths, strict=False)
        self.decoder.aligned = nn.ModuleList(nn.Conv2d(channels, width, kernel_size=1) for channels, width in skips)
        self.segmentation_head = nn.Conv2d(widths[-1], 1, kernel_size=1)
        self.classification_head = (
            None
            if num_classes is None
            else nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(encoder.channels[-1], num_classes)
            )
        )

    def forward(self, image: Tensor) -> Outputs:
        """Mask logits ``[B, 1, S, S]`` of float ``[B, C, S, S]``; with a head, class logits ``[B, K]`` as well."""
        *skips, deepest = self.encoder(image)
        features = deepest
        ups: Any = self.decoder.ups
        aligned: Any = self.decoder.aligned
        for up, align, skip in zip(ups, aligned, reversed(skips), strict=False):
            features = torch.cat([up(features), align(skip)], dim=1)
        classes = None if self.classification_head is None else self.classification_head(deepest)
        return Outputs(classes, self.segmentation_head(ups[-1](features)))


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
