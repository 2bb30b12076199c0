"""What all tasks share: input scaling, freezing, optimiser, scheduler, checkpoints."""

import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed
from lightning import LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MeanMetric

from busi_lab.classes import BUSI, Classes
from busi_lab.errors import UserError
from busi_lab.models import BuiltModel, Outputs, Wanted, build_network, find_network, network_settings
from busi_lab.models.freezing import FrozenPart
from busi_lab.models.views import VIEWS, answer_to_views
from busi_lab.tasks.checkpoint import SCHEMA
from busi_lab.tasks.consistency import Consistency
from busi_lab.tasks.guidance import Guide
from busi_lab.tasks.lesions import OutlinedLesion
from busi_lab.tasks.mixing import NOTHING_MIXED, Mix, Mixing
from busi_lab.tasks.optimisation import check_layer_decay, make_optimizer, make_scheduler

Batch = dict[str, Any]
T = TypeVar("T")


class BaseTask(LightningModule):
    """A task takes gray scans as bytes, ``image`` uint8 ``[B, 1, S, S]``, and does all scaling itself.

    So a checkpoint carries everything that turns a scan into an answer. Subclasses declare ``kind``,
    ``needs_labels``, ``needs_masks`` and :attr:`metric_names`, and implement :meth:`_step`, :meth:`summarize` and
    :meth:`columns`; those with masks derive from :class:`MaskTask`. Constructor arguments are plain values, so that
    ``load_from_checkpoint`` rebuilds the task with ``weights_only=True`` and without the original weight files.

    Args:
        model: the ``model`` group of the configuration; see :func:`busi_lab.models.network_settings`.
        image_size: side of the input, pixels.
        optim: ``name`` (timm's optimiser name), ``lr``, ``weight_decay``, ``backbone_lr`` (None: as ``lr``),
            ``layer_decay`` (None: one rate for all layers).
        scheduler: ``name`` (none, cosine, warmup_cosine, onecycle, plateau) and its settings.
        monitor: validation metric that chooses the best epoch.
        monitor_mode: ``max`` or ``min``.
        channels_last: keep tensors in the memory layout that convolutions prefer.
        roles: ``names``, ``positive`` and ``without_lesion`` of :class:`Classes`; None for BUSI's.
        mixup: see :class:`Mixing`. What is mixed is judged in training against its own labels and masks alone.
        cutmix: see :class:`Mixing`.
        views: of a scan, whose answers are averaged outside training; see :func:`answer_to_views`.

    Raises:
        UserError: a setting outside its range, or a network that cannot be built or does not suit the task.
    """

    kind: str
    """What the task is called in ``summary.json``."""

    needs_labels = False
    """Whether it learns the labels of scans; its network then has a class output."""

    needs_masks = False
    """Whether it learns the masks of scans; its network then has a mask output."""

    two_views = False
    """Whether it wants each scan in two views, ``image`` and ``view``."""

    def __init__(
        self,
        model: Mapping[str, Any],
        image_size: int,
        optim: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        monitor: str,
        monitor_mode: str,
        channels_last: bool = True,
        roles: Mapping[str, Any] | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        views: str = "none",
    ) -> None:
        super().__init__()
        if views not in VIEWS:
            raise UserError(f"task.views={views}: expected {' or '.join(VIEWS)}")
        self.save_hyperparameters()
        for name in self.hparams.keys() - inspect.signature(type(self)).parameters.keys():
            del self.hparams[name]  # an option of this class that the task does not have
        if views != "none" and self.hparams.get("class_loss") == "margin":
            raise UserError(
                f"task.views={views} beside task.class_loss=margin: the mean over views is one of probabilities, and "
                "that loss is of the lengths of capsules; leave one of them out"
            )
        self._settings = network_settings(model)
        self.hparams["model"] = self.model_settings = asdict(self._settings)
        self.image_size = image_size
        self.views = views
        self.monitor = monitor
        self.monitor_mode = monitor_mode
        self.roles = BUSI if roles is None else Classes(**{**roles, "names": tuple(roles["names"])})
        self.learnt: Sequence[str] = self.roles.names  # which classes it has learnt, or will
        self._optim = dict(optim)
        self._scheduler = dict(scheduler)
        self._mixing = Mixing(mixup, cutmix)
        built = self.configure_network()
        self.network = built.network
        self.initial = built.initial
        self._heads = built.heads
        self._channels_last = channels_last
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        for name, values in (("mean", built.mean), ("std", built.std)):
            self.register_buffer(f"_{name}", torch.tensor(values).view(1, -1, 1, 1))
        check_layer_decay(self._optim, self.network, self._settings.label)
        self._frozen = FrozenPart(built, self._settings.freeze, self._settings.label)
        self._thawed = False
        self._frozen.hold()
        self.train()  # Lightning keeps the modes that it finds, so a frozen backbone must be set now
        self.guides: list[Guide] = []  # losses beside those of annotations; no part of a checkpoint's settings
        self._guided: list[dict[str, Tensor]] = []
        self.results: dict[str, dict[str, Tensor]] = {}
        self._average = MeanMetric(nan_strategy="disable")  # by default it leaves out what is no number
        self._gathered: dict[str, dict[str, list[Tensor]]] = {"train": {}, "val": {}, "test": {}}
        self._case_ids: dict[str, list[str]] = {"val": [], "test": []}
        self._rows: dict[str, list[dict[str, Any]]] = {"val": [], "test": []}

    def configure_network(self) -> BuiltModel:
        """Build the network that the settings name, for what the task needs.

        Raises:
            UserError: the network does not give that, or cannot be built.
        """
        classes = len(self.roles) if self.needs_labels else None
        names = self.roles.names if self.needs_labels else ()
        return build_network(self._settings, Wanted(classes, self.needs_masks, self.image_size, names))

    @abstractmethod
    def _step(self, batch: Batch, split: str) -> Tensor:
        """Loss of one batch; gathers what :meth:`summarize` needs."""

    @abstractmethod
    def summarize(self, split: str, gathered: dict[str, Tensor]) -> dict[str, Tensor]:
        """Metrics of an epoch, of all ranks together, under bare names.

        Args:
            split: train, val or test.
            gathered: what :meth:`gather` kept, a row an image, and ``label``.
        """

    @abstractmethod
    def columns(self, gathered: dict[str, Tensor]) -> dict[str, list[Any]]:
        """Columns of ``predictions.csv`` behind ``image`` and ``label``, from what was gathered; none: no such file."""

    @property
    @abstractmethod
    def metric_names(self) -> list[str]:
        """Bare names of the scalar metrics, any of which, or ``loss``, can be monitored as ``val/NAME``."""

    @property
    def wanted_unlabelled(self) -> Literal["none", "rest", "all"]:
        """Which scans it wants without label and mask, see :class:`busi_lab.data.datamodule.BusiDataModule`."""
        if any(isinstance(guide, Consistency) for guide in self.guides):
            return "all"
        return "rest" if self.guides else "none"

    @property
    def original_masks(self) -> bool:
        """Whether test masks are judged at the scans' own resolution."""
        return False

    @property
    def mask_threshold(self) -> Tensor | None:
        """Lesion probability from which on a pixel is lesion, a scalar; None where no masks are predicted."""
        return None

    @property
    def lesion_probabilities(self) -> bool:
        """Whether masks come from lesion probabilities, whose mean over an outline says how sure the network is."""
        return False

    @property
    def head_modules(self) -> tuple[nn.Module, ...]:
        """The modules behind the backbone."""
        return self._heads

    @property
    def model_name(self) -> str:
        """The network in a word, for people and ``summary.json``."""
        return self._settings.label

    def head_parameters(self) -> list[nn.Parameter]:
        """Parameters behind the backbone."""
        return [parameter for head in self._heads for parameter in head.parameters()]

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Parameters of the network that belong to no head."""
        heads = {id(parameter) for parameter in self.head_parameters()}
        return [parameter for parameter in self.network.parameters() if id(parameter) not in heads]

    def train(self, mode: bool = True) -> "BaseTask":
        """Switch to training; what is frozen stays in evaluation mode."""
        super().train(mode)
        if mode and not self._thawed:
            self._frozen.evaluate()
        return self

    def on_train_start(self) -> None:
        """Train everything from the start where a continued run has come that far.

        Raises:
            UserError: ``model.unfreeze_epoch`` on several devices, which would not exchange what is thawed.
        """
        epoch = self._settings.unfreeze_epoch
        if epoch is not None and self.trainer.world_size > 1:
            raise UserError(f"model.unfreeze_epoch={epoch}: expected trainer.devices=1, found several; leave one out")
        self._thaw_if_due()
        for guide, state in zip(self.guides, self._guided, strict=False):
            guide.restore(state)
        for guide in self.guides:
            guide.begin(self)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let what guides the training follow the network."""
        for guide in self.guides:
            guide.after_step(self)

    def _thaw_if_due(self) -> None:
        epoch = self._settings.unfreeze_epoch
        if epoch is not None and not self._thawed and self.current_epoch >= epoch:
            self._thawed = True
            self._frozen.hold(False)
            self.train()

    def scale(self, image: Tensor) -> Tensor:
        """Turn uint8 ``[B, 1, S, S]`` into the network's input ``[B, in_chans, S, S]``, float32 or of its precision.

        Raises:
            TypeError: the scans are no bytes; they would be scaled twice.
        """
        if image.dtype != torch.uint8:
            raise TypeError(f"image: expected gray levels uint8 [B, 1, S, S], found {image.dtype} {list(image.shape)}")
        mean, std = self._mean, self._std
        scaled = ((image.float() / 255 - mean.float()) / std.float()).to(mean.dtype)  # type: ignore[operator,arg-type]
        return scaled.contiguous(memory_format=torch.channels_last) if self._channels_last else scaled

    def forward(self, image: Tensor, mix: Mix = NOTHING_MIXED) -> Outputs:
        """Logits of scans uint8 ``[B, 1, S, S]``: in training of mixed ones, otherwise the mean over their views."""
        return answer_to_views(self.network, mix.images(self.scale(image)), "none" if self.training else self.views)

    def draw_mix(self, batch: Batch, split: str) -> Mix:
        """How a batch is mixed: in training alone, and where that is wanted."""
        if split != "train":
            return NOTHING_MIXED
        return self._mixing.draw(len(batch["image"]), batch["image"].shape[-1])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One optimisation step."""
        loss = self._gathered_step(batch, "train")
        if not self.guides:
            return loss
        guidance = torch.stack([guide.loss(self, batch) for guide in self.guides]).sum()
        self.gather("train", guidance=guidance.detach().float().expand(len(batch["image"])))
        return loss + guidance

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Judge one validation batch."""
        self._gathered_step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Judge one test batch."""
        self._gathered_step(batch, "test")

    def _gathered_step(self, batch: Batch, split: str) -> Tensor:
        loss = self._step(batch, split)
        self.gather(split, loss=loss.detach().float().expand(len(batch["image"])), label=batch["label"])
        if split in self._case_ids:
            self._case_ids[split] += batch["case_id"]
        return loss

    def gather(self, split: str, **values: Tensor) -> None:
        """Keep one row an image, ``[B, ...]``, until the end of the epoch: metrics cost the training loop nothing."""
        for name, value in values.items():
            self._gathered[split].setdefault(name, []).append(value)

    def on_train_epoch_start(self) -> None:
        """Start to gather training batches; thaw what is frozen until this epoch."""
        self._thaw_if_due()
        self._gathered["train"].clear()

    def on_validation_epoch_start(self) -> None:
        """Start to gather validation batches."""
        self._gathered["val"].clear()
        self._case_ids["val"].clear()

    def on_test_epoch_start(self) -> None:
        """Start to gather test batches."""
        self._gathered["test"].clear()
        self._case_ids["test"].clear()

    def on_train_epoch_end(self) -> None:
        """Log the training metrics."""
        self._log_summary("train")

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_summary("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_summary("test")

    def _log_summary(self, split: str) -> None:
        gathered = {name: torch.cat(parts) for name, parts in self._gathered[split].items()}
        self._gathered[split].clear()
        means = {"loss": self.mean(gathered.pop("loss"))}
        if "guidance" in gathered:
            means["guidance_loss"] = self.mean(gathered.pop("guidance"))
        values = {**means, **self.summarize(split, gathered)}
        if split in self._rows:
            self._rows[split] = self._tabulate(split, gathered)
        self.results[split] = values
        # every rank has computed the value over all ranks: nothing to reduce
        self.log_dict({f"{split}/{key}": value for key, value in values.items() if value.numel() == 1})

    def mean(self, values: Tensor) -> Tensor:
        """Mean of a value an image, float ``[B]``, over the images of all ranks."""
        self._average.update(values)
        mean: Tensor = self._average.compute()
        self._average.reset()
        return mean

    def predictions(self, split: str = "test") -> list[dict[str, Any]]:
        """Rows of ``predictions.csv`` from the last test, or the last validation, of all ranks, sorted by image."""
        rows = [row for part in of_all_ranks(self._rows[split]) for row in part]
        return sorted(rows, key=lambda row: str(row["image"]))

    def _tabulate(self, split: str, gathered: dict[str, Tensor]) -> list[dict[str, Any]]:
        labels = [self.roles.name(number) for number in gathered["label"].tolist()]
        predicted = self.columns(gathered)
        if not predicted:
            return []
        columns = {"image": list(self._case_ids[split]), "label": labels, **predicted}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def predicted_masks(self) -> dict[str, NDArray[np.bool_]]:
        """Case id -> mask bool ``[H, W]`` from the last test, of all ranks; empty where none are predicted."""
        return {}

    def outlined_lesions(self, split: str) -> dict[str, list[OutlinedLesion]]:
        """Case id -> the lesions that its mask outlines, largest first, judged one by one; empty where none are.

        Args:
            split: val, after a validation that was no part of training, or test.
        """
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let a checkpoint stand for itself, without the original weights and in the middle of an epoch."""
        checkpoint["gathered"] = {name: torch.cat(parts) for name, parts in self._gathered["train"].items()}
        checkpoint["schema"] = SCHEMA
        checkpoint["packages"] = self._packages()
        if "optimizer_states" in checkpoint:  # to go on from, not the weights alone
            checkpoint["guides"] = [guide.state() for guide in self.guides]
        parameters = dict(checkpoint["hyper_parameters"])
        parameters["model"] = {**parameters["model"], "weights": "none"}
        checkpoint["hyper_parameters"] = parameters

    def _packages(self) -> dict[str, str]:
        """The packages that have brought the task and its network, where these are not ours."""
        brought = {"task": type(self).__module__.partition(".")[0], "model": find_network(self._settings.name).package}
        return {what: package for what, package in brought.items() if package != __name__.partition(".")[0]}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the batches of an epoch that was cut."""
        self._guided = checkpoint.get("guides", [])
        self._gathered["train"] = {name: [rows] for name, rows in checkpoint.get("gathered", {}).items()}

    def configure_optimizers(self) -> Any:
        """Optimiser over what is trained, and the scheduler."""
        thaws = self._settings.unfreeze_epoch is not None
        optimizer = make_optimizer(self._optim, self.network, self.head_parameters(), self._frozen.parameters, thaws)
        if self._scheduler["name"] == "none":
            return optimizer
        scheduler = make_scheduler(self._scheduler, optimizer, self.trainer, self.monitor, self.monitor_mode)
        return optimizer if scheduler is None else {"optimizer": optimizer, "lr_scheduler": scheduler}


def of_all_ranks(part: T) -> list[T]:
    """A value of this process, and in a distributed run those of the others, in the order of ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [part]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, part)
    return parts
