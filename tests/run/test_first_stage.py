"""``data.roi``: which run cuts which scan, what leaks, how it is recorded and used again, and what is refused."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from busi_lab.classes import BUSI
from busi_lab.config import DataConfig
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.manifest import write_manifest
from busi_lab.data.reading import read_image
from busi_lab.data.resizing import resize_scan
from busi_lab.errors import UserError
from busi_lab.predict import load
from busi_lab.run import first_stage
from busi_lab.run.first_stage import FirstStage, find_first_stage
from busi_lab.run_directory import BEST_CHECKPOINT, SPLIT
from busi_lab.summary import DataRecord, Summary, read_summary, write_summary
from busi_lab.tasks import BaseTask, ClassificationTask, SegmentationTask
from tests.conftest import SMALL, TRAINED
from tests.inference.small_runs import make_task
from tests.programs import call, outcome

FOLDS = 2


class Halves:
    """In place of a predictor: run ``fold0`` takes the upper half of a scan for lesion, ``fold1`` the left half."""

    def __init__(self, classifiers: Sequence[Path], segmenters: Sequence[Path]) -> None:
        self._names = [run.name for run in segmenters]

    def masks(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:  # type: ignore[type-arg]
        found = []
        for image in images:
            mask = np.zeros(image.shape, dtype=bool)
            if "fold0" in self._names:
                mask[: image.shape[0] // 2] = True
            if "fold1" in self._names:
                mask[:, : image.shape[1] // 2] = True
            found.append(mask)
        return found


def opened(root: Path, fold: int, **further: str) -> BusiDataModule:
    split = {"protocol": "grouped_kfold", "fold": fold, "folds": FOLDS, **further}
    data = BusiDataModule(str(root), image_size=32, split=split, masks=False)
    data.setup()
    return data


@pytest.fixture
def folds(phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Path, Summary]:
    """Runs without networks, one for each of two folds."""
    monkeypatch.setattr(first_stage, "Predictor", Halves)
    found = {}
    for fold in range(FOLDS):
        run, data = tmp_path / f"unet/fold{fold}", opened(phantom_root, fold)
        (run / BEST_CHECKPOINT).parent.mkdir(parents=True)
        (run / BEST_CHECKPOINT).write_bytes(bytes([fold]))
        write_manifest(run / SPLIT, data.manifest)
        record = DataRecord("busi", str(phantom_root), digest=data.index.digest, class_names=BUSI.names)
        write_summary(run, Summary("finished", task="segmentation", experiment="unet", data=record))
        found[run] = read_summary(run)
    return found


def shown(data: BusiDataModule) -> dict[str, Any]:
    """The scans that networks see, by case id."""
    parts = (data.train_set, data.val_set, data.test_set)
    return {
        scan["case_id"]: scan["image"][0].numpy() for part in parts for scan in map(part.__getitem__, range(len(part)))
    }


def test_each_scan_is_cut_by_the_fold_that_has_not_learnt_from_it(
    phantom_root: Path, folds: dict[Path, Summary]
) -> None:
    data, first_test = opened(phantom_root, 1), set(opened(phantom_root, 0).manifest.test)
    truth = {case_id: mask.copy() for case_id, mask in data.true_masks().items()}
    stage = FirstStage(folds, "crop", 0.0)
    record = stage.cut(data)
    files = {case.case_id: case.image for case in data.index.cases}
    for case_id, image in shown(data).items():
        whole = read_image(phantom_root / files[case_id])
        rows, columns = (side // 2 for side in whole.shape)
        half = whole[:rows] if case_id in first_test else whole[:, :columns]
        assert np.array_equal(image, resize_scan(half, 32)), case_id
    assert (record.scans, record.whole, record.runs) == (30, 0, tuple(str(run.resolve()) for run in folds))
    assert stage.leaked(data) == {}
    assert all(np.array_equal(mask, truth[case_id]) for case_id, mask in data.true_masks().items())


def test_scans_of_other_data_are_cut_by_all_folds_together(phantom_copy: Path, folds: dict[Path, Summary]) -> None:
    next(phantom_copy.glob("normal/normal (1).png")).unlink()
    next(phantom_copy.glob("normal/normal (1)_mask.png")).unlink(missing_ok=True)
    data = opened(phantom_copy, 0, groups="none")
    stage = FirstStage(folds, "mask", 0.0)
    stage.cut(data)
    for image in shown(data).values():
        assert image[:12].any() and image[:, :12].any() and not image[20:, 20:].any()
    assert stage.leaked(data) is None  # no near-copies are looked for


def test_leaks_of_a_run_whose_data_are_gone_are_not_known(
    phantom_root: Path, folds: dict[Path, Summary], tmp_path: Path
) -> None:
    run = next(iter(folds))
    record = DataRecord("busi", str(tmp_path / "gone"), digest="0" * 16, class_names=BUSI.names)
    write_summary(run, Summary("finished", task="segmentation", experiment="unet", data=record))
    assert FirstStage({run: read_summary(run)}, "crop", 0.0).leaked(opened(phantom_root, 1)) is None


def test_one_run_cuts_all_scans_and_what_it_has_learnt_from_is_leaked(
    phantom_root: Path, folds: dict[Path, Summary]
) -> None:
    run = next(iter(folds))
    stage = FirstStage({run: folds[run]}, "mask", 0.0)
    own, other = opened(phantom_root, 0), opened(phantom_root, 1)
    stage.cut(own)
    assert all(not image[20:].any() for image in shown(own).values())
    assert stage.leaked(own) == {}
    assert set(stage.leaked(other)) == set(other.manifest.test)  # of two folds, each is all that the other has learnt


def test_a_fold_that_is_missing_is_said(phantom_root: Path, folds: dict[Path, Summary], tmp_path: Path) -> None:
    first, second = folds
    shutil.copytree(first, tmp_path / "unet/again")
    twice = {first: folds[first], tmp_path / "unet/again": folds[first]}
    with pytest.raises(UserError, match=r"none of the 2 runs has .* in its test fold, nor \d+ other scans; give all"):
        FirstStage(twice, "crop", 0.1).cut(opened(phantom_root, 0))
    assert second not in twice


def classifier() -> BaseTask:
    task: BaseTask = make_task(ClassificationTask, name="custom_cnn")
    return task


def test_a_folder_stands_for_its_finished_runs(folds: dict[Path, Summary]) -> None:
    folder = next(iter(folds)).parent
    found = find_first_stage(DataConfig(roi=str(folder), roi_mode="mask", roi_margin=0.3), BUSI, classifier())
    assert ([run.name for run in found.runs], found.mode, found.margin) == (["fold0", "fold1"], "mask", 0.3)


@pytest.mark.parametrize(
    ("changes", "where", "message"),
    [
        ({}, "nowhere", r"data\.roi=.*nowhere: no such folder; expected a finished run of task=segmentation"),
        ({"status": "failed", "error": "it broke"}, "unet/fold0", r"the run failed \(it broke\)"),
        ({"status": "failed"}, "unet", r"unet: 1 finished run in that folder"),
        ({"task": "classification"}, "unet/fold0", r"fold0 is a classification run and predicts no masks"),
        ({"source": {"directory": "a"}}, "unet/fold0", r"fold0: the evaluation of a run"),
        ({"experiment": "other"}, "unet", r"runs of several experiments or datasets are in that folder"),
        (
            {"data": {"class_names": ["cyst", "solid"]}},
            "unet/fold0",
            r"learnt from data of cyst, solid, and those here",
        ),
    ],
)
def test_runs_that_cannot_be_a_first_stage_are_refused(
    folds: dict[Path, Summary], tmp_path: Path, changes: dict[str, Any], where: str, message: str
) -> None:
    path = next(iter(folds)) / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match=message) as caught:
        find_first_stage(DataConfig(roi=str(tmp_path / where)), BUSI, classifier())
    assert "\n" not in str(caught.value)


def test_tasks_with_masks_are_refused(folds: dict[Path, Summary]) -> None:
    task = make_task(SegmentationTask, size=32, name="mobilenet_unet")
    with pytest.raises(UserError, match=r"scans are cut for tasks without masks alone, found segmentation"):
        find_first_stage(DataConfig(roi=str(next(iter(folds)))), BUSI, task)


@pytest.fixture(scope="module")
def second(trained: Mapping[str, Path], phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier behind a first stage of its own copy, on another split than the stage has learnt under."""
    folder = tmp_path_factory.mktemp("two_stages")
    shutil.copytree(trained["segmenter"], folder / "first")
    run = (f"data.roi={folder / 'first'}", "split.seed=1", f"hydra.run.dir={folder / 'second'}")
    assert call("train", f"data.root={phantom_root}", *SMALL, *TRAINED["classifier"], *run) == 0
    return folder / "second"


