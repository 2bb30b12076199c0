"""Lesion segmenters, with a classification head on demand: the published MobileNet U-Net, and any of smp's networks."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_preprocessing_params
from torch import Tensor, nn

from busi_lab.errors import UserError, one_line
from busi_lab.models.classifiers import BuiltModel, check_input, match_channels
from busi_lab.models.pretrained import create_timm_model, create_with_weights, hub_access

STRIDE = 32
"""Images are padded to multiples of this at their right and bottom edges, and the logits cut back."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


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
    has 32 filters and no features to append (Dajam & Qahmash, IJACSA 16(5), 2025). The other widths, 3x3 kernels,
    batch norm and ReLU are inferred.

    Args:
        encoder: the encoder.
        num_classes: outputs of a classification head on the encoder's pooled last features; None for no head.
        dropout: probability before that head.
    """

    widths = (512, 256, 128, 64, 32)

    def __init__(self, encoder: MobileNetEncoder, num_classes: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.Module()
        inputs = [encoder.channels[-1], *(2 * width for width in self.widths[:-1])]
        self.decoder.ups = nn.ModuleList(_double(i, width) for i, width in zip(inputs, self.widths, strict=True))
        skips = zip(encoder.channels[-2::-1], self.widths, strict=False)
        self.decoder.aligned = nn.ModuleList(nn.Conv2d(channels, width, kernel_size=1) for channels, width in skips)
        self.segmentation_head = nn.Conv2d(self.widths[-1], 1, kernel_size=1)
        self.classification_head = (
            None
            if num_classes is None
            else nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(encoder.channels[-1], num_classes)
            )
        )

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Mask logits ``[B, 1, S, S]`` of float ``[B, C, S, S]``; with a head, class logits ``[B, K]`` as well."""
        *skips, deepest = self.encoder(image)
        features = deepest
        ups: Any = self.decoder.ups
        aligned: Any = self.decoder.aligned
        for up, align, skip in zip(ups, aligned, reversed(skips), strict=False):
            features = torch.cat([up(features), align(skip)], dim=1)
        mask: Tensor = self.segmentation_head(ups[-1](features))
        return mask if self.classification_head is None else (mask, self.classification_head(deepest))


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class PaddedNetwork(nn.Module):
    """Let a network of stride 32 take images of any size: edge pixels are repeated to the next multiple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """As the network, with mask logits of the image's own size."""
        height, width = image.shape[-2:]
        below, beside = -height % STRIDE, -width % STRIDE
        if not below and not beside:
            output: Tensor | tuple[Tensor, Tensor] = self.network(image)
            return output
        output = self.network(F.pad(image, (0, beside, 0, below), mode="replicate"))
        if isinstance(output, Tensor):
            return output[..., :height, :width]
        return output[0][..., :height, :width], output[1]


def build_segmenter(
    name: str,
    arch: str | None,
    encoder: str | None,
    weights: str,
    in_chans: int,
    image_size: int,
    dropout: float,
    num_classes: int | None = None,
) -> BuiltModel:
    """Build a segmenter, or with ``num_classes`` a network with a mask and a class output on one encoder.

    Args:
        name: ``mobilenet_unet`` for the published network, ``smp`` for segmentation-models-pytorch.
        arch: smp's architecture, as ``Unet``, ``UnetPlusPlus``, ``FPN`` or ``DeepLabV3Plus``; for ``smp``.
        encoder: ``tu-`` and the name of a timm model, or an encoder of smp; for ``smp``.
        weights: of the encoder: ``imagenet``, ``none`` or a path, see :func:`create_timm_model`.
        in_chans: 1 or 3.
        image_size: side of the input, pixels.
        dropout: probability before the classification head, and, where the architecture has any, in its decoder.
        num_classes: class logits; None for masks alone.

    Raises:
        UserError: unknown name, architecture or encoder; weights that cannot be had; an input that it cannot take.
    """
    if name == "mobilenet_unet":
        if arch or encoder:
            raise UserError(
                f"model.arch={arch}, model.encoder={encoder}: mobilenet_unet has its own; set model=smp to choose"
            )
        mobilenet = create_timm_model("mobilenetv1_100", weights, in_chans, 0.0)
        constants = timm.data.resolve_model_data_config(mobilenet)
        network: nn.Module = MobileNetUNet(MobileNetEncoder(mobilenet), num_classes, dropout)
        mean, std = constants["mean"], constants["std"]
    elif name == "smp" and arch and encoder:
        network = _build_smp(arch, encoder, weights, in_chans, dropout, num_classes)
        mean, std = _normalisation(encoder, weights)
    else:
        raise UserError(
            f"model.name={name}, model.arch={arch}, model.encoder={encoder}: expected mobilenet_unet, or smp with "
            "both; set model=mobilenet_unet or model=smp for this task"
        )
    heads = tuple(module for child, module in network.named_children() if child != "encoder" and module is not None)
    mean, std = (match_channels(tuple(values), in_chans) for values in (mean, std))
    built = BuiltModel(PaddedNetwork(network), heads, mean, std)
    check_input(built.network, in_chans, image_size, f"{arch} on {encoder}" if arch else name)
    return built


def _build_smp(
    arch: str, encoder: str, weights: str, in_chans: int, dropout: float, num_classes: int | None
) -> nn.Module:
    architectures = smp.MODEL_ARCHITECTURES_MAPPING
    if arch.lower() not in architectures:
        known = ", ".join(item.__name__ for item in architectures.values())
        raise UserError(f"model.arch={arch}: not an architecture of smp {smp.__version__}; known: {known}")
    options: dict[str, Any] = {"arch": arch, "encoder_name": encoder, "in_channels": in_chans, "classes": 1}
    if num_classes is not None:
        options["aux_params"] = {"classes": num_classes, "pooling": "avg", "dropout": dropout or None}
    make: Callable[..., nn.Module] = partial(smp.create_model, **options)
    if encoder.startswith("tu-"):
        backbone = encoder.removeprefix("tu-")
        if not timm.is_model(backbone):
            raise UserError(f"model.encoder={encoder}: timm {timm.__version__} knows no {backbone}{_similar(backbone)}")

        def make_on_timm(pretrained: bool, **more: Any) -> nn.Module:
            if pretrained:  # a feature extractor would pass over missing weights in silence; the whole model does not
                timm.create_model(backbone, pretrained=True, in_chans=in_chans, **more, **_classes(more))
            return make(encoder_weights=True if pretrained else None, **more)

        return create_with_weights(backbone, weights, make_on_timm, f"model.arch={arch}, model.encoder={encoder}")
    if encoder not in smp_encoders:
        near = get_close_matches(encoder, smp_encoders, n=4) or ["mobilenet_v2", "resnet34"]
        raise UserError(
            f"model.encoder={encoder}: smp {smp.__version__} knows no such encoder; similar: {', '.join(near)}, or "
            "tu- and the name of a timm model"
        )
    if weights not in ("imagenet", "none"):
        raise UserError(f"model.weights={weights}: weight files fit tu- encoders alone, {encoder} is smp's own")
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


def _classes(options: dict[str, Any]) -> dict[str, int]:
    overlay = options.get("pretrained_cfg_overlay")
    return {"num_classes": overlay["num_classes"]} if overlay else {}


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
