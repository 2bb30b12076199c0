"""Image classifiers: the published custom CNN, and any timm model through one builder."""

from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn

from busi_lab.errors import UserError
from busi_lab.models.pretrained import create_timm_model


@dataclass(frozen=True)
class BuiltModel:
    """A network with what a task must know of it.

    Attributes:
        network: float ``[B, C, S, S]``, normalised -> logits.
        heads: the modules behind the backbone; everything else in ``network`` is backbone.
        mean: per input channel, on the scale 0 to 1.
        std: per input channel, on the scale 0 to 1.
    """

    network: nn.Module
    heads: tuple[nn.Module, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class CustomCNN(nn.Module):
    """The published network trained from scratch (Dajam & Qahmash, IJACSA 16(5), 2025).

    Three blocks of 3x3 convolution (32, 64, 128 filters), ReLU and 2x2 max-pooling; dense 512 and 256 with
    ReLU; dropout; one output a class. Unpadded convolutions, Keras' default, are inferred.

    Args:
        num_classes: outputs.
        in_chans: input channels.
        image_size: side of the input, pixels; the first dense layer depends on it.
        dropout: probability before the last layer; 0.5 is inferred.

    Raises:
        UserError: the input is too small for three blocks.
    """

    def __init__(self, num_classes: int = 3, in_chans: int = 3, image_size: int = 224, dropout: float = 0.5) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        side, channels = image_size, in_chans
        for filters in (32, 64, 128):
            blocks += [nn.Conv2d(channels, filters, kernel_size=3), nn.ReLU(), nn.MaxPool2d(2)]
            side, channels = (side - 2) // 2, filters
        if side < 1:
            raise UserError(f"data.image_size={image_size} is too small for custom_cnn: at least 22 is needed")
        self.features = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * side * side, 512),
            nn.ReLU(),
            nn.Linear(512, 256),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(256, num_classes),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map float ``[B, C, S, S]`` to logits ``[B, num_classes]``."""
        logits: Tensor = self.head(self.features(image).contiguous())
        return logits


def build_classifier(
    name: str,
    backbone: str | None,
    weights: str,
    num_classes: int,
    in_chans: int,
    image_size: int,
    dropout: float,
) -> BuiltModel:
    """Build a classifier.

    Args:
        name: ``custom_cnn`` or ``timm``.
        backbone: timm's model name, for ``timm``.
        weights: ``imagenet``, ``none`` or a path, see :func:`create_timm_model`; ``none`` alone for the custom CNN.
        num_classes: logits.
        in_chans: 1 or 3.
        image_size: side of the input, pixels.
        dropout: probability before the last layer.

    Raises:
        UserError: unknown name, weights that cannot be had, an input that the network cannot take.
    """
    if name == "custom_cnn":
        if weights != "none":
            raise UserError(f"model.weights={weights}: custom_cnn has no pretrained weights; set model.weights=none")
        cnn = CustomCNN(num_classes, in_chans, image_size, dropout)
        return BuiltModel(cnn, (cnn.head,), (0.0,) * in_chans, (1.0,) * in_chans)
    if name != "timm" or not backbone:
        raise UserError(
            f"model.name={name}, model.backbone={backbone}: expected custom_cnn, or timm with a backbone; set "
            "model=timm for classification, or task=segmentation or task=multitask for networks with masks"
        )
    network = create_timm_model(backbone, weights, in_chans, dropout, image_size)
    network.reset_classifier(num_classes)  # type: ignore[operator]
    config = timm.data.resolve_model_data_config(network)
    heads = [network.get_classifier()]  # type: ignore[operator]
    if isinstance(before := getattr(network, "pre_logits", None), nn.Module):
        heads.append(before)  # VGG's two dense layers: behind the convolutional base
    mean, std = (match_channels(config[key], in_chans) for key in ("mean", "std"))
    built = BuiltModel(network, tuple(heads), mean, std)
    check_input(built.network, in_chans, image_size, backbone)
    return built


def match_channels(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    """Normalisation constants for ``in_chans`` channels; the mean of all for one channel."""
    return tuple(values) if len(values) == in_chans else (sum(values) / len(values),) * in_chans


def check_input(network: nn.Module, in_chans: int, image_size: int, name: str) -> None:
    """Try one blank image of the wanted size.

    Raises:
        UserError: the network cannot take it.
    """
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, in_chans, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"data.image_size={image_size} does not suit {name}: {reason}; choose another size") from None
    finally:
        network.train(training)
