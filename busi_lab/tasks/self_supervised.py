"""Warm-up without annotation: two views of a scan shall have the same features."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from busi_lab.errors import UserError
from busi_lab.models import BuiltModel, Outputs, Wanted, build_network
from busi_lab.tasks.base import BaseTask, Batch


class Siamese(nn.Module):
    """A network, and behind its output of ``features`` numbers a projector and a predictor.

    Args:
        network: with as many class logits.
        features: their number.
    """

    def __init__(self, network: nn.Module, features: int) -> None:
        super().__init__()
        self.network = network
        self.projector = nn.Sequential(
            nn.BatchNorm1d(features),
            nn.ReLU(inplace=True),
            nn.Linear(features, features, bias=False),
            nn.BatchNorm1d(features, affine=False),
        )
        hidden = features // 4
        self.predictor = nn.Sequential(
            nn.Linear(features, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, features),
        )

    def forward(self, image: Tensor) -> Outputs:
        """Features float ``[B, features]`` of normalised scans float ``[B, C, S, S]``, in the place of classes."""
        return Outputs(classes=self.projector(self.network(image).classes))


class SelfSupervisedTask(BaseTask):
    """SimSiam (Chen & He, CVPR 2021): a predictor on the features of one view shall find those of the other.

    No gradient flows into what is to be found. The class output of a network, of ``features`` numbers, is the first
    layer of the projector, so that any network with classes will do; a run that begins with
    ``model.weights=RUN_DIR`` takes the backbone.

    ``val/spread`` is the mean standard deviation of normalised features over the validation scans, times
    ``sqrt(features)``: about 1 where scans differ, 0 where all have become the same.

    Args:
        model: settings of a network that gives classes.
        image_size: see :class:`BaseTask`, as for the arguments up to ``channels_last``.
        optim: see :class:`BaseTask`.
        scheduler: see :class:`BaseTask`.
        monitor: see :class:`BaseTask`.
        monitor_mode: see :class:`BaseTask`.
        channels_last: see :class:`BaseTask`.
        features: numbers that describe a scan.
        roles: see :class:`BaseTask`.

    Raises:
        UserError: fewer than 16 features.
    """

    kind = "self_supervised"
    two_views = True

    def __init__(
        self,
        model: Mapping[str, Any],
        image_size: int,
        optim: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        monitor: str = "val/loss",
        monitor_mode: str = "min",
        channels_last: bool = True,
        features: int = 256,
        roles: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(features, bool) or not isinstance(features, int) or features < 16:
            raise UserError(f"task.features={features}: expected a whole number of at least 16")
        self._features = features
        super().__init__(model, image_size, optim, scheduler, monitor, monitor_mode, channels_last, roles)

    def configure_network(self) -> BuiltModel:
        """The network, with ``features`` numbers in the place of its classes, and what SimSiam puts behind it."""
        built = build_network(self._settings, Wanted(self._features, False, self.image_size))
        siamese = Siamese(built.network, self._features)
        return replace(built, network=siamese, heads=(*built.heads, siamese.projector, siamese.predictor))

    @property
    def metric_names(self) -> list[str]:
        """Names of the scalar metrics."""
        return ["spread"]

    def _step(self, batch: Batch, split: str) -> Tensor:
        features: list[Any] = [self(batch[view]).classes for view in ("image", "view")]
        predictor: Any = self.network.predictor
        first, second = (predictor(each) for each in features)
        loss = (_distance(first, features[1]) + _distance(second, features[0])) / 2
        self.gather(split, features=F.normalize(features[0].detach().float(), dim=1))
        return loss

    def summarize(self, split: str, gathered: dict[str, Tensor]) -> dict[str, Tensor]:
        """How far the features of scans differ."""
        features = gathered["features"]
        centre = torch.stack([self.mean(column) for column in features.T])
        variance = torch.stack([self.mean(column) for column in (features - centre).square().T])
        return {"spread": variance.sqrt().mean() * self._features**0.5}

    def columns(self, gathered: dict[str, Tensor]) -> dict[str, list[Any]]:
        """None: nothing is predicted."""
        return {}


def _distance(predicted: Tensor, features: Tensor) -> Tensor:
    """Negative cosine similarity; the features are not trained by it."""
    return -F.cosine_similarity(predicted.float(), features.detach().float(), dim=1).mean()
