"""What both networks of Aumente-Maestro et al. (CMPB 260, 2025) share: settings, two convolutions, the class head."""

from dataclasses import dataclass

from torch import Tensor, nn

from busi_lab.config import NetworkSettings
from busi_lab.models.inputs import PaddedNetwork
from busi_lab.models.interface import BuiltModel
from busi_lab.models.pretrained import refuse_pretrained


class DoubleConvolution(nn.Sequential):
    """Twice a 3x3 convolution, instance norm and leaky ReLU.

    Args:
        inputs: channels.
        outputs: channels.
        middle: channels between both; as ``outputs`` by default.
        slope: of the leaky ReLU below 0.
        affine: whether the norm has weights; the convolutions have a bias then, too.
    """

    def __init__(
        self, inputs: int, outputs: int, middle: int | None = None, slope: float = 0.01, affine: bool = False
    ) -> None:
        middle = outputs if middle is None else middle
        super().__init__(
            *convolution(inputs, middle, slope, affine),
            *convolution(middle, outputs, slope, affine),
        )


def convolution(inputs: int, outputs: int, slope: float = 0.01, affine: bool = False) -> nn.Sequential:
    """One 3x3 convolution with instance norm and leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=affine),
        nn.InstanceNorm2d(outputs, affine=affine),
        nn.LeakyReLU(slope),
    )


class ClassHead(nn.Module):
    """Convolutions to 512 channels, the global mean, 256 with ReLU, then the classes.

    Args:
        convolutions: of the joined features, to 512 channels.
        num_classes: outputs.
        dropout: probability before the last layer.
    """

    def __init__(self, convolutions: nn.Module, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = convolutions
        self.dense = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(512, 256),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(256, num_classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Class logits ``[B, K]``."""
        logits: Tensor = self.dense(self.convolutions(features))
        return logits


@dataclass
class AumenteSettings(NetworkSettings):
    """Trained from scratch on gray scans; ``dropout``, which the paper does not have, is before the class logits."""

    weights: str = "none"
    in_chans: int = 1


def from_scratch(network: nn.Module, settings: AumenteSettings) -> BuiltModel:
    """The network for scans from 0 to 1; all but its encoder are heads.

    Raises:
        UserError: ImageNet weights are asked for.
    """
    refuse_pretrained(settings)
    heads = tuple(module for name, module in network.named_children() if name != "encoder")
    return BuiltModel(PaddedNetwork(network), heads, (0.0,) * settings.in_chans, (1.0,) * settings.in_chans)
