"""The warm-up without annotation: its loss, its sign of collapse, and its run as a beginning."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from busi_lab.config import DataConfig, SplitConfig
from busi_lab.errors import UserError
from busi_lab.run.build import build_data
from busi_lab.run_directory import read_run
from busi_lab.summary import read_summary
from busi_lab.tasks import SelfSupervisedTask, load_task
from tests.programs import call, outcome

MODEL = {"name": "timm", "backbone": "test_efficientnet", "weights": "none", "in_chans": 1}
OPTIM = {"name": "adam", "lr": 1e-3, "weight_decay": 0.0}
RUN = ("trainer=smoke", "model.backbone=test_efficientnet", "data.image_size=32", "data.subset=null", "logger=none")


def make_task(features: int = 32) -> SelfSupervisedTask:
    return SelfSupervisedTask(MODEL, 32, OPTIM, {"name": "none"}, features=features)


def test_equal_views_lie_nearer_than_others_and_targets_are_not_trained() -> None:
    torch.manual_seed(0)
    task = make_task()
    images = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    batch = {"image": images, "view": images.flip(0), "label": torch.zeros(8), "case_id": [""] * 8}
    loss = task._step(batch, "train")
    assert -1 <= loss.item() <= 1
    loss.backward()
    assert all(p.grad is not None for p in task.network.predictor.parameters())  # type: ignore[union-attr,operator]
    assert any(parameter.grad is not None for parameter in task.backbone_parameters())


def test_the_spread_is_none_where_all_scans_are_alike() -> None:
    task = make_task(64)
    alike = torch.nn.functional.normalize(torch.ones(10, 64), dim=1)
    assert float(task.summarize("val", {"features": alike})["spread"]) == pytest.approx(0, abs=1e-6)
    apart = torch.nn.functional.normalize(torch.randn(4000, 64), dim=1)
    assert float(task.summarize("val", {"features": apart})["spread"]) == pytest.approx(1, abs=0.05)


def test_too_few_features_are_refused() -> None:
    with pytest.raises(UserError, match=r"task\.features=3: expected a whole number of at least 16"):
        make_task(3)


def test_labels_do_not_say_what_is_drawn(phantom_root: Path) -> None:
    config = DataConfig(root=str(phantom_root), image_size=32, batch_size=4, num_workers=0, balanced_sampling=True)
    data = build_data(config, SplitConfig(protocol="holdout"), make_task())
    drawn = [case_id for batch in data.train_dataloader() for case_id in batch["case_id"]]
    assert sorted(drawn) == list(data.manifest.train), "each scan once, though the classes differ in size"
    assert len(set(Counter(data.train_set.labels).values())) > 1
    with pytest.raises(UserError, match=r"data\.annotated=0\.1 beside .*needs no annotation and learns from all"):
        build_data(replace(config, annotated=0.1), SplitConfig(protocol="holdout"), make_task())


def test_its_run_is_what_another_begins_with(phantom_root: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    root = f"data.root={phantom_root}"
    assert call("train", root, *RUN, "task=self_supervised", "augment=strong", f"hydra.run.dir={first}") == 0
    summary = read_summary(first)
    assert summary.task == "self_supervised"
    assert summary.metrics["val/spread"] > 0
    assert not (first / "predictions.csv").exists()
    assert read_run(first).summary.status == "finished"
    with pytest.raises(UserError, match=r"first: a run of task=self_supervised predicts nothing; .* model\.weights="):
        load_task(first)  # which evaluation, ensembles, export and teaching begin with
    assert call("train", root, *RUN, f"model.weights={first}", f"hydra.run.dir={second}") == 0
    initial = read_summary(second).initial
    assert initial is not None
    assert initial.taken == initial.tensors - 2, "all but the classifier"
    code, line = outcome("predict", "--run", str(first), "--out", str(tmp_path / "out"), str(phantom_root / "benign"))
    assert (code, "no run to predict with" in line) == (2, True)
