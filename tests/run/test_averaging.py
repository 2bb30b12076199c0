"""The running average of the weights: what it is, and that it is what is judged and kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from busi_lab.run.averaging import WeightAverage
from busi_lab.run.checkpoints import BestCheckpoint, LastCheckpoint
from busi_lab.run_directory import read_run
from busi_lab.summary import read_summary
from busi_lab.tasks import load_task
from tests.programs import Programs, call
from tests.tasks.test_tasks import make_batches, make_task, make_trainer

DECAY = 0.3
FAST = ("trainer=smoke", "trainer.accelerator=cpu", "model.backbone=test_efficientnet", "data.image_size=32")
AVERAGED = (*FAST, "logger=none", "optim.lr=1e-2", "ema=0.9", "trainer.max_epochs=3", "callbacks.last.keep=true")


def values(task: LightningModule) -> dict[str, Tensor]:
    network: Any = task.network
    return {name: value.clone() for name, value in network.state_dict().items()}


class Watched(Callback):
    """Keeps the weights after each step and in each validation."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps.append(values(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == len(self.steps):
            self.steps.append(values(pl_module))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated.append(values(pl_module))


@pytest.mark.parametrize("frozen", [False, True])
def test_the_average_is_that_of_the_steps_and_is_what_is_validated_and_kept(tmp_path: Path, frozen: bool) -> None:
    task = make_task({"freeze": "backbone", "unfreeze_epoch": 1} if frozen else None)
    watched, batches = Watched(), make_batches(8, batch_size=2)
    best = BestCheckpoint(tmp_path / "checkpoints", "val/loss", "min")
    callbacks = [WeightAverage(DECAY), watched, best, LastCheckpoint(tmp_path / "checkpoints")]
    options: dict[str, Any] = {"max_epochs": 3, "accumulate_grad_batches": 2, "num_sanity_val_steps": 0}
    options |= {"callbacks": callbacks, "enable_checkpointing": True}
    make_trainer(tmp_path, **options).fit(task, batches, make_batches(4))
    assert len(watched.steps) == 1 + 3 * 2
    expected, averages = watched.steps[0], []
    for number, weights in enumerate(watched.steps[1:], start=1):
        decay = min(DECAY, (1 + number) / (10 + number))
        expected = {
            name: decay * value + (1 - decay) * weights[name] if value.is_floating_point() else weights[name]
            for name, value in expected.items()
        }
        averages.append(expected)
    moved = False
    for seen, average, weights in zip(watched.validated, averages[1::2], watched.steps[2::2], strict=True):
        for name, value in average.items():
            torch.testing.assert_close(seen[name], value)
        moved |= any(not torch.allclose(seen[name], weights[name]) for name in seen)
    assert moved
    kept = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    for name, value in watched.validated[kept["epoch"]].items():
        assert torch.equal(kept["state_dict"][f"network.{name}"], value)
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    saved = last["callbacks"]["WeightAverage"]["average"]
    for name, value in watched.steps[-1].items():
        assert torch.equal(last["state_dict"][f"network.{name}"], value)  # the weights themselves, and beside them
        assert name not in saved or torch.equal(saved[name], watched.validated[-1][name])


def test_the_best_epoch_is_tested_with_the_average_that_was_validated(phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert call("train", f"data.root={phantom_root}", *AVERAGED, f"hydra.run.dir={run}") == 0
    summary, epochs = read_summary(run), read_run(run).epochs
    recorded = float(epochs[int(summary.best_epoch or 0)]["val/loss"])
    assert summary.metrics["val/loss"] == pytest.approx(recorded, rel=1e-5)
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    task, _ = load_task(run)
    assert any(not torch.equal(value, last["state_dict"][name]) for name, value in task.state_dict().items())


@pytest.mark.slow
def test_two_processes_keep_one_average(programs: Programs, phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    distributed = ("trainer.devices=2", "+trainer.strategy=ddp", f"hydra.run.dir={run}")
    programs.run("train", f"data.root={phantom_root}", *AVERAGED, *distributed, cwd=tmp_path)
    summary, epochs = read_summary(run), read_run(run).epochs
    recorded = float(epochs[int(summary.best_epoch or 0)]["val/loss"])
    assert summary.metrics["val/loss"] == pytest.approx(recorded, rel=1e-5)
