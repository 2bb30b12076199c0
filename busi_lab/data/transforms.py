"""Random augmentation of a scan and its mask; the only module that imports albumentations."""

import os
import random
from collections.abc import Mapping
from math import degrees
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its newest version otherwise
import albumentations as A

_REPLICATE = 1  # cv2.BORDER_REPLICATE: edge pixels repeat, Keras' fill_mode="nearest"

CROP_RATIO = (0.75, 1.3333)
ERASE_SHARE = (0.02, 0.2)


class Augmentation:
    """Random changes of a scan and, alike, of its mask; a function of its inputs and a seed alone.

    The published table (Dajam & Qahmash, IJACSA 16(5), 2025) needs the first six settings; the others belong
    to stronger sets.

    Args:
        settings: amplitudes, 0 for none: ``rotation`` (degrees), ``shift`` (share of the side), ``shear``
            (radians, along x), ``zoom`` (scale in 1 - zoom .. 1 + zoom, each axis its own),
            ``brightness`` (lowest and highest factor), ``horizontal_flip`` (bool); ``contrast`` and ``gamma``
            (relative), ``speckle`` (standard deviation of multiplicative noise), ``blur`` (largest standard
            deviation, pixels), ``elastic`` (displacement, pixels); ``crop`` (lowest and highest share of the area that
            is cut out and brought back to the whole size, with ``crop_ratio``, lowest and highest width by height);
            ``trivial`` (bool, see :func:`_one_of_many`); ``erase`` (probability of a box of one random gray level,
            with ``erase_share``, lowest and highest share of the area; the mask keeps what is under it).
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        amount = {key: value for key, value in settings.items() if value}
        steps: list[Any] = []
        self._crop: Any = None
        if "crop" in amount:
            ratio = tuple(amount.get("crop_ratio", CROP_RATIO))
            self._crop = A.RandomResizedCrop(size=(1, 1), scale=tuple(amount["crop"]), ratio=ratio, p=1.0)
            steps.append(self._crop)
        if amount.keys() & {"rotation", "shift", "shear", "zoom"}:
            rotation, shift, zoom = (amount.get(key, 0.0) for key in ("rotation", "shift", "zoom"))
            shear = degrees(amount.get("shear", 0.0))
            steps.append(
                A.Affine(
                    rotate=(-rotation, rotation),
                    translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
                    shear={"x": (-shear, shear), "y": (0, 0)},
                    scale=(1 - zoom, 1 + zoom),
                    keep_ratio=False,
                    border_mode=_REPLICATE,
                    p=1.0,
                )
            )
        if "elastic" in amount:
            steps.append(A.ElasticTransform(alpha=amount["elastic"] * 10, sigma=10, border_mode=_REPLICATE, p=0.5))
        if "horizontal_flip" in amount:
            steps.append(A.HorizontalFlip(p=0.5))
        if "trivial" in amount:
            steps.append(_one_of_many())
        if "brightness" in amount:  # ColorJitter multiplies, as the paper does; BrightnessContrast adds
            steps.append(_jitter(brightness=tuple(amount["brightness"])))
        if "contrast" in amount:
            steps.append(_jitter(contrast=(1 - amount["contrast"], 1 + amount["contrast"])))
        if "gamma" in amount:
            percent = 100 * amount["gamma"]
            steps.append(A.RandomGamma(gamma_limit=(100 - percent, 100 + percent), p=0.5))
        if "blur" in amount:
            steps.append(A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, amount["blur"]), p=0.2))
        if "speckle" in amount:
            noise = 3**0.5 * amount["speckle"]  # half the width of a uniform distribution
            steps.append(A.MultiplicativeNoise(multiplier=(1 - noise, 1 + noise), elementwise=True, p=0.5))
        if "erase" in amount:
            share = tuple(amount.get("erase_share", ERASE_SHARE))
            steps.append(A.Erasing(scale=share, fill="random_uniform", p=amount["erase"]))
        self._pipeline = A.Compose(steps) if steps else None

    def __call__(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None, seed: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Augment a scan uint8 ``[H, W]`` and, if given, its mask uint8 ``[H, W]`` of 0 and 1."""
        if self._pipeline is None:
            return image, mask
        if self._crop is not None:
            self._crop.size = image.shape
        # One stream for all steps: set_random_seed would start each step alike, and tie brightness to shift.
        self._pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        image = image.copy()  # AutoContrast writes into what it is given
        if mask is None:
            return self._pipeline(image=image)["image"], None
        augmented = self._pipeline(image=image, mask=mask)
        return augmented["image"], augmented["mask"]


def _jitter(brightness: tuple[float, float] = (1, 1), contrast: tuple[float, float] = (1, 1)) -> Any:
    return A.ColorJitter(brightness=brightness, contrast=contrast, saturation=(1, 1), hue=(0, 0), p=1.0)


def _one_of_many() -> Any:
    """One change, drawn from many, of a strength that is drawn as well: TrivialAugment, Müller & Hutter, ICCV 2021.

    The changes are theirs that a gray scan can have, up to the strengths of RandAugment (Cubuk et al., 2020); scans
    are shifted by a fifth of the side at most, so that lesions stay in sight.
    """
    motions: list[dict[str, Any]] = [
        {"rotate": (-30, 30)},
        {"shear": {"x": (-17, 17), "y": (0, 0)}},
        {"shear": {"x": (0, 0), "y": (-17, 17)}},
        {"translate_percent": {"x": (-0.2, 0.2), "y": (0, 0)}},
        {"translate_percent": {"x": (0, 0), "y": (-0.2, 0.2)}},
    ]
    changes = [
        A.NoOp(p=1.0),
        A.AutoContrast(p=1.0),
        A.Equalize(p=1.0),
        A.Solarize(threshold_range=(0, 1), p=1.0),
        A.Posterize(num_bits=(4, 8), p=1.0),
        A.Sharpen(alpha=(0, 1), lightness=(1, 1), p=1.0),
        _jitter(brightness=(0.1, 1.9)),
        _jitter(contrast=(0.1, 1.9)),
        *(A.Affine(**motion, border_mode=_REPLICATE, p=1.0) for motion in motions),
    ]
    return A.OneOf(changes, p=1.0)
