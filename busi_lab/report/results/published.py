"""The published figures that reports show beside ours.

Source: Dajam & Qahmash, "Breast Cancer Classification and Segmentation Using Deep Learning on Ultrasound
Images", IJACSA 16(5), 2025: Table III (classifiers, macro averages), Table V (segmentation) and the related
work that the paper compares with. All are fractions of 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

PAPER_DATASET = "busi"
"""The dataset that the paper's figures are of; on another one, ours have nothing to do with them."""

PAPER = "Dajam & Qahmash, IJACSA 16(5), 2025"


@dataclass(frozen=True)
class PublishedResult:
    """One published row: ``metrics`` maps our metric names to fractions, ``source`` names the table."""

    name: str
    task: str
    metrics: Mapping[str, float]
    source: str


def _classifier(
    name: str,
    accuracy: float,
    precision: float,
    recall: float,
    f1: float,
    source: str = f"{PAPER}, Table III",
) -> PublishedResult:
    metrics = {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}
    return PublishedResult(name, "classification", metrics, source)


_VGG16 = _classifier("VGG16", 0.90, 0.94, 0.86, 0.89)

PUBLISHED: Mapping[str, PublishedResult] = {
    "paper/mobilenet": _classifier("MobileNet", 0.98, 0.98, 0.99, 0.98),
    "paper/inception_v3": _classifier("InceptionV3", 0.95, 0.93, 0.95, 0.94),
    "paper/vgg16": _VGG16,
    "paper/vgg16_frozen": _VGG16,  # the paper tried both ways and gives one row
    "paper/custom_cnn": _classifier("Custom CNN", 0.54, 0.45, 0.37, 0.34),
    "paper/unet": PublishedResult(
        "MobileNet U-Net", "segmentation", {"dice": 0.8959, "pixel_accuracy": 0.9648}, f"{PAPER}, Table V"
    ),
}
"""Experiment name to the paper's row for it."""

_RELATED = f"related work, quoted by {PAPER}"

RELATED_WORK: tuple[PublishedResult, ...] = (
    _classifier("EDCNN (MobileNet + Xception)", 0.8569, 0.84, 0.78, 0.7939, _RELATED),
    _classifier("VGG16", 0.8111, 0.7777, 0.7085, 0.7690, _RELATED),
    _classifier("ResNet50", 0.8540, 0.8320, 0.9367, 0.8793, _RELATED),
    _classifier("ResNeXt50", 0.8583, 0.8292, 0.7680, 0.8731, _RELATED),
)
"""What the paper compares its classifiers with, on splits that need not be the paper's."""

CAVEATS: Mapping[str, str] = {
    "published": "On BUSI the `published` protocol has near-copies of training images in its test set "
    "(about 28 % of the test images): figures under it are too good to be believed as they stand.",
    "holdout": "On BUSI the `holdout` protocol ignores near-copies (on average 38 % of the test images "
    "have one in training): figures under it are too good to be believed as they stand.",
}
"""Split protocol to the warning that every comparison under it carries.

Shares counted with the duplicate groups of Pawlowska, Karwat & Zolek 2023 (CC BY 4.0).
"""


def published_for(experiment: str | None) -> Mapping[str, float]:
    """The paper's figures for an experiment by metric name; empty where the paper has none."""
    result = PUBLISHED.get(experiment or "")
    return result.metrics if result else {}
