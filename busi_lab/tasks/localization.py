"""Weak supervision: a classifier, trained on labels alone, whose class activation map is judged as a lesion mask."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from busi_lab.classes import Classes
from busi_lab.errors import UserError
from busi_lab.models import BuiltModel, Outputs
from busi_lab.models.interface import Wanted
from busi_lab.models.registry import build_network
from busi_lab.tasks.base import Batch
from busi_lab.tasks.classification import ClassificationPart
from busi_lab.tasks.mixing import NOTHING_MIXED, Mix
from busi_lab.tasks.segmentation import MaskTask, SegmentationPart

LOCALIZATION_METRICS = ("pointing_game", "box_iou", "lesions_hit_iou50", "lesions_hit_centre")

Mask = NDArray[np.bool_]
Box = tuple[slice, slice]


class LocalizationTask(MaskTask):
    """Cross-entropy over the classes; masks come from class activation maps and are judged, never learnt.

    The map of the predicted class is resized to the image and stretched from 0, its minimum, to 1, its maximum.
    Places with ``share`` or more are lesion, of which the largest connected part is kept (Kim et al., Scientific
    Reports 11:24382, 2021; a share of 0.2 from Zhou et al., CVPR 2016). A scan that is called without a lesion has an
    empty mask.

    Besides the metrics of classes and masks, means over the images with a lesion, at the network's resolution:
    ``pointing_game``, the maximum of the map lies in the lesion (Zhang et al., IJCV 126, 2018, without their
    tolerance); ``box_iou``, of the boxes of mask and lesion, of several lesions the one that fits best;
    ``lesions_hit_iou50``, it is 0.5 or more; ``lesions_hit_centre``, the centre of the mask's box lies in a lesion's
    box. An empty mask hits nothing.

    Args:
        model: settings of a network that answers with class activation maps, as ``pooled_classifier``.
        image_size: see :class:`BaseTask`, as for the arguments up to ``channels_last``.
        optim: see :class:`BaseTask`.
        scheduler: see :class:`BaseTask`.
        monitor: see :class:`BaseTask`; the default needs labels alone.
        monitor_mode: see :class:`BaseTask`.
        channels_last: see :class:`BaseTask`.
        label_smoothing: see :class:`ClassificationPart`.
        class_weights: see :class:`ClassificationPart`.
        class_focal_gamma: see :class:`ClassificationPart`.
        localize: ``cam``, the one method.
        share: of the way from the map's minimum to its maximum, from which on a place is lesion.
        resolution: see :class:`SegmentationPart`.
        roles: see :class:`BaseTask`.
        mixup: see :class:`BaseTask`.
        cutmix: see :class:`BaseTask`.
        views: see :class:`BaseTask`.

    Raises:
        UserError: a setting outside its range, or a network without class activation maps.
    """

    kind = "localization"
    needs_labels = True

    def __init__(
        self,
        model: Mapping[str, Any],
        image_size: int,
        optim: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        monitor: str = "val/f1",
        monitor_mode: str = "max",
        channels_last: bool = True,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        class_focal_gamma: float = 0.0,
        localize: str = "cam",
        share: float = 0.2,
        resolution: str = "network",
        roles: Mapping[str, Any] | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        views: str = "none",
    ) -> None:
        if localize != "cam":
            raise UserError(f"task.localize={localize}: expected cam; for classes alone choose task=classification")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise UserError(
                f"task.share={share}: expected a share of the maximum between 0 and 1; it is not chosen on validation, "
                "which would need masks"
            )
        common = (model, image_size, optim, scheduler, monitor, monitor_mode, channels_last, roles)
        super().__init__(*common, mixup, cutmix, views)
        self.classes = ClassificationPart(label_smoothing, class_weights, self.roles, class_focal_gamma)
        self.masks = SegmentationPart(None, float(share), resolution)

    def configure_network(self) -> BuiltModel:
        """Build a network of classes, and see whether it answers with maps as well."""
        wanted = Wanted(len(self.roles), False, self.image_size, self.roles.names)
        built = build_network(self._settings, wanted)
        built.network.eval()
        with torch.no_grad():
            blank = torch.zeros(1, self._settings.in_chans, self.image_size, self.image_size)
            maps = built.network(blank).class_maps
        built.network.train()
        if maps is None:
            raise UserError(
                f"model.name={self._settings.name}: it has no class activation maps, which task=localization needs; "
                "set model=pooled_classifier, or choose another task="
            )
        return built

    @property
    def metric_names(self) -> list[str]:
        """Names of the scalar metrics."""
        return [*self.classes.names, *self.masks.names, *LOCALIZATION_METRICS]

    def forward(self, image: Tensor, mix: Mix = NOTHING_MIXED) -> Outputs:
        """Class logits of scans uint8 ``[B, 1, S, S]`` and, when it does not train, mask logits from the maps."""
        outputs = super().forward(image, mix)
        if self.training or outputs.class_maps is None:
            return outputs
        shares = self._shares(outputs, image.shape[-2:])
        kept = np.stack([largest_part(each) for each in (shares[:, 0] >= self.masks.threshold).cpu().numpy()])
        alone = shares * torch.from_numpy(kept)[:, None].to(shares.device)
        return outputs._replace(masks=torch.logit(alone, eps=1e-6))

    def _shares(self, outputs: Outputs, size: torch.Size) -> Tensor:
        """Map of the predicted class from 0 to 1, ``[B, 1, S, S]``, all 0 where no lesion is predicted."""
        assert outputs.classes is not None and outputs.class_maps is not None
        called = outputs.classes.argmax(dim=1)
        maps = outputs.class_maps.float()
        chosen = maps.gather(1, called[:, None, None, None].expand(-1, 1, *maps.shape[-2:]))
        shares = F.interpolate(chosen, size=size, mode="bilinear", align_corners=False)
        shares = shares - shares.amin(dim=(2, 3), keepdim=True)
        shares = shares / shares.amax(dim=(2, 3), keepdim=True).clamp(min=1e-12)
        return shares * _with_lesion(called, self.roles)[:, None, None, None]

    def _step(self, batch: Batch, split: str) -> Tensor:
        mix = self.draw_mix(batch, split)
        outputs = self(batch["image"], mix)
        known = split != "test" or bool((batch["label"] >= 0).all())  # an evaluation may know masks alone
        loss: Tensor = outputs.classes.new_zeros(())
        gathered: dict[str, Tensor] = {}
        if known:
            loss = mix.loss_of_labels(batch["label"], lambda label: self.classes.loss(outputs.classes, label, split))
            gathered["logits"] = outputs.classes.detach().float()
        if outputs.masks is not None and "mask" in batch:
            gathered |= self.masks.count(outputs.masks, batch, split)
            gathered |= self._judge(outputs, batch["mask"])
        self.gather(split, **gathered)
        return loss

    def _judge(self, outputs: Outputs, truth: Tensor) -> dict[str, Tensor]:
        """Figures of each image, float ``[B]``, NaN without a lesion."""
        assert outputs.masks is not None
        shares = self._shares(outputs, truth.shape[-2:])[:, 0].cpu().numpy()
        masks = self.masks.predict(outputs.masks)[:, 0].cpu().numpy()
        found = [judge(*each) for each in zip(shares, masks, truth[:, 0].bool().cpu().numpy(), strict=True)]
        columns = torch.tensor(found, dtype=torch.float32, device=truth.device).view(-1, 3)
        return {name: columns[:, place] for place, name in enumerate(("peak_hit", "box_iou", "centre_hit"))}

    def summarize(self, split: str, gathered: dict[str, Tensor]) -> dict[str, Tensor]:
        """The metrics of classes, masks and places; in training those of classes alone."""
        values = self.classes.summarize(split, gathered, self.learnt) if "logits" in gathered else {}
        if "lesion" not in gathered:
            return values
        values |= self.masks.summarize(split, gathered)
        overlaps = gathered["box_iou"]
        figures = (gathered["peak_hit"], overlaps, _where_known(overlaps, overlaps >= 0.5), gathered["centre_hit"])
        means = {name: self.mean(each[~each.isnan()]) for name, each in zip(LOCALIZATION_METRICS, figures, strict=True)}
        return values | {name: mean for name, mean in means.items() if not mean.isnan()}

    def columns(self, gathered: dict[str, Tensor]) -> dict[str, list[Any]]:
        """Class, probabilities, overlap and hits of each image, as far as its truth is known."""
        columns = self.classes.columns(gathered) if "logits" in gathered else {}
        if "lesion" in gathered:
            columns |= self.masks.columns(gathered)
            for name in ("peak_hit", "box_iou", "centre_hit"):
                columns[name] = [None if value != value else value for value in gathered[name].tolist()]
        return columns


def largest_part(mask: Mask) -> Mask:
    """The largest connected part of a mask, bool ``[H, W]``, pixels that touch at a corner included."""
    count, labels, areas, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 3:
        return mask
    largest: Mask = labels == 1 + int(np.argmax(areas[1:, cv2.CC_STAT_AREA]))
    return largest


def judge(shares: NDArray[np.float32], mask: Mask, truth: Mask) -> tuple[float, float, float]:
    """Whether the peak lies in the lesion, IoU of the boxes, whether the centre of the mask's box lies in a lesion's.

    Args:
        shares: map ``[H, W]``, all 0 where nothing is predicted.
        mask: of one part at most, ``[H, W]``.
        truth: lesions, ``[H, W]``.

    Returns:
        1 and 0 for yes and no; NaN three times without a lesion.
    """
    if not truth.any():
        return math.nan, math.nan, math.nan
    if not mask.any():
        return 0.0, 0.0, 0.0
    peak = bool(truth[np.unravel_index(int(shares.argmax()), shares.shape)])
    lesions = ndimage.find_objects(ndimage.label(truth)[0])
    own = ndimage.find_objects(mask.astype(np.uint8))[0]
    centre = [(side.start + side.stop - 1) / 2 for side in own]
    hit = any(all(s.start <= c < s.stop for s, c in zip(box, centre, strict=True)) for box in lesions)
    return float(peak), max(_box_iou(own, box) for box in lesions), float(hit)


def _box_iou(first: Box, second: Box) -> float:
    common = math.prod(max(0, min(a.stop, b.stop) - max(a.start, b.start)) for a, b in zip(first, second, strict=True))
    areas = [math.prod(side.stop - side.start for side in box) for box in (first, second)]
    return float(common / (sum(areas) - common))


def _with_lesion(called: Tensor, roles: Classes) -> Tensor:
    """1 where the class of a number has a lesion, 0 where not."""
    if roles.without_lesion is None:
        return torch.ones_like(called)
    return (called != roles.number(roles.without_lesion)).long()


def _where_known(values: Tensor, answers: Tensor) -> Tensor:
    return torch.where(values.isnan(), math.nan, answers.float())
