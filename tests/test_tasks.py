"""ClassificationTask: scaling, freezing, optimisers, checkpoints, and that it learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader

from busi_lab.callbacks import AtomicCheckpointIO
from busi_lab.experiment import _build_trainer, _trainer_settings
from busi_lab.tasks import ClassificationTask
from tests.test_config import load

OPTIM = {"name": "adam", "lr": 1e-3, "weight_decay": 0.0, "backbone_lr": None}
SCHEDULER = {"name": "none", "warmup_fraction": 0.3, "factor": 0.3, "patience": 5}


def make_task(model: dict[str, Any] | None = None, **changes: Any) -> ClassificationTask:
    settings = {"name": "timm", "backbone": "mobilenetv1_100", "weights": "none", "in_chans": 3, "dropout": 0.0}
    arguments: dict[str, Any] = {"image_size": 64, "optim": OPTIM, "scheduler": SCHEDULER, **changes}
    return ClassificationTask(model={**settings, "freeze": "none", **(model or {})}, **arguments)


def make_batches(count: int = 4, size: int = 64, batch_size: int = 4) -> DataLoader[dict[str, Any]]:
    random = torch.Generator().manual_seed(0)
    items = [
        {
            "image": torch.randint(0, 256, (1, size, size), dtype=torch.uint8, generator=random),
            "label": number % 3,
            "case_id": f"case ({number})",
        }
        for number in range(count)
    ]
    return DataLoader(items, batch_size=batch_size)  # type: ignore[arg-type]


def make_trainer(path: Path, **settings: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=path, **{"enable_checkpointing": False, **quiet, **settings})


def test_scaling_of_bytes() -> None:
    scaled = make_task().scale(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 64, 64))
    assert scaled.shape == (2, 3, 64, 64)
    assert (scaled[0] == -1).all()  # MobileNetV1: mean and std 0.5
    assert (scaled[1] == 1).all()
    cnn = make_task({"name": "custom_cnn", "backbone": None, "in_chans": 1})
    assert cnn.scale(torch.full((1, 1, 64, 64), 51, dtype=torch.uint8)).unique().tolist() == pytest.approx([0.2])


def test_learns_four_images_by_heart(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    task = make_task()
    batches = make_batches()
    make_trainer(tmp_path, max_epochs=25).fit(task, batches)
    task.eval()
    batch = next(iter(batches))
    task.train()  # batch statistics: running ones lag behind after 25 steps
    with torch.no_grad():
        assert task(batch["image"]).argmax(1).tolist() == batch["label"].tolist()


def test_frozen_backbone_changes_in_nothing(tmp_path: Path) -> None:
    task = make_task({"freeze": "backbone"})
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    make_trainer(tmp_path, max_epochs=2).fit(task, make_batches())
    after = task.network.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    task.train()
    assert not any(module.training for module in task.network.modules() if isinstance(module, nn.BatchNorm2d))


def test_unfrozen_batch_norm_learns(tmp_path: Path) -> None:
    task = make_task()
    before = task.network.bn1.running_mean.clone()
    make_trainer(tmp_path, max_epochs=1).fit(task, make_batches())
    assert not torch.equal(before, task.network.bn1.running_mean)


def test_backbone_learning_rate() -> None:
    task = make_task(optim={**OPTIM, "backbone_lr": 1e-5})
    groups = {len(group["params"]): group["lr"] for group in task.configure_optimizers().param_groups}
    heads, backbone = len(task.head_parameters()), len(task.backbone_parameters())
    assert groups == {heads: 1e-3, backbone: 1e-5}
    assert heads + backbone == len(list(task.network.parameters()))


@pytest.mark.parametrize(("name", "expected"), [("none", 1e-3), ("cosine", 0.0), ("onecycle", 4e-9)])
def test_schedulers_end_where_they_should(tmp_path: Path, name: str, expected: float) -> None:
    task = make_task(scheduler={**SCHEDULER, "name": name})
    trainer = make_trainer(tmp_path, max_epochs=3)
    trainer.fit(task, make_batches(8))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(expected, abs=1e-8)


def test_plateau_lowers_the_rate(tmp_path: Path) -> None:
    task = make_task(scheduler={**SCHEDULER, "name": "plateau", "patience": 0}, optim={**OPTIM, "lr": 1e-6})
    trainer = make_trainer(tmp_path, max_epochs=4, num_sanity_val_steps=0)
    trainer.fit(task, make_batches(), make_batches())
    assert trainer.optimizers[0].param_groups[0]["lr"] < 1e-6


def test_checkpoint_rebuilds_the_task_without_weight_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = make_task().network.state_dict()
    torch.save(save, tmp_path / "start.pth")
    task = make_task({"weights": str(tmp_path / "start.pth")}, class_weights=[1.0, 2.0, 3.0], label_smoothing=0.1)
    trainer = make_trainer(tmp_path, max_epochs=1, enable_checkpointing=True)
    trainer.fit(task, make_batches())
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    (tmp_path / "start.pth").unlink()
    again = ClassificationTask.load_from_checkpoint(tmp_path / "task.ckpt", weights_only=True, map_location="cpu")
    image = next(iter(make_batches()))["image"]
    task.eval(), again.eval()
    with torch.no_grad():
        assert torch.equal(task(image), again(image))
    assert again.hparams["label_smoothing"] == 0.1


def test_loss_options_apply_to_training_alone() -> None:
    plain, weighted = make_task(), make_task(class_weights=[1.0, 5.0, 1.0], label_smoothing=0.2)
    weighted.load_state_dict(plain.state_dict())
    plain.eval(), weighted.eval()
    batch = next(iter(make_batches()))
    logits = plain(batch["image"])
    expected = nn.functional.cross_entropy(
        logits, batch["label"], weight=torch.tensor([1.0, 5.0, 1.0]), label_smoothing=0.2
    )
    assert weighted._step(batch, "train").item() == pytest.approx(expected.item(), rel=1e-5)
    assert weighted._step(batch, "val").item() == pytest.approx(plain._step(batch, "val").item(), rel=1e-5)


def test_predictions_are_those_of_the_logits(tmp_path: Path) -> None:
    task = make_task()
    make_trainer(tmp_path).test(task, make_batches(7, batch_size=3), verbose=False)
    rows = task.predictions()
    assert [row["image"] for row in rows] == sorted(f"case ({number})" for number in range(7))
    for row in rows:
        scores = {name: row[f"p_{name}"] for name in ("benign", "malignant", "normal")}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == max(scores, key=scores.__getitem__)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2, "bad": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["best.ckpt"]


def test_runs_write_checkpoints_through_it(tmp_path: Path) -> None:
    config = load("model=custom_cnn", "data.image_size=32", "logger=none", "callbacks.last=null", "callbacks.best=null")
    trainer = _build_trainer(_trainer_settings(config.trainer), [], config)
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
