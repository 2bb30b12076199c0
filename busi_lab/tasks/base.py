"""What all tasks share: input scaling, freezing, optimiser, scheduler, checkpoints."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import timm.optim
import torch
import torch.distributed
from lightning import LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torchmetrics import MeanMetric

from busi_lab.classes import BUSI, Classes
from busi_lab.models import BuiltModel, Outputs, Wanted, build_network, find_network, network_settings
from busi_lab.tasks.checkpoint import SCHEMA

Batch = dict[str, Any]
T = TypeVar("T")
HALF_EPSILON = 1e-4  # float16 has no normal number below 6.1e-5


class BaseTask(LightningModule):
    """A task takes gray scans as bytes, ``image`` uint8 ``[B, 1, S, S]``, and does all scaling itself.

    So a checkpoint carries everything that turns a scan into an answer. Subclasses declare ``kind``,
    ``needs_labels``, ``needs_masks`` and :attr:`metric_names`, and implement :meth:`_step`, :meth:`summarize` and
    :meth:`columns`; those with masks derive from :class:`MaskTask`. Constructor arguments are plain values, so that
    ``load_from_checkpoint`` rebuilds the task with ``weights_only=True`` and without the original weight files.

    Args:
        model: the ``model`` group of the configuration; see :func:`busi_lab.models.network_settings`.
        image_size: side of the input, pixels.
        optim: ``name`` (timm's optimiser name), ``lr``, ``weight_decay``, ``backbone_lr`` (None: as ``lr``).
        scheduler: ``name`` (none, cosine, onecycle, plateau) and its settings.
        monitor: validation metric that chooses the best epoch.
        monitor_mode: ``max`` or ``min``.
        channels_last: keep tensors in the memory layout that convolutions prefer.
        roles: ``names``, ``positive`` and ``without_lesion`` of :class:`Classes`; None for BUSI's.
    """

    kind: str
    """What the task is called in ``summary.json``."""

    needs_labels = False
    """Whether it learns the labels of scans; its network then has a class output."""

    needs_masks = False
    """Whether it learns the masks of scans; its network then has a mask output."""

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
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._settings = network_settings(model)
        self.hparams["model"] = self.model_settings = asdict(self._settings)
        self.image_size = image_size
        self.monitor = monitor
        self.monitor_mode = monitor_mode
        self.roles = BUSI if roles is None else Classes(**{**roles, "names": tuple(roles["names"])})
        self.learnt: Sequence[str] = self.roles.names  # which classes it has learnt, or will
        self._optim = dict(optim)
        self._scheduler = dict(scheduler)
        built = self.configure_network()
        self.network = built.network
        self.initial = built.initial
        self._heads = built.heads
        self._channels_last = channels_last
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        for name, values in (("mean", built.mean), ("std", built.std)):
            self.register_buffer(f"_{name}", torch.tensor(values).view(1, -1, 1, 1))
        if self.frozen:
            for parameter in self.backbone_parameters():
                parameter.requires_grad_(False)
        self.train()  # Lightning keeps the modes that it finds, so a frozen backbone must be set now
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
        """Columns of ``predictions.csv`` behind ``image`` and ``label``, from what was gathered."""

    @property
    @abstractmethod
    def metric_names(self) -> list[str]:
        """Bare names of the scalar metrics, any of which, or ``loss``, can be monitored as ``val/NAME``."""

    @property
    def original_masks(self) -> bool:
        """Whether test masks are judged at the scans' own resolution."""
        return False

    @property
    def mask_threshold(self) -> Tensor | None:
        """Lesion probability from which on a pixel is lesion, a scalar; None where no masks are predicted."""
        return None

    @property
    def frozen(self) -> bool:
        """Whether the backbone keeps its weights and batch-norm statistics."""
        return self._settings.freeze == "backbone"

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
        """Switch to training; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if mode and self.frozen:
            self.network.eval()
            for head in self._heads:
                head.train()
        return self

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

    def forward(self, image: Tensor) -> Outputs:
        """Logits of scans uint8 ``[B, 1, S, S]``."""
        outputs: Outputs = self.network(self.scale(image))
        return outputs

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One optimisation step."""
        return self._gathered_step(batch, "train")

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
        """Start to gather training batches."""
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
        values = {"loss": self.mean(gathered.pop("loss")), **self.summarize(split, gathered)}
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
        columns = {"image": list(self._case_ids[split]), "label": labels, **self.columns(gathered)}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def predicted_masks(self) -> dict[str, NDArray[np.bool_]]:
        """Case id -> mask bool ``[H, W]`` from the last test, of all ranks; empty where none are predicted."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let a checkpoint stand for itself, without the original weights and in the middle of an epoch."""
        checkpoint["gathered"] = {name: torch.cat(parts) for name, parts in self._gathered["train"].items()}
        checkpoint["schema"] = SCHEMA
        checkpoint["packages"] = self._packages()
        parameters = dict(checkpoint["hyper_parameters"])
        parameters["model"] = {**parameters["model"], "weights": "none"}
        checkpoint["hyper_parameters"] = parameters

    def _packages(self) -> dict[str, str]:
        """The packages that have brought the task and its network, where these are not ours."""
        brought = {"task": type(self).__module__.partition(".")[0], "model": find_network(self._settings.name).package}
        return {what: package for what, package in brought.items() if package != __name__.partition(".")[0]}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the batches of an epoch that was cut."""
        self._gathered["train"] = {name: [rows] for name, rows in checkpoint.get("gathered", {}).items()}

    def configure_optimizers(self) -> Any:
        """Optimiser over the trainable parameters, and the scheduler."""
        lr = self._optim["lr"]
        backbone_lr = self._optim.get("backbone_lr")
        groups = [
            {"params": self.head_parameters(), "lr": lr},
            {"params": self.backbone_parameters(), "lr": lr if backbone_lr is None else backbone_lr},
        ]
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
        optimizer = timm.optim.create_optimizer_v2(
            [group for group in groups if group["params"]],
            opt=self._optim["name"],
            lr=lr,
            weight_decay=self._optim["weight_decay"],
        )
        _keep_epsilon(optimizer)
        scheduler = self._configure_scheduler(optimizer)
        return optimizer if scheduler is None else {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _configure_scheduler(self, optimizer: Any) -> dict[str, Any] | None:
        name = self._scheduler["name"]
        if name == "cosine":
            epochs = self.trainer.max_epochs or 1
            return {"scheduler": lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)}
        if name == "onecycle":
            peaks = [group["lr"] for group in optimizer.param_groups]
            steps = int(self.trainer.estimated_stepping_batches) + 1  # it is stepped once more after the last batch
            share = self._scheduler["warmup_fraction"]
            cycle = lr_scheduler.OneCycleLR(optimizer, max_lr=peaks, total_steps=steps, pct_start=share)
            return {"scheduler": cycle, "interval": "step"}
        if name == "plateau":
            plateau = lr_scheduler.ReduceLROnPlateau(
                optimizer,
                mode=self.monitor_mode,  # type: ignore[arg-type]
                factor=self._scheduler["factor"],
                patience=self._scheduler["patience"],
            )
            return {"scheduler": plateau, "monitor": self.monitor}
        return None


def _keep_epsilon(optimizer: torch.optim.Optimizer) -> None:
    """Raise an optimiser's epsilon to what float16 holds: 1e-8 would be 0 there, and the first step no number."""
    for group in optimizer.param_groups:
        half = any(parameter.dtype == torch.float16 for parameter in group["params"])
        if half and isinstance(group.get("eps"), float):
            group["eps"] = max(group["eps"], HALF_EPSILON)


def of_all_ranks(part: T) -> list[T]:
    """A value of this process, and in a distributed run those of the others, in the order of ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [part]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, part)
    return parts
