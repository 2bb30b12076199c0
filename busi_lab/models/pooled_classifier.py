"""A classifier without dense layers: feature maps, their mean, one linear layer; so each class has a map.

Source of the construction, and of the maps: Zhou et al., "Learning Deep Features for Discriminative Localization",
CVPR 2016.
"""

from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from busi_lab.config import NetworkSettings
from busi_lab.errors import UserError, one_line
from busi_lab.models.inputs import match_channels
from busi_lab.models.interface import BuiltModel, Outputs, Wanted
from busi_lab.models.pretrained import create_timm_model, hub_access
from busi_lab.models.registry import register

GOOGLENET = "googlenet"
"""The one backbone that torchvision has and timm lacks."""


@dataclass
class PooledClassifierSettings(NetworkSettings):
    """``backbone`` is timm's name of a convolutional model, or ``googlenet``.

    ``output_stride`` is 32, or 16 for maps of twice the resolution, as Zhou et al. have them: the last halving is left
    out, and the layers keep their weights.
    """

    backbone: str = "mobilenetv1_100"
    output_stride: int = 32

    @property
    def label(self) -> str:
        """The backbone, and what is behind it."""
        return f"{self.backbone}+mean"

    @property
    def timm_backbone(self) -> str | None:
        """The backbone without the name of its weights."""
        return self.backbone


class PooledClassifier(nn.Module):
    """Feature maps, their mean over all places, dropout, a linear layer.

    Args:
        backbone: float ``[B, C, S, S]`` -> feature maps ``[B, F, h, w]``.
        features: F.
        num_classes: K.
        dropout: probability before the linear layer, in training.
    """

    def __init__(self, backbone: nn.Module, features: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, num_classes)

    def forward(self, image: Tensor) -> Outputs:
        """Class logits ``[B, K]`` of normalised images, and, when it does not train, class activation maps.

        The maps are ``[B, K, h, w]``; the mean of one is the logit of its class without the bias.
        """
        features: Tensor = self.backbone(image)
        logits = self.head(self.dropout(features.mean(dim=(2, 3))))
        maps = None if self.training else torch.einsum("bfhw,kf->bkhw", features, self.head.weight)
        return Outputs(classes=logits, class_maps=maps)


class _FeatureMaps(nn.Module):
    """A timm model up to its last feature maps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(image)  # type: ignore[operator]
        return features


@register("pooled_classifier", PooledClassifierSettings, gives=("classes",))
def build(settings: PooledClassifierSettings, wanted: Wanted) -> BuiltModel:
    """Build it, with a new last layer.

    Raises:
        UserError: unknown backbone, one without feature maps, or weights that are unavailable or do not fit.
    """
    assert wanted.classes is not None
    if settings.output_stride not in (16, 32):
        raise UserError(f"model.output_stride={settings.output_stride}: expected 32, or 16 for finer maps")
    if settings.backbone == GOOGLENET:
        backbone, mean, std = _googlenet(settings)
    else:
        backbone, mean, std = _timm(settings, wanted.image_size)
    features = _features(backbone, settings, wanted.image_size)
    network = PooledClassifier(backbone, features, wanted.classes, settings.dropout)
    mean, std = (match_channels(values, settings.in_chans) for values in (mean, std))
    return BuiltModel(network, (network.head,), mean, std)


def _timm(settings: PooledClassifierSettings, size: int) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    halved = settings.output_stride == 32
    vgg = settings.backbone.startswith("vgg")
    stride = {} if halved or vgg else {"output_stride": settings.output_stride}
    model: Any = create_timm_model(settings.backbone, settings.weights, settings.in_chans, 0.0, size, **stride)
    config = timm.data.resolve_model_data_config(model)
    if hasattr(model, "pre_logits"):
        model.pre_logits = nn.Identity()  # VGG's two dense layers
    if vgg and not halved:
        model.features[-1] = nn.Identity()  # its last pooling
    model.reset_classifier(0)
    return _FeatureMaps(model), config["mean"], config["std"]


def _googlenet(settings: PooledClassifierSettings) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """Torchvision's model with its scale, from -1 to 1; without the two classifiers that help it to train."""
    if settings.weights == "none":
        model = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=True)
    else:
        try:
            with hub_access():
                model = torchvision.models.googlenet(weights="IMAGENET1K_V1", progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                "ImageNet weights of googlenet cannot be had: download.pytorch.org is out of reach, and they are not "
                "at $BUSI_WEIGHTS/googlenet.safetensors; put the file there or set model.weights=none "
                f"({one_line(error)[:100]})"
            ) from None
    layers = nn.Sequential()
    for name, module in model.named_children():
        if name not in ("aux1", "aux2", "avgpool", "dropout", "fc") and (name, settings.output_stride) != (
            "maxpool4",
            16,
        ):
            layers.add_module(name, module)
    if settings.in_chans != 3:
        first: Any = layers[0]
        weight = first.conv.weight.detach().sum(dim=1, keepdim=True)
        first.conv = nn.Conv2d(settings.in_chans, len(weight), kernel_size=7, stride=2, padding=3, bias=False)
        first.conv.weight.data.copy_(weight)
    return layers, (0.5,) * 3, (0.5,) * 3


def _features(backbone: nn.Module, settings: PooledClassifierSettings, size: int) -> int:
    """How many maps the backbone gives, by a trial with a blank image."""
    backbone.eval()
    try:
        with torch.no_grad():
            features = backbone(torch.zeros(1, settings.in_chans, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"data.image_size={size} does not suit {settings.label}: {one_line(error)[:200]}; choose another size"
        ) from None
    finally:
        backbone.train()
    if features.dim() != 4 or features.shape[2] != features.shape[3]:
        raise UserError(
            f"model.backbone={settings.backbone}: expected feature maps [1, F, h, w], found {list(features.shape)}; "
            "choose a convolutional network, or model=timm"
        )
    return int(features.shape[1])
