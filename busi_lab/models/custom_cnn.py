"""The published network without pretraining."""

from dataclasses import dataclass

from torch import Tensor, nn

from busi_lab.config import NetworkSettings
from busi_lab.errors import UserError
from busi_lab.models.interface import BuiltModel, Outputs, Wanted
from busi_lab.models.pretrained import refuse_pretrained
from busi_lab.models.registry import register


@dataclass
class CustomCNNSettings(NetworkSettings):
    """Dropout 0.5 is inferred; there are no pretrained weights."""

    weights: str = "none"
    dropout: float = 0.5


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

    def forward(self, image: Tensor) -> Outputs:
        """Map float ``[B, C, S, S]`` to class logits ``[B, num_classes]``."""
        return Outputs(classes=self.head(self.features(image).contiguous()))


@register("custom_cnn", CustomCNNSettings, gives=("classes",))
def build(settings: CustomCNNSettings, wanted: Wanted) -> BuiltModel:
    """Build it, for scans from 0 to 1 as in the paper.

    Raises:
        UserError: pretrained weights are asked for, or the input is too small.
    """
    refuse_pretrained(settings)
    assert wanted.classes is not None
    cnn = CustomCNN(wanted.classes, settings.in_chans, wanted.image_size, settings.dropout)
    return BuiltModel(cnn, (cnn.head,), (0.0,) * settings.in_chans, (1.0,) * settings.in_chans)
