"""Ordinary settings that used to end in a traceback, or in a figure that means nothing."""

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from busi_lab.config import RunConfig, config_dir
from busi_lab.data.manifest import Manifest
from busi_lab.errors import UserError
from busi_lab.inference.predictor import as_scan
from busi_lab.run import fit
from busi_lab.run_directory import read_run
from busi_lab.summary import read_summary
from busi_lab.train import train
from tests.programs import outcome

FAST = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=none")
SMALL = ("model=timm", "model.backbone=test_efficientnet")


def run(root: Path, folder: Path, *overrides: str) -> tuple[int, str]:
    return outcome("train", *FAST, f"data.root={root}", *overrides, f"hydra.run.dir={folder / 'run'}")


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "16-true"])
def test_precisions(phantom_root: Path, tmp_path: Path, precision: str) -> None:
    assert run(phantom_root, tmp_path, *SMALL, f"trainer.precision={precision}") == (0, "")
    summary = read_summary(tmp_path / "run")
    assert summary.precision == precision
    assert sum(map(sum, summary.metrics["test/confusion_matrix"])) == summary.data.test


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook", "ddp_spawn_find_unused_parameters_true"])
def test_strategies_whose_processes_keep_their_results_are_refused(
    phantom_root: Path, tmp_path: Path, strategy: str
) -> None:
    code, error = run(phantom_root, tmp_path, f"+trainer.strategy={strategy}")
    assert code == 2
    assert error.startswith(f"trainer.strategy={strategy}: its processes keep what they have learnt")


def test_a_batch_that_batch_norm_cannot_learn_from(phantom_root: Path, tmp_path: Path) -> None:
    code, error = run(phantom_root, tmp_path, *SMALL, "data.batch_size=1")
    assert code == 2
    assert error.startswith("data.batch_size=1 with data.image_size=32: batch norm has one value per channel")


def test_running_out_of_memory_names_batch_and_size(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr("busi_lab.tasks.classification.ClassificationTask.training_step", full)
    code, error = run(phantom_root, tmp_path)
    assert code == 2
    assert error.startswith("the device has not enough memory for batches of 4 scans of 32 pixels (CUDA out of memory")
    assert read_summary(tmp_path / "run").status == "failed"


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_split_that_leaves_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    whole = Manifest("holdout", 0, None, "", ("a",), ("b",), ("c",))
    data = SimpleNamespace(full_manifest=whole, manifest=replace(whole, **{name: ()}), index=SimpleNamespace(root="r"))
    monkeypatch.setattr(fit, "build_data", lambda *_: data)
    with pytest.raises(UserError, match=f"r: no image is left for {name} by split=holdout"):
        fit._build_training_data(RunConfig(run_dir="run"), None)  # type: ignore[arg-type]
    assert (name != "test") or fit._build_training_data(RunConfig(run_dir="run", test=False), None) is data  # type: ignore[arg-type,comparison-overlap]


def test_an_epoch_that_is_cut_has_a_speed_and_no_validation(phantom_root: Path, tmp_path: Path) -> None:
    cut = ("data.batch_size=2", "trainer.max_epochs=3", "+trainer.max_steps=8")  # six batches an epoch
    assert run(phantom_root, tmp_path, *cut) == (0, "")
    rows = list(csv.DictReader((tmp_path / "run/metrics.csv").open(newline="")))
    assert [bool(row["val/f1"]) for row in rows] == [True, False]
    assert all(0 < float(row["images_per_second"]) < 1e5 for row in rows)
    assert read_summary(tmp_path / "run").best_epoch == 0
    code, error = outcome(
        "train", *FAST, f"data.root={phantom_root}", *cut, "trainer.max_steps=3", f"hydra.run.dir={tmp_path / 'none'}"
    )
    assert code == 2
    assert error.startswith("no epoch was validated, so there are no best weights to judge")


@pytest.mark.parametrize("backbone", list(timm.list_models("test_vit*"))[:2])
def test_transformers_take_the_size_of_the_images(phantom_root: Path, tmp_path: Path, backbone: str) -> None:
    vit = ("model=timm", f"model.backbone={backbone}", "model.weights=none", "data.image_size=64")
    assert run(phantom_root, tmp_path, *vit) == (0, "")
    result = outcome("evaluate", f"run={tmp_path / 'run'}", f"hydra.run.dir={tmp_path / 'result'}", "trainer=cpu")
    assert result == (0, "")
    assert read_run(tmp_path / "result").predictions == read_run(tmp_path / "run").predictions


def test_weights_of_the_classes_that_take_part(phantom_root: Path, tmp_path: Path) -> None:
    two = ("data.classes=[malignant,benign]", "task.class_weights=[3,1]")
    assert run(phantom_root, tmp_path, *two) == (0, "")
    content = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert content["hyper_parameters"]["class_weights"] == [1, 3, 1.0]
    code, error = outcome("train", *FAST, f"data.root={phantom_root}", "task.class_weights=[1,2]")
    assert (code, error.partition(":")[0]) == (2, "task.class_weights=[1, 2]")


def test_scans_are_bytes_or_pictures() -> None:
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(as_scan(Image.fromarray(levels)).pixels, levels)
    assert as_scan(Image.new("RGB", (4, 3))).pixels.shape == (3, 4)


def test_a_notebook_trains_what_it_has_composed(phantom_root: Path, tmp_path: Path) -> None:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", [*FAST, f"data.root={phantom_root}", f"run_dir={tmp_path / 'run'}"])
        assert 0 <= train(config) <= 1
    assert read_summary(tmp_path / "run").status == "finished"
