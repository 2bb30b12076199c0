"""Lesion outlines: segmentation of every pixel into lesion and background."""

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import Tensor, nn

from busi_lab.errors import UserError
from busi_lab.losses import SegmentationLoss
from busi_lab.metrics import SEGMENTATION_METRICS, SegmentationMetrics, overlap
from busi_lab.models import Outputs
from busi_lab.tasks.base import BaseTask, Batch, of_all_ranks
from busi_lab.tasks.distances import Spacing, distance_columns, distances_of, spacings_of
from busi_lab.tasks.lesions import OutlinedLesion, judge_lesions

CANDIDATES = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Thresholds that are tried on validation."""

Mask = NDArray[np.bool_]


class _Tried(NamedTuple):
    """A validation image until the threshold is chosen; packed, because all of an epoch's wait together."""

    levels: bytes  # how many of the candidates each pixel reaches, uint8
    truth: bytes
    shape: tuple[int, ...]
    spacings: tuple[Spacing, Spacing]


class SegmentationPart(nn.Module):
    """What a task with a mask output does with it: loss, threshold, counts, metrics, predicted masks.

    Args:
        loss: factors of :class:`SegmentationLoss`; None where masks are judged and never learnt.
        threshold: lesion probability from which on a pixel is lesion; ``val`` chooses, after each epoch, the one of
            ``CANDIDATES`` with the highest mean Dice on validation, and keeps it in checkpoints.
        resolution: ``network`` judges test masks at the network's resolution, ``original`` at the scan's.
        focal_gamma: see :class:`SegmentationLoss`.
        tversky_beta: see :class:`SegmentationLoss`.

    Raises:
        UserError: a setting outside its range.
    """

    threshold: Tensor

    def __init__(
        self,
        loss: Mapping[str, float] | None,
        threshold: float | str = 0.5,
        resolution: str = "network",
        focal_gamma: float = 2.0,
        tversky_beta: float = 0.7,
    ) -> None:
        super().__init__()
        self._choose = threshold == "val"
        if not self._choose and (not isinstance(threshold, int | float) or not 0 < threshold < 1):
            raise UserError(f"task.threshold={threshold}: expected a probability between 0 and 1, or val")
        if resolution not in ("network", "original"):
            raise UserError(f"task.resolution={resolution}: expected network or original")
        self.loss = None if loss is None else SegmentationLoss(loss, focal_gamma, tversky_beta)
        self.original = resolution == "original"
        self.register_buffer("threshold", torch.tensor(0.5 if self._choose else float(threshold)))
        self.metrics = nn.ModuleDict({f"{split}_": SegmentationMetrics() for split in ("train", "val", "test")})
        self.kept: list[Mask] = []
        self.tried: list[_Tried] = []
        self.lesions: dict[str, list[list[OutlinedLesion]]] = {"val": [], "test": []}
        self._one_by_one = False

    def start(self, split: str, one_by_one: bool) -> None:
        """Forget what was kept of an earlier epoch of validation or test.

        Args:
            split: val or test.
            one_by_one: judge each outlined lesion of this one, where masks come from lesion probabilities. Those of
                validation are outlined with the threshold as it stands before the epoch chooses again.
        """
        (self.kept if split == "test" else self.tried).clear()
        self.lesions[split].clear()
        self._one_by_one = one_by_one and self.loss is not None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scalar metrics."""
        return (*SEGMENTATION_METRICS, "threshold")

    def total_loss(self, outputs: Outputs, mask: Tensor, split: str) -> Tensor:
        """Loss of masks against ``[B, 1, S, S]`` of 0 and 1.

        In training, what a network with deep supervision answers besides is added with its factors, by default 1 / (n
        + 1) of output number n, where number 0 is the final one (Aumente-Maestro et al., CMPB 260, 2025).
        """
        assert self.loss is not None
        total: Tensor = self.loss(outputs.masks, mask)
        auxiliary = (outputs.auxiliary or ()) if split == "train" else ()
        for number, logits in enumerate(auxiliary, start=1):
            loss = self.loss(logits, mask)
            factors = outputs.auxiliary_factors
            total = total + (loss / (number + 1) if factors is None else factors[number - 1] * loss)
        return total

    def count(self, logits: Tensor, batch: Batch, split: str) -> dict[str, Tensor]:
        """What the metrics need of a batch, a row an image.

        Args:
            logits: float ``[B, 1, S, S]``.
            batch: with ``mask``, and with ``original_mask`` for a test at the scans' resolution. ``size``, rows and
                columns of each scan as it is stored, int64 ``[B, 2]``; without it, as ``mask`` has them.
                ``spacing``, millimetres between its rows and columns, float ``[B, 2]``, NaN where they are not known.
            split: train, val or test; the test keeps the predicted masks.
        """
        logits = logits.detach().float()
        truth = batch["mask"].bool()
        if split == "test" and self.original:
            singles = [
                self._judge(_resize(row, mask), mask, spacings_of(batch, mask.shape[-2:], slice(i, i + 1)), split)
                for i, (row, mask) in enumerate(zip(logits, _originals(batch), strict=True))
            ]
            counts = {name: torch.cat([single[name] for single in singles]) for name in singles[0]}
        else:
            spacings = spacings_of(batch, truth.shape[-2:])
            measured = split == "test" or (split == "val" and not self._choose)
            counts = self._judge(logits, truth, spacings if measured else None, split)
        if split == "val" and self._choose:
            probabilities = logits.sigmoid()
            tried = [probabilities >= candidate for candidate in CANDIDATES]
            self._keep_tried(torch.stack(tried).sum(dim=0), truth, spacings)
            counts["tried_predicted"] = torch.stack([_sum(mask) for mask in tried], dim=1)
            counts["tried_true_positive"] = torch.stack([_sum(mask & truth) for mask in tried], dim=1)
        return counts

    def _judge(
        self, logits: Tensor, truth: Tensor, spacings: list[tuple[Spacing, Spacing]] | None, split: str
    ) -> dict[str, Tensor]:
        """Counts of one or more images of one size, bool ``[B, 1, H, W]``; distances where ``spacings`` are given."""
        truth = truth.bool()
        predicted = self.predict(logits)
        counts = {
            "true_positive": _sum(predicted & truth),
            "predicted": _sum(predicted),
            "lesion": _sum(truth),
            "pixels": _sum(torch.ones_like(truth)),
        }
        one_by_one = self._one_by_one and split in self.lesions
        if spacings is None and not one_by_one:
            return counts
        masks, lesions = predicted[:, 0].cpu().numpy(), truth[:, 0].cpu().numpy()
        if spacings is not None:
            pairs = zip(masks, lesions, spacings, strict=True)
            counts |= distance_columns([distances_of(*pair) for pair in pairs], truth.device)
        if split == "test":
            self.kept += list(masks)
        if one_by_one:
            probabilities = logits[:, 0].sigmoid().cpu().numpy()
            self.lesions[split] += map(judge_lesions, probabilities, masks, lesions)
        return counts

    def _keep_tried(self, levels: Tensor, truth: Tensor, spacings: list[tuple[Spacing, Spacing]]) -> None:
        """Keep what distances need until the epoch's threshold is chosen."""
        pairs = zip(levels[:, 0].byte().cpu().numpy(), truth[:, 0].cpu().numpy(), spacings, strict=True)
        for reached, lesion, spacing in pairs:
            packed = [zlib.compress(values.tobytes(), 1) for values in (reached, lesion)]
            self.tried.append(_Tried(packed[0], packed[1], reached.shape, spacing))

    def predict(self, logits: Tensor) -> Tensor:
        """Masks bool of mask logits, of the same shape."""
        mask: Tensor = logits.float().sigmoid() >= self.threshold
        return mask

    def summarize(self, split: str, gathered: dict[str, Tensor]) -> dict[str, Tensor]:
        """The metrics of an epoch; on validation the threshold is chosen first, where that is wanted."""
        if "tried_predicted" in gathered:
            self._choose_threshold(gathered)
        metrics: Any = self.metrics[f"{split}_"]
        metrics.update(
            *(gathered[name] for name in ("true_positive", "predicted", "lesion", "pixels")),
            *(gathered.get(name) for name in ("distance", "distance_mm")),
        )
        values: dict[str, Tensor] = metrics.compute()
        metrics.reset()
        return values if split == "train" else {**values, "threshold": self.threshold.clone()}

    def _choose_threshold(self, gathered: dict[str, Tensor]) -> None:
        """Take the candidate with the highest mean Dice (the middle one of equals), its counts and distances."""
        names = ("tried_true_positive", "tried_predicted", "lesion")
        parts = of_all_ranks({name: gathered[name].cpu() for name in names})
        tried = {name: torch.cat([part[name] for part in parts]) for name in names}
        lesion = tried["lesion"]
        means = []
        for column in range(len(CANDIDATES)):
            dice, _ = overlap(tried["tried_true_positive"][:, column], tried["tried_predicted"][:, column], lesion)
            means.append(float(dice.nanmean()) if (lesion > 0).any() else 0.0)
        best = [column for column, mean in enumerate(means) if mean == max(means)]
        chosen = best[len(best) // 2]
        self.threshold.fill_(CANDIDATES[chosen])
        gathered["true_positive"] = gathered["tried_true_positive"][:, chosen]
        gathered["predicted"] = gathered["tried_predicted"][:, chosen]
        found = []
        for item in self.tried:
            levels = np.frombuffer(zlib.decompress(item.levels), np.uint8).reshape(item.shape)
            truth = np.frombuffer(zlib.decompress(item.truth), np.bool_).reshape(item.shape)
            found.append(distances_of(levels > chosen, truth, item.spacings))
        self.tried.clear()
        gathered |= distance_columns(found, gathered["lesion"].device)

    def columns(self, gathered: dict[str, Tensor]) -> dict[str, list[Any]]:
        """Columns of ``predictions.csv``; None where a figure is not defined."""
        dice, iou = overlap(*(gathered[name] for name in ("true_positive", "predicted", "lesion")))
        figures = {"dice": dice, "iou": iou}
        counts = {"lesion_pixels": "lesion", "predicted_pixels": "predicted", "pixels": "pixels"}
        return {
            **{name: _defined(values) for name, values in figures.items()},
            **{name: gathered[key].tolist() for name, key in counts.items()},
            "hd95_pixels": _defined(gathered["distance"]),
            "hd95_mm": _defined(gathered["distance_mm"]),
        }


def _sum(mask: Tensor) -> Tensor:
    return mask.flatten(1).sum(dim=1)


def _originals(batch: Batch) -> list[Tensor]:
    masks: list[Tensor] = batch["original_mask"]
    return [mask[None] for mask in masks]


def _resize(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits ``[1, S, S]`` at the resolution of a mask ``[1, 1, H, W]``."""
    return F.interpolate(logits[None], size=mask.shape[-2:], mode="bilinear", align_corners=False)


def _defined(values: Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


class MaskTask(BaseTask):
    """A task whose network has a mask output, in the charge of ``self.masks``."""

    needs_masks = True
    masks: SegmentationPart

    @property
    def original_masks(self) -> bool:
        """Whether test masks are judged at the scans' own resolution."""
        return self.masks.original

    @property
    def mask_threshold(self) -> Tensor:
        """Lesion probability from which on a pixel is lesion, a scalar."""
        return self.masks.threshold

    @property
    def lesion_probabilities(self) -> bool:
        """Whether masks come from lesion probabilities, which were learnt, and not from activation maps."""
        return self.masks.loss is not None

    def predict_masks(self, image: Tensor) -> Tensor:
        """Masks bool ``[B, 1, S, S]`` of scans uint8 ``[B, 1, S, S]``."""
        logits = self(image).masks
        assert logits is not None
        return self.masks.predict(logits)

    def on_test_epoch_start(self) -> None:
        """Start to gather test batches and masks."""
        super().on_test_epoch_start()
        self.masks.start("test", one_by_one=True)

    def on_validation_epoch_start(self) -> None:
        """Start to gather validation batches, and masks whose threshold is not chosen yet."""
        super().on_validation_epoch_start()
        self.masks.start("val", one_by_one=self.trainer.state.fn == TrainerFn.VALIDATING)

    def predicted_masks(self) -> dict[str, Mask]:
        """Case id -> mask bool ``[H, W]`` from the last test, of all ranks."""
        kept = self.masks.kept  # empty where no true mask was known, so that nothing was judged
        own = dict(zip(self._case_ids["test"] if kept else (), kept, strict=True))
        return {case_id: mask for part in of_all_ranks(own) for case_id, mask in part.items()}

    def outlined_lesions(self, split: str) -> dict[str, list[OutlinedLesion]]:
        """Case id -> the lesions that its mask outlines, from the last test or validation alone, of all ranks."""
        kept = self.masks.lesions[split]
        own = dict(zip(self._case_ids[split] if kept else (), kept, strict=True))
        return {case_id: lesions for part in of_all_ranks(own) for case_id, lesions in part.items()}


class SegmentationTask(MaskTask):
    """Lesion masks, with the contract's metrics and their policy for empty masks (:class:`SegmentationMetrics`).

    Args:
        model: settings of a network that gives masks.
        image_size: see :class:`BaseTask`, as for the arguments up to ``channels_last``.
        optim: see :class:`BaseTask`.
        scheduler: see :class:`BaseTask`.
        loss: see :class:`SegmentationPart`, as for the arguments that follow.
        monitor: see :class:`BaseTask`.
        monitor_mode: see :class:`BaseTask`.
        channels_last: see :class:`BaseTask`.
        threshold: see :class:`SegmentationPart`.
        resolution: see :class:`SegmentationPart`.
        focal_gamma: see :class:`SegmentationLoss`.
        tversky_beta: see :class:`SegmentationLoss`.
        roles: see :class:`BaseTask`.
        mixup: see :class:`BaseTask`.
        cutmix: see :class:`BaseTask`.
        views: see :class:`BaseTask`.
    """

    kind = "segmentation"

    def __init__(
        self,
        model: Mapping[str, Any],
        image_size: int,
        optim: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        loss: Mapping[str, float],
        monitor: str = "val/dice",
        monitor_mode: str = "max",
        channels_last: bool = True,
        threshold: float | str = 0.5,
        resolution: str = "network",
        focal_gamma: float = 2.0,
        tversky_beta: float = 0.7,
        roles: Mapping[str, Any] | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        views: str = "none",
    ) -> None:
        common = (model, image_size, optim, scheduler, monitor, monitor_mode, channels_last, roles)
        super().__init__(*common, mixup, cutmix, views)
        self.masks = SegmentationPart(loss, threshold, resolution, focal_gamma, tversky_beta)

    @property
    def metric_names(self) -> list[str]:
        """Names of the scalar metrics."""
        return list(self.masks.names)

    def _step(self, batch: Batch, split: str) -> Tensor:
        mix = self.draw_mix(batch, split)
        outputs = self(batch["image"], mix)
        self.gather(split, **self.masks.count(outputs.masks, batch, split))
        return mix.loss_of_masks(batch["mask"], lambda mask: self.masks.total_loss(outputs, mask, split))

    def summarize(self, split: str, gathered: dict[str, Tensor]) -> dict[str, Tensor]:
        """The contract's metrics."""
        return self.masks.summarize(split, gathered)

    def columns(self, gathered: dict[str, Tensor]) -> dict[str, list[Any]]:
        """Overlap and pixel counts of each image."""
        return self.masks.columns(gathered)
