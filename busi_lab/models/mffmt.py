"""MFFMT: a ResNet whose maps show the lesion, and classify together with what was seen of it.

Source: Wei et al., *A Novel Deep Learning Model for Breast Tumor Ultrasound Image Classification with Lesion Region
Perception*, Current Oncology 31:5057, 2024, section 2.2. The order of the modules is the paper's; widths, the 1x1
alignments and how differing and common features are formed are inferred.
"""

from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models.resnet import ResNet
from torch import Tensor, nn

from busi_lab.config import NetworkSettings
from busi_lab.errors import UserError
from busi_lab.models.attention import CBAM, CoordinateAttention
from busi_lab.models.inputs import PaddedNetwork, match_channels
from busi_lab.models.interface import BuiltModel, Outputs, Wanted
from busi_lab.models.pretrained import create_timm_model
from busi_lab.models.registry import register

_WIDTH = 128  # inferred


@dataclass
class MFFMTSettings(NetworkSettings):
    """``backbone`` is a ResNet of timm, to which ``weights`` belong."""

    backbone: str = "resnet18"

    @property
    def label(self) -> str:
        """The network with its backbone."""
        return f"{self.name}-{self.backbone}"

    @property
    def timm_backbone(self) -> str | None:
        """The backbone."""
        return self.backbone


@register("mffmt", MFFMTSettings, gives=("both",))
def build(settings: MFFMTSettings, wanted: Wanted) -> BuiltModel:
    """Build it; ``dropout`` is before the class logits.

    Raises:
        UserError: a backbone that is no ResNet of timm, or weights that are unavailable or do not fit.
    """
    resnet = create_timm_model(settings.backbone, settings.weights, settings.in_chans, 0.0)
    if not isinstance(resnet, ResNet):
        raise UserError(f"model.backbone={settings.backbone}: mffmt takes a ResNet of timm, as resnet18 or resnet50")
    constants = timm.data.resolve_model_data_config(resnet)
    assert wanted.classes is not None
    network = MFFMT(resnet, wanted.classes, settings.dropout)
    mean, std = (match_channels(constants[key], settings.in_chans) for key in ("mean", "std"))
    return BuiltModel(PaddedNetwork(network), (network.perception, network.fusion), mean, std)


class ResNetMaps(nn.Module):
    """The four stages of a ResNet, at 1/4 to 1/32 of the image.

    Args:
        resnet: timm's.
    """

    def __init__(self, resnet: Any) -> None:
        super().__init__()
        self.channels: list[int] = [item["num_chs"] for item in resnet.feature_info[1:]]
        for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, name, getattr(resnet, name))  # under timm's names, for files of weights

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps of float ``[B, C, S, S]``, the finest first."""
        features: Any = image
        maps = []
        for name, module in self.named_children():
            features = module(features)
            if name.startswith("layer"):
                maps.append(features)
        return maps


class LesionPerception(nn.Module):
    """CLEP: coordinate attention, then CBAM on the map of each scale, then their fusion, which shows the lesion.

    Args:
        channels: of the maps, the finest first.
        width: of the fused map.
    """

    def __init__(self, channels: list[int], width: int = _WIDTH) -> None:
        super().__init__()
        self.attention = nn.ModuleList(nn.Sequential(CoordinateAttention(count), CBAM(count)) for count in channels)
        self.aligned = nn.ModuleList(nn.Conv2d(count, width, kernel_size=1) for count in channels)
        self.fused = _convolution(width * len(channels), width)
        self.lesion = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The perceived map ``[B, W, S/4, S/4]``, and the lesion's logits ``[B, 1, S, S]``."""
        size = maps[0].shape[-2:]
        scales = [
            _resized(align(attend(features)), size)
            for attend, align, features in zip(self.attention, self.aligned, maps, strict=True)
        ]
        perceived = self.fused(torch.cat(scales, dim=1))
        return perceived, _resized(self.lesion(perceived), torch.Size(4 * side for side in size))


class FeatureFusion(nn.Module):
    """MFF: keeps in what ResNet and CLEP differ, enhances what they have in common, and classifies.

    Args:
        channels: of ResNet's last map.
        num_classes: outputs.
        dropout: probability before the last layer.
        width: of CLEP's map.
    """

    def __init__(self, channels: int, num_classes: int, dropout: float, width: int = _WIDTH) -> None:
        super().__init__()
        self.aligned = _convolution(channels, width, kernel=1)
        self.differing = _convolution(width, width)
        self.common = _convolution(width, width)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(3 * width, num_classes)
        )

    def forward(self, semantic: Tensor, perceived: Tensor) -> Tensor:
        """Class logits ``[B, K]`` of ResNet's last map and CLEP's."""
        semantic = self.aligned(semantic)
        perceived = F.adaptive_avg_pool2d(perceived, (semantic.shape[-2], semantic.shape[-1]))
        differing = self.differing((semantic - perceived).abs())
        common = self.common(semantic * perceived)
        logits: Tensor = self.head(torch.cat([semantic, differing, common], dim=1))
        return logits


class MFFMT(nn.Module):
    """The whole: class and lesion map from one ResNet.

    Args:
        resnet: timm's.
        num_classes: outputs.
        dropout: probability before the last layer.
    """

    def __init__(self, resnet: Any, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = ResNetMaps(resnet)
        self.perception = LesionPerception(self.encoder.channels)
        self.fusion = FeatureFusion(self.encoder.channels[-1], num_classes, dropout)

    def forward(self, image: Tensor) -> Outputs:
        """Class logits and mask logits of float ``[B, C, S, S]``, S a multiple of 32."""
        maps = self.encoder(image)
        perceived, lesion = self.perception(maps)
        return Outputs(self.fusion(maps[-1], perceived), lesion)


def _convolution(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _resized(features: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)
