"""Everything that training can be given, in one run that is then used."""

import csv
from pathlib import Path

import pytest

from busi_lab.predict import load
from busi_lab.run_directory import read_run
from busi_lab.summary import read_summary
from tests.programs import call

TINY = ("trainer=smoke", "trainer.accelerator=cpu", "data.image_size=64", "data.subset=6", "logger=none")
EVERYTHING = (
    *("task=multitask", "task.mixup=0.4", "task.cutmix=1.0", "task.views=flip", "task.threshold=val"),
    *("task.class_weights=[1,2,1]", "task.class_focal_gamma=1.0", "task.segmentation_weight=0.5"),
    *("model=smp", "model.encoder=tu-test_resnet", "model.drop_path=0.1", "model.deep_supervision=true"),
    *("augment=trivial", "augment.erase=0.25", "optim=adamw", "optim.backbone_lr=1e-4"),
    *("scheduler=warmup_cosine", "scheduler.final=0.01", "ema=0.9", "model.freeze=[encoder]", "model.unfreeze_epoch=1"),
)
CLASSIFIER = (
    *("model.backbone=test_convnext", "model.drop_path=0.1", "optim.layer_decay=0.7", "task.label_smoothing=0.1"),
    *("augment=trivial", "scheduler=warmup_cosine", "ema=0.9", "task.mixup=0.4", "task.cutmix=1.0", "task.views=flip"),
)


@pytest.mark.parametrize("settings", [EVERYTHING, CLASSIFIER], ids=["joint", "classifier"])
def test_all_ingredients_go_together_and_the_run_is_used(
    settings: tuple[str, ...], phantom_root: Path, tmp_path: Path
) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    assert call("train", f"data.root={phantom_root}", *TINY, *settings, f"hydra.run.dir={run}") == 0
    summary, epochs = read_summary(run), read_run(run).epochs
    assert len(epochs) == 2
    recorded = float(epochs[int(summary.best_epoch or 0)]["val/loss"])
    assert summary.metrics["val/loss"] == pytest.approx(recorded, rel=1e-4)
    assert call("evaluate", f"run={run}", f"data.root={phantom_root}", "trainer=cpu", f"hydra.run.dir={again}") == 0
    known = {row["image"]: row for row in read_run(again).predictions}
    predictor = load(run)
    with (run / "predictions.csv").open(newline="") as file:
        for row in list(csv.DictReader(file))[:3]:
            found = predictor.predict(phantom_root / row["label"] / f"{row['image']}.png")
            assert found.probabilities is not None
            for probability in (found.probabilities["malignant"], float(known[row["image"]]["p_malignant"])):
                assert probability == pytest.approx(float(row["p_malignant"]), abs=1e-4)
