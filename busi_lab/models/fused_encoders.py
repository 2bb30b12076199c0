"""Several timm backbones side by side, whose pooled features are joined before one linear layer."""

from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor, nn

from busi_lab.config import NetworkSettings
from busi_lab.errors import UserError
from busi_lab.models.inputs import match_channels
from busi_lab.models.interface import BuiltModel, Outputs, Wanted
from busi_lab.models.pretrained import create_timm_model, local_file
from busi_lab.models.registry import register
from busi_lab.models.transfer import open_source, take_weights


@dataclass
class FusedEncodersSettings(NetworkSettings):
    """``backbones`` are timm's names, two at least; ``weights`` are ``imagenet`` for each of them, or a whole run's."""

    backbones: list[str] = field(default_factory=lambda: ["mobilenetv1_100", "legacy_xception"])

    @property
    def label(self) -> str:
        """The backbones."""
        return "+".join(self.backbones)


class FusedEncoders(nn.Module):
    """Globally pooled features of each encoder, concatenated, then dropout and a linear layer.

    Args:
        encoders: timm models without their last layer.
        features: how many each gives.
        scales: mean and standard deviation that each expects, a value a channel.
        num_classes: outputs.
        dropout: probability before the last layer.
    """

    def __init__(
        self,
        encoders: list[nn.Module],
        features: list[int],
        scales: list[tuple[tuple[float, ...], tuple[float, ...]]],
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(sum(features), num_classes))
        self.register_buffer("_scales", torch.tensor(scales), persistent=False)

    def forward(self, image: Tensor) -> Outputs:
        """Class logits ``[B, K]`` of scans float ``[B, C, S, S]`` from 0 to 1; each encoder gets its own scale."""
        scales: Any = self._scales[..., None, None]  # type: ignore[index]
        features = [
            encoder((image - mean) / deviation)
            for encoder, (mean, deviation) in zip(self.encoders, scales, strict=True)
        ]
        return Outputs(classes=self.head(torch.cat(features, dim=1)))


@register("fused_encoders", FusedEncodersSettings, gives=("classes",))
def build(settings: FusedEncodersSettings, wanted: Wanted) -> BuiltModel:
    """Build it; ``imagenet`` looks for a file of each backbone before it asks the model hub.

    Raises:
        UserError: fewer than two backbones, an unknown one, or weights that are unavailable or do not fit.
    """
    if len(settings.backbones) < 2:
        raise UserError(
            f"model.backbones={settings.backbones}: expected two timm models or more; use model=timm for one alone"
        )
    assert wanted.classes is not None
    in_chans = settings.in_chans
    encoders, features, scales = [], [], []
    for name in settings.backbones:
        encoder = _encoder(name, settings, wanted)
        encoders.append(encoder)
        features.append(int(getattr(encoder, "head_hidden_size", None) or encoder.num_features))  # type: ignore[arg-type]
        config = timm.data.resolve_model_data_config(encoder)
        scales.append((match_channels(config["mean"], in_chans), match_channels(config["std"], in_chans)))
    network = FusedEncoders(encoders, features, scales, wanted.classes, settings.dropout)
    return BuiltModel(network, (network.head,), (0.0,) * in_chans, (1.0,) * in_chans)


def _encoder(name: str, settings: FusedEncodersSettings, wanted: Wanted) -> nn.Module:
    path = local_file(name) if settings.weights == "imagenet" else None
    encoder = create_timm_model(name, "none" if path else settings.weights, settings.in_chans, 0.0, wanted.image_size)
    if path is not None:
        take_weights(
            BuiltModel(encoder, (), (), ()), Wanted(None, False, wanted.image_size), open_source(str(path)), name, None
        )
    encoder.reset_classifier(0)  # type: ignore[operator]
    return encoder
