"""The rates of ``scheduler=warmup_cosine``, step by step."""

import math
from pathlib import Path
from typing import Any

import pytest
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tests.tasks.test_tasks import OPTIM, make_batches, make_task, make_trainer


class Rates(Callback):
    """Notes the rates that each step is made with."""

    def __init__(self) -> None:
        self.found: list[list[float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.found.append([group["lr"] for group in optimizer.param_groups])


def test_rates_rise_and_fall_by_steps_to_their_share_in_every_group(tmp_path: Path) -> None:
    scheduler = {"name": "warmup_cosine", "warmup_fraction": 0.34, "final": 0.1}
    task, rates = make_task(scheduler=scheduler, optim={**OPTIM, "backbone_lr": 1e-4}), Rates()
    options = {"max_epochs": 3, "accumulate_grad_batches": 2, "callbacks": [rates]}
    make_trainer(tmp_path, **options).fit(task, make_batches(12, batch_size=2))  # nine steps
    falling = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 5)) / 2 for step in range(6)]
    expected = [0.25, 0.5, 0.75, *falling]
    assert falling[0] == 1 and falling[-1] == pytest.approx(0.1)
    for place, peak in enumerate((1e-3, 1e-4)):
        assert [step[place] / peak for step in rates.found] == pytest.approx(expected)
