"""Runs that learn from scans without annotation, and from other runs."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from busi_lab.data.datamodule import BusiDataModule
from busi_lab.run import leaks
from busi_lab.run.ensemble import _leaked
from busi_lab.run.leaks import known_to
from busi_lab.run.members import Member
from busi_lab.summary import Summary, read_summary
from busi_lab.tasks import load_task
from tests.programs import call, outcome

RUN = ("trainer=smoke", "model.backbone=test_efficientnet", "data.image_size=32", "data.subset=null", "logger=none")


def train(root: Path, run: Path, *settings: str) -> int:
    return call("train", f"data.root={root}", *RUN, *settings, f"hydra.run.dir={run}")


SEGMENTER = ("trainer=smoke", "task=segmentation", "model=mobilenet_unet", *RUN[2:])
"""Of two kinds of pixels one is always sure enough, also for a network that knows nothing."""


@pytest.mark.parametrize(("method", "network"), [("mean_teacher", RUN), ("pseudo_label", SEGMENTER)])
def test_scans_without_annotation_take_part(
    phantom_root: Path, tmp_path: Path, method: str, network: tuple[str, ...]
) -> None:
    settings = ("data.annotated=0.4", f"task.semi={method}", "task.semi_threshold=0.5", "task.semi_ramp=0")
    directory = f"hydra.run.dir={tmp_path / 'run'}"
    assert call("train", f"data.root={phantom_root}", *network, *settings, directory) == 0
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["train/guidance_loss"]) > 0 for row in rows)
    checkpoint = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert "guides" not in checkpoint
    assert not [name for name in checkpoint["hyper_parameters"] if name.startswith(("semi", "teacher"))]


def test_a_joint_run_teaches_a_small_classifier(trained: dict[str, Path], phantom_root: Path, tmp_path: Path) -> None:
    teacher = trained["joint"]
    assert train(phantom_root, tmp_path / "run", f"task.teacher={teacher}", "split=grouped_holdout") == 0
    record = read_summary(tmp_path / "run").teacher
    assert record is not None
    assert (record.directory, record.leaked) == (str(teacher), 0)
    assert train(phantom_root, tmp_path / "other", f"task.teacher={teacher}", "split=holdout", "split.seed=3") == 0
    summary = read_summary(tmp_path / "other")
    assert summary.teacher is not None
    assert summary.teacher.leaked
    assert (summary.split.leaked or 0) >= summary.teacher.leaked


def test_what_a_teacher_knew_is_known_to_whoever_begins_with_its_student(
    trained: dict[str, Path], phantom_root: Path, tmp_path: Path
) -> None:
    student = tmp_path / "student"
    assert train(phantom_root, student, "split=holdout", "split.seed=3") == 0
    split = json.loads((student / "split.json").read_text())
    content = json.loads((student / "summary.json").read_text())
    other = BusiDataModule(str(phantom_root), 32, split={"protocol": "holdout", "seed": 3}, cache_dir=None)
    other.setup()
    assert not set(known_to(student, other) or {}) & set(split["test"]), "it has learnt from no test image of its own"
    learnt = json.loads((trained["joint"] / "split.json").read_text())
    known = set(split["test"]) & {*learnt["train"], *learnt["val"]}
    joint = {"directory": str(trained["joint"])}
    (student / "summary.json").write_text(json.dumps({**content, "teacher": joint}))
    assert set(known_to(student, other) or {}) >= known != set()
    members = [Member(student, load_task(student)[0], read_summary(student))] * 2
    assert (_leaked(members, other) or 0) >= len(known)
    again = tmp_path / "again"
    assert call("evaluate", f"run={student}", f"hydra.run.dir={again}", "logger=none") == 0
    assert (read_summary(again).split.leaked or 0) >= len(known)
    with (again / "predictions.csv").open(newline="") as file:
        assert {row["image"] for row in csv.DictReader(file) if row["near_copy_of"]} >= known


def test_the_scans_of_the_members_of_an_ensemble_are_compared_once_and_their_teachers_count(
    trained: dict[str, Path], phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, teacher = tmp_path / "member", trained["joint"]
    assert train(phantom_root, member, f"task.teacher={teacher}", "split=holdout", "split.seed=3") == 0
    assert call("ensemble", str(member), str(trained["classifier"]), "--out", str(tmp_path / "both")) == 0
    other = BusiDataModule(str(phantom_root), 32, split={"protocol": "all"}, cache_dir=None)
    other.setup()
    looked: list[Path] = []
    find = leaks.find_leaked

    def watched(summary: Summary, folder: Path, data: BusiDataModule) -> dict[str, str] | None:
        looked.append(folder)
        return find(summary, folder, data)

    monkeypatch.setattr(leaks, "find_leaked", watched)
    known = set(known_to(tmp_path / "both", other) or {})
    assert looked == [tmp_path / "both", teacher]
    for run in (member, trained["classifier"], teacher):
        split = json.loads((run / "split.json").read_text())
        assert known >= {*split["train"], *split["val"]}


def test_a_teacher_whose_data_are_not_at_hand_is_not_said_to_know_nothing(
    trained: dict[str, Path], phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = Path(shutil.copytree(trained["classifier"], tmp_path / "teacher"))
    content = json.loads((teacher / "summary.json").read_text())
    content["data"] |= {"root": "/nowhere", "digest": "0123"}
    (teacher / "summary.json").write_text(json.dumps(content))
    assert train(phantom_root, tmp_path / "run", f"task.teacher={teacher}", "data.subset=2") == 0
    summary = read_summary(tmp_path / "run")
    assert summary.teacher is not None and summary.teacher.leaked is None
    said = capsys.readouterr().out
    assert f"leaks: not counted for {teacher}: it, or the data that it learnt from, are not here" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("task.teacher=/nowhere",), "task.teacher: /nowhere: no such folder"),
        (("task.semi=other",), "task.semi=other: expected none or mean_teacher or pseudo_label"),
        (("task.semi=mean_teacher", "data.annotated=0"), "data.annotated=0.0: expected a share above 0"),
        (("data.epoch_images=0",), "data.epoch_images=0: expected"),
        (("task=segmentation", "model=mobilenet_unet", "task.teacher={classifier}"), "has nothing to teach to segm"),
        (("task.semi=mean_teacher", "data.roi={joint}"), "data.roi beside task.semi or task.teacher"),
    ],
)
def test_what_cannot_teach_is_refused(
    trained: dict[str, Path], phantom_root: Path, tmp_path: Path, settings: tuple[str, ...], said: str
) -> None:
    run = tmp_path / "run"
    model = RUN if not any(item.startswith("model=") for item in settings) else [i for i in RUN if "backbone" not in i]
    given = [item.format(**trained) for item in settings]
    code, line = outcome("train", f"data.root={phantom_root}", *model, *given, f"hydra.run.dir={run}")
    assert (code, said in line) == (2, True), line
    assert not run.exists()
