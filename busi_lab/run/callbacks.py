"""What happens round the epochs of a run: its record, its console lines, its random state, its pictures."""

import csv
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from busi_lab.errors import UserError
from busi_lab.files import read_rows, write_rows
from busi_lab.run_directory import METRICS, PRUNE

log = logging.getLogger(__name__)


class EpochSeed(Callback):
    """Make the random state of an epoch a function of seed and epoch, and keep it in checkpoints."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._restored: dict[str, Any] | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed torch, which draws dropout."""
        torch.manual_seed((self._seed * 1_000_003 + trainer.current_epoch * 1009 + trainer.global_rank) % 2**63)

    def state_dict(self) -> dict[str, Any]:
        """The state of torch's generators, within an epoch."""
        state = {"cpu": torch.get_rng_state()}
        return {**state, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training goes on."""
        self._restored = state_dict

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Continue where the checkpoint was saved; not earlier, since iterators draw from the generator, too."""
        if self._restored is not None:
            torch.set_rng_state(self._restored["cpu"])
            if "cuda" in self._restored and torch.cuda.is_available():
                torch.cuda.set_rng_state(self._restored["cuda"])
            self._restored = None


class MaskPanel(Callback):
    """Show what the network makes of the same few scans while it learns.

    Args:
        scans: items of a dataset with ``image``, ``mask`` and ``case_id``.
        every: epochs between two showings; the first epoch is shown.
        publish: called with the epoch and, for each scan, its case id, image, true and predicted mask, uint8
            ``[S, S]``.
    """

    def __init__(
        self,
        scans: Sequence[dict[str, Any]],
        every: int,
        publish: Callable[[int, list[tuple[str, Any, Any, Any]]], None],
    ) -> None:
        self._scans = scans
        self._every = every
        self._publish = publish

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict the scans, in one batch."""
        if trainer.state.fn != "fit" or trainer.current_epoch % self._every or not trainer.is_global_zero:
            return
        task: Any = pl_module
        images = torch.stack([scan["image"] for scan in self._scans]).to(task.device)
        with trainer.precision_plugin.forward_context():
            predicted = task.predict_masks(images).byte().cpu().numpy()
        shown = [
            (scan["case_id"], scan["image"][0].numpy(), scan["mask"][0].numpy(), mask[0])
            for scan, mask in zip(self._scans, predicted, strict=True)
        ]
        self._publish(trainer.current_epoch, shown)


class EpochRecord(Checkpoint):
    """Keep ``metrics.csv``, a row an epoch, and say how the run goes.

    Stops with an error when a figure or a weight is no longer finite. It counts as a checkpoint callback, and must be
    the first, because Lightning calls these after the task has logged its epoch.

    Args:
        directory: the run directory.

    Attributes:
        publish: called with each row, for trackers.
        publish_earlier: called with the rows that a continued run builds on, for trackers.
        pruned: whether a search has ended the run, by a file ``prune`` in its directory.
    """

    def __init__(self, directory: str | Path) -> None:
        self._path = Path(directory) / METRICS
        self.publish: Callable[[dict[str, Any]], None] | None = None
        self.publish_earlier: Callable[[Sequence[dict[str, str]]], None] | None = None
        self.pruned = False
        self._started = self._trained = 0.0
        self._images = 0
        self._validated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and keep only the rows of the epochs that a resumed run builds on."""
        rows = [row for row in read_rows(self._path) if int(row["epoch"]) < trainer.current_epoch]
        if trainer.is_global_zero:
            if rows:
                write_rows(self._path, rows, rows[0])
                if self.publish_earlier is not None:
                    self.publish_earlier(rows)
            else:
                self._path.unlink(missing_ok=True)
        self._restart_clock()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._restart_clock()
        self._validated = False

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the figures of validation are those of this epoch; Lightning keeps those of the one before."""
        self._validated = True

    def _restart_clock(self) -> None:
        self._started = self._trained = time.perf_counter()
        self._images = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images, and stop the clock with the last batch, before validation."""
        self._images += len(batch["image"]) * trainer.world_size
        if batch_idx + 1 == trainer.num_training_batches and torch.cuda.is_available():
            torch.cuda.synchronize()
        self._trained = time.perf_counter()  # after each batch: max_steps and max_time may make it the last

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row."""
        speed = self._images / max(self._trained - self._started, 1e-9)
        namespaces = ("train", "val") if self._validated else ("train",)  # an epoch may be cut before validation
        known = trainer.callback_metrics.items()
        values = {key: float(value) for key, value in known if key.split("/")[0] in namespaces and "/" in key}
        row = {
            "epoch": trainer.current_epoch,
            **{key: values[key] for key in sorted(values)},
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "images_per_second": speed,
            "seconds": time.perf_counter() - self._started,
        }
        if trainer.is_global_zero:
            self._append(row)
            log.info(self._line(row, trainer, pl_module))
            if self.publish is not None:
                self.publish(row)
        if self._validated and (monitor := getattr(pl_module, "monitor", "")) and monitor not in values:
            raise UserError(
                f"task.monitor={monitor}: no validation image defines it; set task.monitor to another metric, such as "
                "val/loss, or change data.classes"
            )
        self._refuse_divergence(values, trainer, pl_module)
        last = trainer.current_epoch + 1 == trainer.max_epochs  # then nothing is saved by pruning, and the run is whole
        asked = not last and self._path.with_name(PRUNE).exists()
        if trainer.strategy.reduce_boolean_decision(asked, all=False):
            self.pruned = trainer.should_stop = True

    def _refuse_divergence(self, values: dict[str, float], trainer: Trainer, task: LightningModule) -> None:
        """A network that has diverged goes on giving figures, and even good ones: NaN is never above a threshold."""
        advice = f"in epoch {trainer.current_epoch}; lower optim.lr or look at the data"
        names = {"train/loss": "the training loss", "val/loss": "the validation loss"}
        for key in dict.fromkeys((*names, *values)):
            if not math.isfinite(values.get(key, 0.0)):
                raise UserError(f"{names.get(key, key)} became {values[key]} {advice}")
        for name, tensor in (*task.named_parameters(), *task.named_buffers()):
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise UserError(f"the weights {name} became infinite or no numbers {advice}")

    def _append(self, row: dict[str, Any]) -> None:
        """Append a row and flush it; a new column, which no epoch before had, rewrites the file."""
        rows = read_rows(self._path)
        if rows and list(rows[0]) == list(row):
            with self._path.open("a", encoding="utf-8", newline="") as file:
                cells = [f"{value:.7g}" if isinstance(value, float) else value for value in row.values()]
                csv.writer(file, lineterminator="\n").writerow(cells)
        else:
            columns = list(dict.fromkeys([*(rows[0] if rows else ()), *row]))
            write_rows(self._path, [*rows, row], columns)

    def _line(self, row: dict[str, Any], trainer: Trainer, task: LightningModule) -> str:
        monitor = str(getattr(task, "monitor", "val/loss"))
        shown = dict.fromkeys(("train/loss", "val/loss", monitor))
        parts = [f"{name} {row[name]:.4f}" for name in shown if name in row]
        return (
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {'  '.join(parts)}  "
            f"{row['images_per_second']:.0f} images/s"
        )
