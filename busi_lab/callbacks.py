"""What happens round the epochs of a run: its record, its console lines, its random state."""

import csv
import logging
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from busi_lab.errors import UserError
from busi_lab.run_directory import METRICS, read_rows, write_rows

log = logging.getLogger(__name__)


class EpochSeed(Callback):
    """Make the random state of an epoch a function of seed and epoch, so that resuming changes nothing."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed torch, which draws dropout."""
        torch.manual_seed((self._seed * 1_000_003 + trainer.current_epoch * 1009 + trainer.global_rank) % 2**63)


class EpochRecord(Checkpoint):
    """Keep ``metrics.csv``, a row an epoch, and say how the run goes.

    Stops with an error when the training loss is no longer finite. It counts as a checkpoint callback, and must be
    the first, because Lightning calls these after the task has logged its epoch: a row is written just before the
    checkpoint of its epoch.

    Args:
        directory: the run directory.
    """

    def __init__(self, directory: str | Path) -> None:
        self._path = Path(directory) / METRICS
        self._started = self._trained = 0.0
        self._images = 0
        self._speeds: list[float] = []

    @property
    def images_per_second(self) -> float | None:
        """Median speed of the training loop over epochs, the first left out where there are more."""
        speeds = self._speeds[1:] or self._speeds
        return statistics.median(speeds) if speeds else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the rows of the epochs that a resumed run builds on."""
        rows = [row for row in read_rows(self._path) if int(row["epoch"]) < trainer.current_epoch]
        if trainer.is_global_zero:
            if rows:
                write_rows(self._path, rows, rows[0])
            else:
                self._path.unlink(missing_ok=True)
        self._speeds = [float(row["images_per_second"]) for row in rows]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()
        self._images = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images and stop the clock with the last batch, before validation."""
        self._images += len(batch["image"]) * trainer.world_size
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or batch_idx + 1 == trainer.num_training_batches:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self._trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row."""
        speed = self._images / max(self._trained - self._started, 1e-9)
        self._speeds.append(speed)
        values = {key: float(value) for key, value in trainer.callback_metrics.items() if "/" in key}
        row = {
            "epoch": trainer.current_epoch,
            **{key: values[key] for key in sorted(values) if key.split("/")[0] in ("train", "val")},
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "images_per_second": speed,
            "seconds": time.perf_counter() - self._started,
        }
        if trainer.is_global_zero:
            self._append(row)
            log.info(self._line(row, trainer, pl_module))
        if not math.isfinite(values.get("train/loss", 0.0)):
            raise UserError(
                f"the training loss became {values['train/loss']} in epoch {trainer.current_epoch}; "
                "lower optim.lr or look at the data"
            )

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