def test_what_the_first_stage_has_learnt_from_is_counted_as_leaked(second: Path) -> None:
    summary, first = read_summary(second), read_summary(second.parent / "first")
    assert summary.first_stage is not None
    test = set(json.loads((second / SPLIT).read_text())["test"])
    learnt = json.loads((second.parent / "first" / SPLIT).read_text())
    seen = test & {*learnt["train"], *learnt["val"]}
    assert seen and first.data.digest == summary.data.digest
    assert summary.first_stage.leaked == summary.split.leaked == len(seen)  # groups are whole in both splits
    said = (second / "train.log").read_text()
    assert f"that cuts these scans (data.roi) has learnt from {len(seen)} of the test images" in said


def test_evaluations_and_predictions_cut_scans_alike(
    second: Path, phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("evaluate", f"run={second}", "hydra.run.dir=again") == 0
    again, before = read_summary(tmp_path / "again"), read_summary(second)
    assert again.first_stage == before.first_stage
    for name in ("test/accuracy", "test/loss"):
        assert again.metrics[name] == pytest.approx(before.metrics[name], abs=1e-6)
    with (second / "predictions.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    kind = row["image"].split()[0]
    predictor = load(second)
    predicted = predictor.predict(phantom_root / kind / f"{row['image']}.png")
    assert predicted.probabilities == pytest.approx({name: float(row[f"p_{name}"]) for name in BUSI.names}, abs=1e-5)
    assert [(run.role, Path(run.directory).name) for run in predicted.runs] == [
        ("classifier", "second"),
        ("first stage", "first"),
    ]


def test_what_needs_whole_scans_is_refused(second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((40, 40), np.uint8)).save("scan.png")
    assert outcome("predict", "scan.png", "--run", str(second), "--explain", "gradcam", "--out", "out") == (
        2,
        "--explain: a classifier here sees scans that are cut (data.roi), which no map fits; leave it out",
    )
    for setting in ("stress=ultrasound", "shortcuts=true", "explain=gradcam"):
        code, said = outcome("evaluate", f"run={second}", setting, "hydra.run.dir=no")
        assert code == 2 and said.startswith(f"{setting.split('=')[0]}: needs a run that sees whole scans")
    code, said = outcome("evaluate", f"run={second}", "data.roi=a", "hydra.run.dir=no")
    assert (code, said.split(":")[0]) == (2, "data.roi")
    assert not Path("no").exists() and not Path("out").exists()


def test_a_first_stage_that_has_moved_or_changed_is_missed(second: Path, tmp_path: Path) -> None:
    summary = json.loads((second / "summary.json").read_text())
    for changes, message in (
        ({"runs": [str(tmp_path / "gone")]}, r"masks of another run, .*gone, which is not there \(data\.roi\)"),
        ({"digests": ["0" * 16]}, r"first, which has other weights now"),
    ):
        run = tmp_path / next(iter(changes))
        shutil.copytree(second, run)
        changed = {**summary, "first_stage": {**summary["first_stage"], **changes}}
        (run / "summary.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=message):
            load(run)
