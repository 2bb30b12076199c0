"""Any classifier of timm."""

from dataclasses import dataclass

import timm
from torch import Tensor, nn

from busi_lab.config import NetworkSettings
from busi_lab.models.inputs import match_channels
from busi_lab.models.interface import BuiltModel, Outputs, Wanted, answering
from busi_lab.models.pretrained import create_timm_model
from busi_lab.models.registry import register


@dataclass
class TimmSettings(NetworkSettings):
    """``backbone`` is timm's name of the model; ``weights`` as in :func:`create_timm_model`."""

    backbone: str = "mobilenetv1_100"

    @property
    def label(self) -> str:
        """The backbone."""
        return self.backbone

    @property
    def timm_backbone(self) -> str | None:
        """The backbone without the name of its weights."""
        return self.backbone


@register("timm", TimmSettings, gives=("classes",))
def build(settings: TimmSettings, wanted: Wanted) -> BuiltModel:
    """Build the classifier, with a new last layer.

    Raises:
        UserError: unknown backbone, or weights that are unavailable or do not fit.
    """
    network = create_timm_model(
        settings.backbone, settings.weights, settings.in_chans, settings.dropout, wanted.image_size
    )
    network.reset_classifier(wanted.classes)  # type: ignore[operator]
    config = timm.data.resolve_model_data_config(network)
    heads = [network.get_classifier()]  # type: ignore[operator]
    if isinstance(before := getattr(network, "pre_logits", None), nn.Module):
        heads.append(before)  # VGG's two dense layers: behind the convolutional base
    mean, std = (match_channels(config[key], settings.in_chans) for key in ("mean", "std"))
    return BuiltModel(answering(network, _outputs), tuple(heads), mean, std)


def _outputs(logits: Tensor) -> Outputs:
    return Outputs(classes=logits)
