"""busi-train as a user types it: the run directory it leaves, and what it says about wrong input."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from busi_lab.inference.measures import measure
from busi_lab.locks import locked
from busi_lab.run_directory import read_run
from busi_lab.summary import read_summary
from busi_lab.tasks import ClassificationTask
from tests.programs import Programs, call

Cli = Callable[..., tuple[int, str]]
FAST = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=none")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Call ``busi-train`` in this process; returns the exit code and the error line."""

    monkeypatch.chdir(tmp_path)

    def trained(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = call("train", *arguments)
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return code, errors[0] if errors else ""

    return trained


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_run_directory_holds_the_contract(cli: Cli, phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = (f"data.root={phantom_root}", *FAST, "split=published", "seed=0", f"hydra.run.dir={run}")
    assert cli(*arguments) == (0, "")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["error"] is None
    assert (summary["task"], summary["experiment"], summary["model"]) == ("classification", "custom_cnn", "custom_cnn")
    assert summary["seed"] == 0
    assert summary["split"]["protocol"] == "published"
    assert summary["data"]["test"] == len(rows(run / "predictions.csv")) > 3
    assert summary["epochs"] == 2 == len(rows(run / "metrics.csv"))
    assert summary["objective"] == {"metric": "val/f1", "mode": "max"}
    assert summary["images_per_second"] > 0
    assert set(summary["seconds"]) == {"fit", "test", "total"}
    assert summary["command"].startswith("busi-train data.root=")
    assert "hydra.run.dir" not in summary["command"]
    names = ("accuracy", "precision", "recall", "f1", "auroc", "auroc_malignant")
    assert all(0 <= summary["metrics"][f"{split}/{name}"] <= 1 for split in ("val", "test") for name in names)
    epochs = rows(run / "metrics.csv")
    assert [row["epoch"] for row in epochs] == ["0", "1"]
    assert all(float(row["train/loss"]) > 0 and row["train/f1"] and row["val/f1"] for row in epochs)
    best = epochs[summary["best_epoch"]]
    assert float(best["val/f1"]) == pytest.approx(summary["metrics"]["val/f1"], abs=1e-6)
    assert float(best["val/f1"]) == max(float(row["val/f1"]) for row in epochs)
    assert (run / "config.yaml").exists()
    assert len(json.loads((run / "split.json").read_text())["test"]) >= summary["data"]["test"]
    assert re.search(r"(?m)^torch==\d", (run / "packages.txt").read_text())


def test_figures_follow_from_the_predictions(cli: Cli, phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    cli(f"data.root={phantom_root}", *FAST, f"hydra.run.dir={run}")
    summary, table = read_summary(run), read_run(run).predictions
    classes = ("benign", "malignant", "normal")
    matrix = [[sum(r["label"] == a and r["prediction"] == p for r in table) for p in classes] for a in classes]
    assert summary.metrics["test/confusion_matrix"] == matrix
    correct = sum(row["label"] == row["prediction"] for row in table)
    assert summary.metrics["test/accuracy"] == pytest.approx(correct / len(table))


def test_best_checkpoint_gives_the_predictions_and_is_small(cli: Cli, phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    cli(f"data.root={phantom_root}", *FAST, "callbacks.last.keep=true", f"hydra.run.dir={run}")
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert "optimizer_states" not in content
    assert "optimizer_states" in torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    task = ClassificationTask.load_from_checkpoint(run / "checkpoints/best.ckpt", weights_only=True).eval()
    row = read_run(run).predictions[0]
    scan = Image.open(phantom_root / row["label"] / f"{row['image']}.png").resize((32, 32), Image.Resampling.BILINEAR)
    image = torch.tensor(list(scan.tobytes()), dtype=torch.uint8).view(1, 1, 32, 32)
    with torch.no_grad():
        probabilities = task(image).classes.softmax(1)[0].tolist()
    expected = [float(row[f"p_{name}"]) for name in ("benign", "malignant", "normal")]
    assert probabilities == pytest.approx(expected, abs=1e-5)


def test_same_seed_same_run_whatever_the_workers(cli: Cli, phantom_root: Path, tmp_path: Path) -> None:
    common = (f"data.root={phantom_root}", *FAST, "model.dropout=0.5")
    changes = {"a": (), "b": ("data.num_workers=2",), "c": ("seed=1",)}
    for name, change in changes.items():
        assert cli(*common, *change, f"hydra.run.dir={tmp_path / name}")[0] == 0
    a, b, c = (read_run(tmp_path / name).predictions for name in changes)
    assert a == b
    assert a != c


def test_a_manifest_can_be_used_again(cli: Cli, phantom_root: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    cli(f"data.root={phantom_root}", *FAST, "split=holdout", "split.seed=5", f"hydra.run.dir={first}")
    manifest = f"split.manifest={first / 'split.json'}"
    assert cli(f"data.root={phantom_root}", *FAST, manifest, f"hydra.run.dir={second}")[0] == 0
    assert read_summary(first).split == read_summary(second).split
    assert read_summary(second).split.seed == 5


def test_leaks_are_counted_and_groups_travel_with_the_predictions(cli: Cli, phantom_copy: Path, tmp_path: Path) -> None:
    for kind in ("", "_mask"):  # a copy of what is tested among what is learnt
        shutil.copy(phantom_copy / f"benign/benign (1){kind}.png", phantom_copy / f"benign/benign (9){kind}.png")
    for split, leaked in (("published", 1), ("grouped_holdout", 0)):
        run = tmp_path / split
        smoke = (f"data.root={phantom_copy}", *FAST, "data.subset=null", f"split={split}", f"hydra.run.dir={run}")
        assert cli(*smoke)[0] == 0
        assert read_summary(run).split.leaked == leaked
        assert f"leaks: {'at least ' * leaked}{leaked} of " in (run / "train.log").read_text()
        tables = [rows(run / name) for name in ("predictions.csv", "validation.csv")]
        assert not {row["image"] for row in tables[0]} & {row["image"] for row in tables[1]}
        groups = {row["image"]: row["group"] for table in tables for row in table}
        assert all(group == image for image, group in groups.items() if image not in ("benign (1)", "benign (9)"))


@pytest.mark.slow
def test_two_processes_share_one_run(programs: Programs, phantom_root: Path, tmp_path: Path) -> None:
    """Distributed training on the CPU: every test image is predicted once."""
    run = tmp_path / "run"
    distributed = ("trainer.accelerator=cpu", "trainer.devices=2", "+trainer.strategy=ddp", f"hydra.run.dir={run}")
    programs.run("train", f"data.root={phantom_root}", *FAST, *distributed, cwd=tmp_path)
    images = [row["image"] for row in read_run(run).predictions]
    assert len(images) == len(set(images)) == read_summary(run).data.test
    assert sum(map(sum, read_summary(run).metrics["test/confusion_matrix"])) == len(images)


def test_failures_after_the_start_are_on_record(
    cli: Cli, phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClassificationTask, "_step", lambda self, batch, split: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli(f"data.root={phantom_root}", *FAST, f"hydra.run.dir={tmp_path / 'run'}")
    summary = read_summary(tmp_path / "run")
    assert summary.status == "failed"
    assert summary.error == "ZeroDivisionError: division by zero"


def test_a_network_that_has_diverged_fails_the_run(cli: Cli, phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    steep = ("optim.name=sgd", "optim.lr=1e25")
    code, error = cli(f"data.root={phantom_root}", *FAST, *steep, f"hydra.run.dir={run}")
    assert code == 2
    assert error == "error: the training loss became nan in epoch 0; lower optim.lr or look at the data"
    assert read_summary(run).status == "failed"


def test_weights_and_answers_that_are_no_numbers_fail_the_run(
    cli: Cli, phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network may hide them: here its logits are fine, or its weights are."""

    def poison(self: ClassificationTask) -> None:
        self.train_metrics_end()  # type: ignore[attr-defined]
        next(iter(self.network.parameters())).data[0] = float("nan")

    monkeypatch.setattr(ClassificationTask, "train_metrics_end", ClassificationTask.on_train_epoch_end, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "on_train_epoch_end", poison)
        code, error = cli(f"data.root={phantom_root}", *FAST, f"hydra.run.dir={tmp_path / 'weights'}")
    assert code == 2
    assert "the weights network." in error
    assert read_summary(tmp_path / "weights").status == "failed"
    with monkeypatch.context() as patch:
        step = ClassificationTask._step
        patch.setattr(
            ClassificationTask, "_step", lambda self, batch, split: step(self, batch, split) / (split != "test")
        )
        code, error = cli(f"data.root={phantom_root}", *FAST, f"hydra.run.dir={tmp_path / 'test'}")
    assert code == 2
    assert error.startswith("error: test/loss is inf: the network gives infinite values or none for some image")
    assert read_summary(tmp_path / "test").status == "failed"


def test_a_finished_run_is_not_overwritten(cli: Cli, phantom_root: Path, tmp_path: Path) -> None:
    arguments = (f"data.root={phantom_root}", *FAST, f"hydra.run.dir={tmp_path / 'run'}")
    assert cli(*arguments)[0] == 0
    before = (tmp_path / "run/summary.json").read_bytes()
    code, error = cli(*arguments)
    assert code == 2
    assert "holds a finished run" in error
    assert (tmp_path / "run/summary.json").read_bytes() == before


def test_a_new_run_takes_no_directory_of_an_unfinished_one(cli: Cli, phantom_root: Path, tmp_path: Path) -> None:
    arguments = (f"data.root={phantom_root}", *FAST, "callbacks.last.keep=true", f"hydra.run.dir={tmp_path / 'run'}")
    assert cli(*arguments)[0] == 0
    (tmp_path / "run/summary.json").unlink()
    code, error = cli(*arguments, "split.seed=1")
    assert code == 2
    assert "holds an unfinished run; continue it with resume=" in error
    with locked(tmp_path / "run"):
        code, error = cli(f"resume={tmp_path / 'run'}")
    assert code == 2
    assert "in use by another process" in error


def damage(root: Path, what: str) -> None:
    scan, mask = root / "benign/benign (1).png", root / "benign/benign (1)_mask.png"
    if what == "missing class folder":
        shutil.rmtree(root / "normal")
    elif what == "missing mask":
        mask.unlink()
    elif what == "mask of another size":
        Image.new("L", (7, 7)).save(mask)
    elif what == "empty file":
        scan.write_bytes(b"")
    elif what == "truncated file":
        scan.write_bytes(scan.read_bytes()[:-400])
    elif what == "text file":
        scan.write_text("not a picture")
    elif what == "foreign file":
        (root / "benign/notes.txt").write_text("hello")
    elif what in ("no image", "one image"):
        for path in (root / "normal").iterdir():
            if what == "no image" or not path.name.startswith("normal (1)"):
                path.unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing class folder", "no folder of the class normal; set data.classes"),
        ("missing mask", "mask is missing: expected benign/benign (1)_mask.png"),
        ("mask of another size", "found 7 x 7"),
        ("empty file", "benign (1).png: the file is empty"),
        ("truncated file", "benign (1).png: the image cannot be decoded"),
        ("text file", "benign (1).png: the content is not an image"),
        ("foreign file", "benign/notes.txt: foreign entry"),
        ("no image", "normal: class folder holds no image"),
        ("one image", "leaves no normal image for test: the class has 1 image to use"),
    ],
)
def test_damaged_data(cli: Cli, phantom_copy: Path, tmp_path: Path, what: str, message: str) -> None:
    damage(phantom_copy, what)
    code, error = cli(f"data.root={phantom_copy}", *FAST, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 2
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.root=/nowhere",), "expected a dataset folder, found nothing"),
        (("data.root=null",), "data.root is not set"),
        (("model=timm", "model.backbone=resnet5"), "not a model of timm"),
        (("model=timm", "model.weights=/nowhere.pth"), "no such file"),
        (
            ("+callbacks.early_stopping.patience=3",),
            "callbacks.early_stopping: names no class (_target_); choose the callbacks= that has it, or set callbacks",
        ),
        (("model=vgg",), "model=vgg: no such option; choices: "),
        (("+data.imagesize=96",), "data.imagesize"),
        (("data.imagesize=96",), "imagesize"),
        (("trainer.max_epochs=-3",), "max_epochs=-3"),
        (("data.batch_size=0",), "data.batch_size=0"),
        (("+trainer.max_epoch=3",), "trainer.max_epoch: unknown key"),
        (("+task.smoothing=3",), "task.smoothing: unknown key"),
        (("task._target_=busi_lab.tasks.Nothing",), "cannot be imported"),
        (("optim.name=adamm",), "not an optimiser of timm"),
        (("split.manifest=/nowhere.json",), "no such file"),
        (("split=grouped_kfold", "split.fold=9"), "split.fold=9: expected 0 to 4"),
        (("split=grouped_kfold", "split.folds=25"), "split=grouped_kfold of"),
        (("split=holdout", "split.fold=1"), "split=holdout has no folds"),
        (("split.exclude=/nowhere.txt",), "split.exclude=/nowhere.txt: cannot be read"),
        (("split.groups=/nowhere.csv",), "/nowhere.csv cannot be read"),
        (("data.classes=[benign]",), "a task with classes needs two of them at least"),
        (("data.cache_dir=/dev/null/cache",), "pixel cache cannot be written"),
        (("data=phantom", "data.root=null", "data.cache_dir=null"), "needs data.cache_dir"),
        (("callbacks.best=null",), "callbacks.best: expected a BestCheckpoint"),
        (
            ("callbacks=early_stopping", "callbacks.early_stopping.monitor=val/f2"),
            "callbacks.early_stopping.monitor=val/f2",
        ),
        (("+trainer.fast_dev_run=true",), "trainer.fast_dev_run"),
        (("+trainer.limit_val_batches=0",), "trainer.limit_val_batches"),
        (("scheduler=onecycle", "scheduler.warmup_fraction=2"), "scheduler.warmup_fraction=2"),
        (("augment=strong", "augment.contrast=1.5"), "augment.contrast=1.5"),
        (("task.class_weights=[1,2]",), "task.class_weights=[1, 2]"),
        (("seed=99999999999",), "seed=99999999999"),
        (("model=custom_cnn", "+model.backbone=resnet50"), "model.backbone: unknown key; known keys of custom_cnn: "),
        (("data=phantom", "data.root=/somewhere"), "data.phantom beside data.root=/somewhere: phantoms are made"),
        (("+data.phantom.seed=1",), "data.phantom beside data.name=busi: only data=phantom"),
        (("data=phantom", "data.root=null", "data.phantom.counts=5"), "data.phantom={'counts': 5"),
        (("data=phantom", "data.root=null", "data.phantom.seed=abc"), "data.phantom={"),
        (("task.monitor=val/f2",), "val/f2"),
        (("data.classes=[cyst]",), "data.classes=['cyst']: no class cyst; classes: benign, malignant, normal"),
        (("data.classes=[]",), "data.classes=[]"),
        (("data.lesion_values=[]",), "data.lesion_values=[]: expected null, or values of masks that are lesion"),
        (("data.lesion_values=[red]",), "data.lesion_values: 'red' is no value of a mask"),
        (("task=segmentation",), "gives classes alone, and the task wants masks alone; set "),
        (
            ("model=smp",),
            "model.name=smp: gives masks alone or classes with masks, and the task wants classes alone; set ",
        ),
        (("experiment=paper/unet", "model=mobilenet_unet", "data.classes=[normal]"), "a task with masks needs lesions"),
        (("task=segmentation", "model=smp", "model.weights=none", "model.encoder=tu-none"), "knows no none"),
        (("task=segmentation", "model=mobilenet_unet", "task.loss.bce=-1"), "task.loss.bce=-1"),
        (("task=segmentation", "model=mobilenet_unet", "task.loss.hinge=1"), "hinge"),
        (("task=segmentation", "model=mobilenet_unet", "task.threshold=2"), "task.threshold=2"),
        (("seed=[1",), "seed=[1"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    cli: Cli, phantom_root: Path, overrides: tuple[str, ...], message: str
) -> None:
    code, error = cli(f"data.root={phantom_root}", *FAST, *overrides)
    assert code == 2
    assert message in error


MASKS = ("task=segmentation", "model=mobilenet_unet", "model.weights=none", *FAST[:1], "data.image_size=48", *FAST[3:])


def test_a_segmentation_run_holds_the_contract(cli: Cli, phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = (*MASKS, "data.classes=[benign,malignant]", "task.resolution=original", "task.threshold=val")
    assert cli(f"data.root={phantom_root}", *arguments, f"hydra.run.dir={run}")[0] == 0
    summary = read_summary(run)
    assert (summary.task, summary.data.classes) == ("segmentation", ("benign", "malignant"))
    assert "padded to 64" in (run / "train.log").read_text()
    rows = read_run(run).predictions
    columns = "image label group dice iou lesion_pixels predicted_pixels pixels hd95_pixels hd95_mm"
    assert list(rows[0]) == columns.split()
    assert {row["label"] for row in rows} == {"benign", "malignant"}
    assert sorted(path.stem for path in (run / "masks").iterdir()) == [row["image"] for row in rows]
    for row in rows:
        mask = np.asarray(Image.open(run / "masks" / f"{row['image']}.png"))
        scan = Image.open(phantom_root / row["label"] / f"{row['image']}.png")
        assert mask.shape == scan.size[::-1]
        assert (str(mask.sum()), str(mask.size)) == (row["predicted_pixels"], row["pixels"])
    dice = [float(row["dice"]) for row in rows]
    assert summary.metrics["test/dice"] == pytest.approx(sum(dice) / len(dice), abs=1e-6)
    assert "test/false_positive_rate" not in summary.metrics
    lesions = read_run(run).lesions
    assert list(lesions[0]) == ["image", "group", "lesion", "pixels", "confidence", "iou", "right"]
    for row in rows:
        mask = np.asarray(Image.open(run / "masks" / f"{row['image']}.png"))
        own = [lesion for lesion in lesions if lesion["image"] == row["image"]]
        assert [lesion["lesion"] for lesion in own] == [str(i) for i in range(1, len(measure(mask)) + 1)]
        assert [int(lesion["pixels"]) for lesion in own] == [lesion.area_pixels for lesion in measure(mask)]
        assert {lesion["group"] for lesion in own} <= {row["group"]}
    threshold = summary.metrics["test/threshold"]
    assert all(threshold <= float(lesion["confidence"]) <= 1 for lesion in lesions)
    assert all((float(lesion["iou"]) >= 0.5) == (lesion["right"] == "1") for lesion in lesions)
    assert summary.inference_milliseconds is not None
    assert summary.inference_milliseconds > 0


def test_odd_masks_can_be_trained_on(cli: Cli, phantom_copy: Path, tmp_path: Path) -> None:
    masks = [phantom_copy / f"benign/benign ({number})_mask.png" for number in (1, 2, 3)]
    single, white, gray = (np.zeros_like(np.asarray(Image.open(path).convert("L"))) for path in masks)
    single[5, 7] = 255
    white[:] = 255
    gray[20:40, 20:60] = np.linspace(0, 255, 40).astype(np.uint8)
    for path, mask in zip(masks, (single, white, gray), strict=True):
        Image.fromarray(mask).save(path)
    run = tmp_path / "run"
    code, error = cli(f"data.root={phantom_copy}", *MASKS, "split=published", f"hydra.run.dir={run}")
    assert code == 0, error
    found = {row["image"]: row for row in read_run(run).predictions}
    assert found["benign (1)"]["lesion_pixels"] == "1"  # the first files of the class are tested


def test_a_metric_that_no_image_defines_cannot_be_monitored(cli: Cli, phantom_root: Path, tmp_path: Path) -> None:
    arguments = ("data.classes=[benign,malignant]", "task.monitor=val/false_positive_rate")
    code, error = cli(f"data.root={phantom_root}", *MASKS, *arguments, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 2
    assert "task.monitor=val/false_positive_rate: no validation image defines it" in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_gpu_trainer_without_cuda(cli: Cli, phantom_root: Path) -> None:
    code, error = cli(f"data.root={phantom_root}", *FAST[1:], "trainer=gpu")
    assert code == 2
    assert "no CUDA device is visible" in error


def test_unwritable_output(cli: Cli, phantom_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, error = cli(f"data.root={phantom_root}", *FAST, f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert code == 2
    assert "hydra.run.dir" in error or str(tmp_path / "file") in error


def test_help_is_quick_because_it_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['busi-train', '--help']\n"
        "from busi_lab import train\n"
        "try: train.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules, 'heavy import'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "experiment/paper: custom_cnn" in done.stdout
