"""A callback for runs that tests stop in the middle."""

import time

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class Slow(Callback):
    """Waits before each training batch, so that a test can stop a run of a small network in the middle of an epoch."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        time.sleep(0.02)
