"""Checkpoints of a run: the state that it continues from, the weights of its best epoch, and how both are written."""

import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from busi_lab.locks import refuse_lost
from busi_lab.run.stop import Interrupted, StopRequest


class LastCheckpoint(Callback):
    """Save everything that resuming needs, once an epoch and when asked to stop.

    A checkpoint is written just before the first batch of the next epoch, when schedulers and all other callbacks
    are done with the one before, and at the end. It replaces the one before, which is kept as ``previous.ckpt``
    until the run ends, by a rename, so that at any moment a whole checkpoint is there.

    Args:
        dirpath: folder of the checkpoints.
        keep: leave ``last.ckpt`` of a finished run where it is; it has the optimiser's state.
    """

    def __init__(self, dirpath: str | Path, keep: bool = False) -> None:
        self._path = Path(dirpath) / "last.ckpt"
        self._keep = keep
        self.stop = StopRequest()
        self.fit_finished = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to note signals instead of dying from them."""
        self.stop.training = True
        self.stop.install()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save at the start of an epoch, and anywhere when asked to stop.

        Raises:
            Interrupted: asked to stop; the state is saved.
        """
        stopping = self.stop.requested()
        if trainer.world_size > 1:
            stopping = trainer.strategy.reduce_boolean_decision(stopping, all=False)
        stopping = stopping and batch_idx % trainer.accumulate_grad_batches == 0  # gradients are not in checkpoints
        if stopping or (batch_idx == 0 and trainer.current_epoch > 0):
            self._save(trainer)
        if stopping:
            raise Interrupted(self.stop.signum or signal.SIGTERM)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state; what is left can be repeated from it."""
        self.fit_finished = True
        self._save(trainer)
        self.stop.training = False
        if trainer.is_global_zero:
            self._path.with_name("previous.ckpt").unlink(missing_ok=True)
        if self.stop.signum is not None:
            raise Interrupted(self.stop.signum)

    def discard(self) -> None:
        """Remove the state of a run that is finished and on record, and so will not be continued."""
        if not self._keep:
            for name in ("last.ckpt", "previous.ckpt"):
                self._path.with_name(name).unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """Whether fitting has ended, by its epochs or early: then nothing is left to fit."""
        return {"fit_finished": self.fit_finished}

    def _save(self, trainer: Trainer) -> None:
        newest = self._path.with_name("newest.ckpt")
        trainer.save_checkpoint(newest, weights_only=False)
        if trainer.is_global_zero:
            if self._path.exists():
                self._path.replace(self._path.with_name("previous.ckpt"))
            newest.replace(self._path)


class BestCheckpoint(ModelCheckpoint):
    """Keep the weights of the best epoch as ``best.ckpt``, also after the run directory was moved.

    Args:
        dirpath: folder of the checkpoints.
        monitor: validation metric.
        mode: ``max`` or ``min``.
    """

    def __init__(self, dirpath: str | Path, monitor: str, mode: str) -> None:
        super().__init__(
            dirpath, "best", monitor=monitor, mode=mode, save_weights_only=True, enable_version_counter=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state up with paths as they are now; Lightning forgets the best epoch when they differ."""
        path = str(Path(str(self.dirpath)) / "best.ckpt")
        scores = list(state_dict["best_k_models"].values())
        best = {path: scores[0]} if scores else {}
        moved = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path, "best_k_models": best}
        super().load_state_dict({**state_dict, **moved})


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place and rename it: never a part of one, and not through another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save ``checkpoint`` as ``path``.

        Raises:
            UserError: another process has taken the run directory over.
        """
        target = Path(path)
        refuse_lost(target)
        temporary = target.with_name(f".{target.name}.tmp")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                if target.name == "best.ckpt":  # no other copy of it is there; of the state, the one before is
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
                raise error.__context__ from None  # torch hides a full disk behind an error of its own
            raise
