"""Tasks: scaling, freezing, optimisers, checkpoints, masks, and that they learn."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader

from busi_lab.errors import UserError
from busi_lab.metrics import SEGMENTATION_METRICS
from busi_lab.run.build import build_trainer, trainer_settings
from busi_lab.run.checkpoints import AtomicCheckpointIO
from busi_lab.tasks import ClassificationTask, MaskTask, MultiTask, SegmentationTask
from busi_lab.tasks.segmentation import CANDIDATES
from tests.test_config import load

OPTIM = {"name": "adam", "lr": 1e-3, "weight_decay": 0.0, "backbone_lr": None}
SCHEDULER = {"name": "none", "warmup_fraction": 0.3, "factor": 0.3, "patience": 5}


def make_task(model: dict[str, Any] | None = None, **changes: Any) -> ClassificationTask:
    settings = {"name": "timm", "backbone": "test_efficientnet", "weights": "none", "in_chans": 3, "dropout": 0.0}
    arguments: dict[str, Any] = {"image_size": 64, "optim": OPTIM, "scheduler": SCHEDULER, **changes}
    return ClassificationTask(model={**settings, "freeze": "none", **(model or {})}, **arguments)


def make_mask(size: int, number: int) -> torch.Tensor:
    """A rectangle, uint8 ``[1, size, size]``; none in every third."""
    mask = torch.zeros(1, size, size, dtype=torch.uint8)
    if number % 3 < 2:
        mask[:, 8 + 2 * number : 40, 12 : 30 + 2 * number] = 1
    return mask


def make_batches(count: int = 4, size: int = 64, batch_size: int = 4) -> DataLoader[dict[str, Any]]:
    random = torch.Generator().manual_seed(0)
    items = [
        {
            "image": torch.randint(0, 256, (1, size, size), dtype=torch.uint8, generator=random),
            "mask": make_mask(size, number),
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
    mobilenet = make_task({"backbone": "mobilenetv1_100"})
    scaled = mobilenet.scale(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 64, 64))
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
        assert task(batch["image"]).classes.argmax(1).tolist() == batch["label"].tolist()


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
        assert torch.equal(task(image).classes, again(image).classes)
    assert again.hparams["label_smoothing"] == 0.1


def test_loss_options_apply_to_training_alone() -> None:
    plain, weighted = make_task(), make_task(class_weights=[1.0, 5.0, 1.0], label_smoothing=0.2)
    weighted.load_state_dict(plain.state_dict())
    plain.eval(), weighted.eval()
    batch = next(iter(make_batches()))
    logits = plain(batch["image"]).classes
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
    trainer = build_trainer(trainer_settings(config.trainer), [], tmp_path)
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)


SMALL = {"name": "smp", "arch": "Unet", "encoder": "tu-test_efficientnet"}
"""A network of a few layers, where the architecture does not matter."""
PUBLISHED = {"name": "mobilenet_unet", "arch": None, "encoder": None}
REST = {"weights": "none", "in_chans": 3, "dropout": 0.0, "freeze": "none"}


def make_mask_task(kind: type[MaskTask] = SegmentationTask, model: dict[str, Any] | None = None, **more: Any) -> Any:
    arguments = {"image_size": 64, "optim": OPTIM, "scheduler": SCHEDULER, "loss": {"bce": 1.0, "dice": 1.0}, **more}
    return kind(model={**SMALL, **REST, **(model or {})}, **arguments)  # type: ignore[arg-type]


def scans_with_lesions(count: int) -> DataLoader[dict[str, Any]]:
    """Bright lesions on noise."""
    random = torch.Generator().manual_seed(0)
    items = []
    for number in range(count):
        mask = make_mask(64, number % 2 + number // 2 * 3)
        image = torch.randint(0, 120, (1, 64, 64), generator=random).to(torch.uint8) + 80 * mask
        items.append({"image": image, "mask": mask, "label": number % 3, "case_id": f"case ({number})"})
    return DataLoader(items, batch_size=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [SegmentationTask, MultiTask])
def test_learns_the_masks_of_eight_images_by_heart(tmp_path: Path, kind: type[MaskTask]) -> None:
    seed_everything(0, verbose=False)
    task = make_mask_task(kind, optim={**OPTIM, "lr": 3e-3})
    scans = scans_with_lesions(8)
    make_trainer(tmp_path, max_epochs=14).fit(task, scans)
    assert task.results["train"]["dice"].item() > 0.95


def test_the_published_unet_learns(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    task = make_mask_task(model=PUBLISHED)
    make_trainer(tmp_path, max_epochs=4).fit(task, scans_with_lesions(4))
    assert task.results["train"]["dice"].item() > 0.7


def test_metrics_and_rows_follow_from_the_masks(tmp_path: Path) -> None:
    task = make_mask_task()
    make_trainer(tmp_path).test(task, make_batches(7, batch_size=3), verbose=False)
    rows, masks = task.predictions(), task.predicted_masks()
    assert [row["image"] for row in rows] == sorted(masks)
    for row in rows:
        number = int(row["image"].split("(")[1][:-1])
        truth, mask = make_mask(64, number)[0].bool().numpy(), masks[row["image"]]
        assert (row["lesion_pixels"], row["predicted_pixels"], row["pixels"]) == (truth.sum(), mask.sum(), 64 * 64)
        if truth.any():
            hits = (truth & mask).sum()
            assert row["dice"] == pytest.approx(2 * hits / (truth.sum() + mask.sum()))
        else:
            assert row["dice"] is None
            assert row["iou"] is None
    dice = [row["dice"] for row in rows if row["dice"] is not None]
    assert task.results["test"]["dice"].item() == pytest.approx(sum(dice) / len(dice))


def test_metrics_are_the_same_for_any_batch_size(tmp_path: Path) -> None:
    task = make_mask_task(MultiTask)
    values = []
    for size in (1, 3, 7):
        make_trainer(tmp_path).test(task, make_batches(7, batch_size=size), verbose=False)
        values.append({name: value.flatten().tolist() for name, value in task.results["test"].items()})
    assert {*SEGMENTATION_METRICS, "accuracy", "f1_dice"} - {"hd95_pixels", "hd95_mm"} <= set(values[0])
    for other in values[1:]:
        for name, value in values[0].items():
            assert other[name] == pytest.approx(value, abs=1e-5), name


def test_masks_at_the_scans_own_resolution(tmp_path: Path) -> None:
    task = make_mask_task(resolution="original")
    sizes = [(90, 120), (64, 64), (200, 50)]
    scans = list(make_batches(3, batch_size=1))
    for scan, (height, width) in zip(scans, sizes, strict=True):
        scan["original_mask"] = [torch.ones(1, height, width, dtype=torch.bool)]
    make_trainer(tmp_path).test(task, DataLoader(scans, batch_size=None), verbose=False)  # type: ignore[arg-type]
    assert [(row["pixels"], row["lesion_pixels"]) for row in task.predictions()] == [(h * w, h * w) for h, w in sizes]
    assert [mask.shape for mask in task.predicted_masks().values()] == sizes


def test_the_threshold_with_the_highest_dice_on_validation_is_chosen_and_kept(tmp_path: Path) -> None:
    task = make_mask_task(threshold="val")
    truth = make_mask(64, 0).bool()
    # lesion pixels at 0.42, a border at 0.3: only thresholds between cut it off
    scores = torch.where(truth, torch.tensor(0.42), torch.tensor(0.05))
    scores[:, 40:44, 12:30] = 0.3
    logits = torch.logit(scores)[None]
    counts = task.masks.count(logits, {"mask": truth[None].byte()}, "val")
    values = task.masks.summarize("val", counts)
    assert 0.3 < task.masks.threshold.item() <= 0.42
    assert task.masks.threshold.item() in [pytest.approx(candidate) for candidate in CANDIDATES]
    assert values["dice"].item() == 1
    trainer = make_trainer(tmp_path, max_epochs=1, enable_checkpointing=True)
    trainer.fit(task, make_batches(), make_batches())
    task.masks.threshold.fill_(0.35)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    again = SegmentationTask.load_from_checkpoint(tmp_path / "task.ckpt", weights_only=True, map_location="cpu")
    assert again.masks.threshold.item() == pytest.approx(0.35)


def one_pixel_apart(threshold: float | str) -> tuple[SegmentationTask, torch.Tensor, dict[str, torch.Tensor]]:
    """A lesion of one pixel, whose prediction at 0.3 lies four columns and three rows away, and at 0.5 is empty."""
    task = make_mask_task(threshold=threshold)
    truth = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    truth[0, 0, 10, 10] = 1
    scores = torch.full((1, 1, 64, 64), 0.01)
    scores[0, 0, 13, 14] = 0.3
    batch = {"mask": truth, "size": torch.tensor([[128, 256]]), "spacing": torch.tensor([[0.1, 0.2]])}
    return task, torch.logit(scores), batch


def test_hausdorff_distances_are_in_pixels_of_the_scan_and_in_millimetres() -> None:
    task, logits, batch = one_pixel_apart(0.3 - 1e-3)
    for split in ("val", "test"):
        values = task.masks.summarize(split, task.masks.count(logits, batch, split))
        # 3 rows of 64 are 6 of 128, 4 columns of 64 are 16 of 256; 0.6 mm and 3.2 mm
        assert values["hd95_pixels"].item() == pytest.approx(math.hypot(6, 16))
        assert values["hd95_mm"].item() == pytest.approx(math.hypot(0.6, 3.2))
    del batch["spacing"]
    assert "hd95_mm" not in task.masks.summarize("val", task.masks.count(logits, batch, "val"))
    del batch["size"]  # then the scan is as large as its mask
    values = task.masks.summarize("val", task.masks.count(logits, batch, "val"))
    assert values["hd95_pixels"].item() == pytest.approx(5)


def test_hausdorff_distances_are_those_of_the_threshold_that_the_epoch_chooses() -> None:
    task, logits, batch = one_pixel_apart("val")
    logits[0, 0, 10, 10] = torch.logit(torch.tensor(0.41))
    gathered = task.masks.count(logits, batch, "val")
    values = task.masks.summarize("val", gathered)
    assert 0.3 < task.masks.threshold.item() < 0.41  # it leaves the far pixel out, which 0.3 and below would not
    assert values["dice"].item() == 1 and values["hd95_pixels"].item() == 0
    assert task.masks.columns(gathered)["hd95_pixels"] == [0.0]
    batch["mask"][0, 0, 13, 14] = 1  # now a low threshold is better, and 0.5 before the choice would find nothing
    batch["mask"][0, 0, 10, 10] = 0
    logits[0, 0, 10, 10] = torch.logit(torch.tensor(0.02))
    values = task.masks.summarize("val", task.masks.count(logits, batch, "val"))
    assert task.masks.threshold.item() < 0.31 and values["hd95_pixels"].item() == 0 and not task.masks.tried


def test_the_joint_loss_is_the_weighted_sum_of_both() -> None:
    task = make_mask_task(MultiTask, classification_weight=2.0, segmentation_weight=0.5)
    task.eval()
    batch = next(iter(make_batches()))
    outputs = task(batch["image"])
    classes = task.classes.loss(outputs.classes, batch["label"], "val")
    masks = task.masks.loss(outputs.masks, batch["mask"])
    assert task._step(batch, "val").item() == pytest.approx((2 * classes + 0.5 * masks).item(), rel=1e-5)


def test_a_frozen_encoder_trains_both_heads(tmp_path: Path) -> None:
    task = make_mask_task(MultiTask, {"freeze": "backbone"})
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    make_trainer(tmp_path, max_epochs=1).fit(task, make_batches())
    changed = {
        name.split(".")[1] for name, value in task.network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"decoder", "segmentation_head", "classification_head"}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (SegmentationTask, {"threshold": 1.5}, r"task\.threshold=1\.5: expected a probability"),
        (SegmentationTask, {"threshold": "test"}, r"task\.threshold=test"),
        (SegmentationTask, {"resolution": "screen"}, r"task\.resolution=screen: expected network or original"),
        (MultiTask, {"segmentation_weight": 0}, r"task\.segmentation_weight=0: expected more than 0"),
    ],
)
def test_settings_of_mask_tasks_that_are_refused(kind: type[MaskTask], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_mask_task(kind, **settings)
