"""What runs make of one scan, and which runs these were."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from busi_lab.data.scan import Mask
from busi_lab.data.spacing import Spacing
from busi_lab.inference.measures import Lesion


@dataclass(frozen=True)
class UsedRun:
    """A run that took part in a prediction."""

    directory: str
    role: str
    experiment: str | None
    model: str | None
    seed: int | None
    split: Mapping[str, Any]
    temperature: float | None = None  # that was applied to its class logits
    backend: str = "torch"  # which library has applied it, with int8 where it was quantised
    of_phantoms: bool = False  # whether it has learnt from scans that a program made, alone


@dataclass(frozen=True)
class Prediction:
    """What the runs make of one scan.

    Attributes:
        height: of the scan, pixels, as ``width``.
        spacing: millimetres between rows and columns, where the file says; None where its regions differ.
        probabilities: by class, in the order of :attr:`Predictor.classes`; None without a classifier.
        prediction_set: the classes that the scan may have, at a stated coverage; None where none was asked for.
        mask: bool ``[H, W]``; None without a segmenter.
        lesions: the connected parts of the mask, largest first; None without a segmenter.
        runs: what was used.
        notes: what a user should know of it, in short sentences.
        confidence_calibrated: whether the confidence of a lesion is the probability that its outline is right, and not
            the mean lesion probability; None without lesion probabilities.
    """

    height: int
    width: int
    spacing: Spacing | None
    probabilities: Mapping[str, float] | None
    mask: Mask | None = field(repr=False)
    lesions: tuple[Lesion, ...] | None
    runs: tuple[UsedRun, ...]
    notes: tuple[str, ...] = ()
    prediction_set: tuple[str, ...] | None = None
    confidence_calibrated: bool | None = None

    @property
    def label(self) -> str | None:
        """The most probable class."""
        return None if self.probabilities is None else max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def lesion_pixels(self) -> int | None:
        """Pixels of the mask."""
        return None if self.lesions is None else sum(lesion.area_pixels for lesion in self.lesions)

    @property
    def lesion_area_mm2(self) -> float | None:
        """Area of the mask; None without a segmenter, and where the pixel spacing of a part is not known."""
        if self.lesions is None or (self.spacing is None and not self.lesions):
            return None
        areas = [lesion.area_mm2 for lesion in self.lesions]
        return None if None in areas else float(sum(area for area in areas if area is not None))
