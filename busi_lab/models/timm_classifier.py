"""Any classifier of timm."""

from dataclasses import dataclass

import timm
from torch import Tensor, nn

from busi_lab.config import NetworkSettings
from busi_lab.models.drop_path import check_drop_path, drop_path_options
from busi_lab.models.inputs import match_channels
from busi_lab.models.interface import BuiltModel, Outputs, Wanted, answering
from busi_lab.models.pretrained import create_timm_model
from busi_lab.models.registry import register


@dataclass
class TimmSettings(NetworkSettings):
    """``backbone`` is timm's name of the model; ``weights`` as in :func:`create_timm_model`.

    ``drop_path`` is the probability with which its last residual block is left out in training, 0 for none.
    """

    backbone: str = "mobilenetv1_100"
    drop_path: float = 0.0

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
        UserError: unknown backbone, weights that are unavailable or do not fit, or no blocks for ``drop_path``.
    """
    backbone, channels, size = settings.backbone, settings.in_chans, wanted.image_size
    options = drop_path_options(settings.drop_path)
    network = create_timm_model(backbone, settings.weights, channels, settings.dropout, size, **options)
    check_drop_path(network, settings.drop_path, channels, size, f"model.backbone={backbone}")
    network.reset_classifier(wanted.classes)  # type: ignore[operator]
    config = timm.data.resolve_model_data_config(network)
    heads = [network.get_classifier()]  # type: ignore[operator]
    if isinstance(before := getattr(network, "pre_logits", None), nn.Module):
        heads.append(before)  # VGG's two dense layers: behind the convolutional base
    mean, std = (match_channels(config[key], settings.in_chans) for key in ("mean", "std"))
    return BuiltModel(answering(network, _outputs), tuple(heads), mean, std)


def _outputs(logits: Tensor) -> Outputs:
    return Outputs(classes=logits)
