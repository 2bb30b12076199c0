"""Cached scans as a Dataset, and how they become a batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from busi_lab.classes import Classes
from busi_lab.data.cache import PixelCache, sizes_of
from busi_lab.data.index import read_case
from busi_lab.data.sampler import Draw
from busi_lab.data.transforms import Augmentation


class ScanDataset(Dataset[dict[str, Any]]):
    """Scans of one split.

    An item has ``image`` (uint8 ``[1, S, S]``, gray levels), ``label`` (position in ``classes``, -1 where it is not
    known), ``case_id`` and, with masks, ``mask`` (uint8 ``[1, S, S]`` of 0 and 1), ``size`` (rows and columns of the
    stored scan, int64 ``[2]``) and ``spacing`` (millimetres between them, float32 ``[2]``, NaN where they are not
    known); with original masks also
    ``original_mask`` (bool ``[1, H, W]``, as it is on disk); with two views also ``view`` (uint8 ``[1, S, S]``, the
    scan augmented with another seed). Item ``(i, seed)`` is augmented with that seed, item ``i`` is not.
    """

    def __init__(
        self,
        cache: PixelCache,
        case_ids: Sequence[str],
        augmentation: Augmentation | None = None,
        masks: bool = True,
        original_masks: bool = False,
        classes: Classes | None = None,
        two_views: bool = False,
    ) -> None:
        classes = cache.index.classes if classes is None else classes
        numbers = {case.case_id: number for number, case in enumerate(cache.index.cases)}
        self.cache = cache
        self._numbers = [numbers[case_id] for case_id in case_ids]
        self._augmentation = augmentation
        self._masks = masks
        self._original_masks = original_masks
        self._two_views = two_views
        self.case_ids = list(case_ids)
        self.labels = [classes.number(cache.index.cases[number].label) for number in self._numbers]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, item: int | Draw) -> dict[str, Any]:
        position, seed = item if isinstance(item, tuple) else (item, None)
        image = self.cache.image(self._numbers[position])
        mask = self.cache.mask(self._numbers[position]) if self._masks else None
        if self._augmentation is not None and seed is not None:
            image, mask = self._augmentation(image, mask, seed)
        scan = {
            "image": torch.from_numpy(np.array(image))[None],  # a copy: the cache stays as it is
            "label": self.labels[position],
            "case_id": self.case_ids[position],
        }
        if mask is not None:
            scan["mask"] = torch.from_numpy(np.ascontiguousarray(mask))[None]
            scan |= sizes_of(self.cache.index.cases[self._numbers[position]])
        if self._two_views and self._augmentation is not None:
            other, _ = self._augmentation(self.cache.image(self._numbers[position]), None, _other(seed, position))
            scan["view"] = torch.from_numpy(np.array(other))[None]
        if self._original_masks:
            index = self.cache.index
            _, original = read_case(index.root, index.cases[self._numbers[position]])
            scan["original_mask"] = torch.from_numpy(original)[None]
        return scan


def _other(seed: int | None, position: int) -> int:
    """The seed of a second view."""
    return int(np.random.default_rng([position, 1] if seed is None else [seed, 2]).integers(2**31))


class WithUnlabelled(Dataset[dict[str, Any]]):
    """Scans, and with each that is drawn another one without label and mask: ``unlabelled``, uint8 ``[1, S, S]``.

    Which one it is, and how it is augmented, is a function of the draw's seed.

    Args:
        scans: that are annotated.
        unlabelled: that are not; at least one.
    """

    def __init__(self, scans: ScanDataset, unlabelled: ScanDataset) -> None:
        self._scans, self._unlabelled = scans, unlabelled

    def __len__(self) -> int:
        return len(self._scans)

    def __getitem__(self, item: Draw) -> dict[str, Any]:
        random = np.random.default_rng([item[1], 3])
        chosen = int(random.integers(len(self._unlabelled))), int(random.integers(2**31))
        return {**self._scans[item], "unlabelled": self._unlabelled[chosen]["image"]}


def collate(scans: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch; original masks, which differ in size, stay a list."""
    originals = [scan.pop("original_mask") for scan in scans if "original_mask" in scan]
    batch: dict[str, Any] = default_collate(scans)
    return {**batch, "original_mask": originals} if originals else batch
