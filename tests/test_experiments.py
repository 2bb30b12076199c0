"""Every shipped experiment is built as it is written, learns from one batch, and comes back from its checkpoint."""

import io
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from busi_lab.classes import BUSI
from busi_lab.run.build import build_task
from tests.test_config import CONF, EXPERIMENTS, load

LARGE = ("vgg1", "resnet50", "resnext50", "inception_v3", "convnext", "efficientnetv2", "vit_small")
"""Seconds each, or half a gigabyte of weights."""
SIZES = {"inception_v3": 80, "legacy_xception": 80}  # pixels; the others take 64


def described(experiment: str) -> str:
    return (CONF / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8")


CASES = [
    pytest.param(name, marks=[pytest.mark.slow] if any(word in described(name) for word in LARGE) else [])
    for name in EXPERIMENTS
]


def batches(size: int) -> DataLoader[dict[str, object]]:
    random = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, size, size, dtype=torch.uint8)
    mask[:, 10:30, 12:40] = 1
    items = [
        {
            "image": torch.randint(0, 256, (1, size, size), dtype=torch.uint8, generator=random),
            "mask": mask * (label < 2),
            "label": label,
            "case_id": f"{label}",
        }
        for label in (0, 2)
    ]
    return DataLoader(items, batch_size=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("experiment", CASES)
def test_an_experiment_learns_and_comes_back(experiment: str, tmp_path: Path) -> None:
    size = next((size for word, size in SIZES.items() if word in described(experiment)), 64)
    task = build_task(load(f"experiment={experiment}", "model.weights=none", f"data.image_size={size}"), BUSI)
    before = [parameter.detach().clone() for parameter in task.head_parameters()]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(default_root_dir=tmp_path, max_epochs=1, enable_checkpointing=False, **quiet)  # type: ignore[arg-type]
    trainer.fit(task, batches(size), batches(size))
    assert torch.isfinite(task.results["train"]["loss"])
    assert any(not torch.equal(*pair) for pair in zip(before, task.head_parameters(), strict=True))
    checkpoint = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    task.on_save_checkpoint(checkpoint)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    content = torch.load(file, weights_only=True)
    again = type(task)(**content["hyper_parameters"])
    again.load_state_dict(content["state_dict"])
    image = next(iter(batches(size)))["image"]
    task.eval(), again.eval()
    with torch.no_grad():
        for ours, theirs in zip(task(image), again(image), strict=True):
            assert ours is theirs is None or torch.equal(ours, theirs)
