"""What both networks of Aumente-Maestro et al. (CMPB 260, 2025) are made of: two convolutions, and the class head."""

from torch import Tensor, nn

from busi_lab.config import NetworkSettings
from busi_lab.errors import UserError


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


def refuse_pretrained(settings: NetworkSettings) -> None:
    """Both are trained from scratch.

    Raises:
        UserError: ImageNet weights are asked for.
    """
    if settings.weights != "none":
        raise UserError(
            f"model.weights={settings.weights}: {settings.name} has no pretrained weights; set model.weights=none"
        )
