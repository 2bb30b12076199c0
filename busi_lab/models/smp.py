"""Any network of segmentation-models-pytorch, with a classification head on demand."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import timm
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_preprocessing_params
from torch import nn

from busi_lab.config import NetworkSettings
from busi_lab.errors import UserError, one_line
from busi_lab.models.decoder import five_stages
from busi_lab.models.deep_supervision import SupervisedUnet
from busi_lab.models.drop_path import check_drop_path, drop_path_options, no_paths
from busi_lab.models.inputs import PaddedNetwork, match_channels
from busi_lab.models.interface import BuiltModel, Outputs, Wanted, answering
from busi_lab.models.pretrained import create_with_weights, hub_access
from busi_lab.models.registry import register

_UNET_CHANNELS = (256, 128, 64, 32, 16)  # smp's own
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass
class SmpSettings(NetworkSettings):
    """Settings of a network of smp.

    Attributes:
        arch: smp's architecture, as ``Unet``, ``UnetPlusPlus``, ``FPN`` or ``DeepLabV3Plus``.
        encoder: ``tu-`` and the name of a timm model, or an encoder of smp, to which ``weights`` belong.
        decoder_channels: filters of the five stages of the decoder, the deepest first; None for smp's own.
        drop_path: probability with which the last residual block of a ``tu-`` encoder is left out in training.
        deep_supervision: whether a ``Unet`` is taught at all resolutions of its decoder (:class:`SupervisedUnet`).
    """

    arch: str = "Unet"
    encoder: str = "tu-mobilenetv1_100"
    decoder_channels: list[int] | None = None
    drop_path: float = 0.0
    deep_supervision: bool = False

    @property
    def label(self) -> str:
        """Architecture and encoder."""
        return f"{self.arch}-{self.encoder}"

    @property
    def timm_backbone(self) -> str | None:
        """The encoder where it is one of timm."""
        return self.encoder.removeprefix("tu-") if self.encoder.startswith("tu-") else None


@register("smp", SmpSettings, gives=("masks", "both"))
def build(settings: SmpSettings, wanted: Wanted) -> BuiltModel:
    """Build it; ``dropout`` is before the class logits and, where the architecture has any, in its decoder.

    Raises:
        UserError: unknown architecture or encoder, weights that are unavailable or do not fit, or an option that does
            not suit them.
    """
    if settings.deep_supervision and settings.arch.lower() != "unet":
        raise UserError(f"model.deep_supervision=true belongs to model.arch=Unet; found model.arch={settings.arch}")
    plain = _create(settings, wanted.classes)
    channels = tuple(settings.decoder_channels or _UNET_CHANNELS)
    network = SupervisedUnet(plain, channels) if settings.deep_supervision else answering(plain, _outputs)
    heads = tuple(module for child, module in network.named_children() if child != "encoder" and module is not None)
    constants = _normalisation(settings.encoder, settings.weights)
    mean, std = (match_channels(tuple(values), settings.in_chans) for values in constants)
    padded, size = PaddedNetwork(network), wanted.image_size
    check_drop_path(padded, settings.drop_path, settings.in_chans, size, f"model.encoder={settings.encoder}")
    return BuiltModel(padded, heads, mean, std)


def _outputs(output: Any) -> Outputs:
    """What smp's networks return: mask logits, or a pair of mask and class logits."""
    masks, classes = output if isinstance(output, tuple) else (output, None)
    return Outputs(classes, masks)


def _create(settings: SmpSettings, num_classes: int | None) -> nn.Module:
    arch, encoder, weights, in_chans = settings.arch, settings.encoder, settings.weights, settings.in_chans
    architectures = smp.MODEL_ARCHITECTURES_MAPPING
    if arch.lower() not in architectures:
        known = ", ".join(item.__name__ for item in architectures.values())
        raise UserError(f"model.arch={arch}: not an architecture of smp {smp.__version__}; known: {known}")
    options: dict[str, Any] = {"arch": arch, "encoder_name": encoder, "in_channels": in_chans, "classes": 1}
    if settings.decoder_channels is not None:
        options["decoder_channels"] = _decoder_channels(settings)
    if num_classes is not None:
        options["aux_params"] = {"classes": num_classes, "pooling": "avg", "dropout": settings.dropout or None}
    options |= drop_path_options(settings.drop_path)
    if settings.drop_path and not encoder.startswith("tu-"):
        raise no_paths(f"model.encoder={encoder}, which is none of timm,")
    make: Callable[..., nn.Module] = partial(smp.create_model, **options)
    if encoder.startswith("tu-"):
        backbone = encoder.removeprefix("tu-")
        if not timm.is_model(backbone):
            raise UserError(f"model.encoder={encoder}: timm {timm.__version__} knows no {backbone}{_similar(backbone)}")

        def make_on_timm(pretrained: bool) -> nn.Module:
            if pretrained:  # a feature extractor would pass over missing weights in silence; the whole model does not
                timm.create_model(backbone, pretrained=True, in_chans=in_chans)
            return make(encoder_weights=True if pretrained else None)

        return create_with_weights(backbone, weights, make_on_timm, f"model.arch={arch}, model.encoder={encoder}")
    if encoder not in smp_encoders:
        near = get_close_matches(encoder, smp_encoders, n=4) or ["mobilenet_v2", "resnet34"]
        raise UserError(
            f"model.encoder={encoder}: smp {smp.__version__} knows no such encoder; similar: {', '.join(near)}, or "
            "tu- and the name of a timm model"
        )
    try:
        with hub_access():
            return make(encoder_weights="imagenet" if weights == "imagenet" else None)
    except (RuntimeError, KeyError, ValueError, TypeError, OSError, NotImplementedError) as error:
        if weights == "none":
            raise UserError(f"model.arch={arch}, model.encoder={encoder}: {one_line(error)[:200]}") from None
        raise UserError(
            f"ImageNet weights of model.encoder={encoder} cannot be had: the model hub is out of reach and they are "
            f"not in its cache; use a tu- encoder with a file at BUSI_WEIGHTS, or set model.weights=none "
            f"({one_line(error)[:100]})"
        ) from None


def _decoder_channels(settings: SmpSettings) -> tuple[int, ...]:
    """Filters of the decoder, which not every architecture takes.

    Raises:
        UserError: they are not five of 1 at least, or the architecture has no such stages.
    """
    channels = five_stages(settings.decoder_channels or ())
    if settings.arch.lower() not in ("unet", "unetplusplus", "manet"):
        raise UserError(
            f"model.decoder_channels belongs to Unet, UnetPlusPlus or MAnet; found model.arch={settings.arch}"
        )
    return channels


def _similar(backbone: str) -> str:
    near = get_close_matches(backbone.split(".")[0], timm.list_models(), n=4, cutoff=0.5)
    return f"; similar: {', '.join(f'tu-{name}' for name in near)}" if near else ""


def _normalisation(encoder: str, weights: str) -> tuple[Any, Any]:
    """Mean and standard deviation that an encoder expects; ImageNet's where it was never trained."""
    if encoder.startswith("tu-"):
        known = timm.get_pretrained_cfg(encoder.removeprefix("tu-"), allow_unregistered=True)
        return (known.mean, known.std) if known else _IMAGENET
    if weights != "imagenet":
        return _IMAGENET
    with hub_access():
        settings = get_preprocessing_params(encoder)
    return settings["mean"], settings["std"]
