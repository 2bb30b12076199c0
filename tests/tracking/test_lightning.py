"""Lightning's loggers as trackers: on doubles of their clients, and on TensorBoard and MLflow where they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles import BoardLogger, MLFlowLogger, PlainLogger, Result
from PIL import Image

from busi_lab.errors import UserError
from busi_lab.files import write_rows
from busi_lab.tracking import Job, check_trackers
from busi_lab.tracking.lightning import LightningTracker

FIGURES = {
    *("test/confusion_matrix", "test/roc", "test/pr", "test/worst_mistakes", "test/gradcam"),
    *("test/masks_worst", "test/masks_median", "test/masks_best"),
}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    PlainLogger.made.clear()


def opened(directory: Path, target: str, kind: str = "train", **settings: Any) -> LightningTracker:
    job = Job(directory, "small-seed0", kind, {"model": {"name": "cnn"}, "seed": 0})
    return LightningTracker({"_target_": target, **settings}, job)


def tell(tracker: LightningTracker, result: Result) -> None:
    """Everything that a run is told."""
    tracker.start(result.summary, "val/f1", "max", ("f1",))
    tracker.epoch({"epoch": 0, "val/f1": 0.5, "val/hd95": float("nan"), "lr": 0.1, "seconds": 2.0})
    if tracker.mask_panel:
        shown = [(name, result.pictures[name], result.true_masks[name], result.true_masks[name]) for name in "ab"]
        tracker.masks(0, shown)
    tracker.result(result)
    tracker.finish(failed=False)


def comparison(out: Path) -> Path:
    out.mkdir()
    write_rows(out / "table.csv", [{"run": "a", "f1": 0.5}], ("run", "f1"))
    (out / "report.html").write_text("<p>ranked</p>")
    Image.new("RGB", (8, 8)).save(out / "table1_metrics.png")
    return out


def check_metrics(logger: PlainLogger) -> None:
    assert logger.parameters["model"] == {"name": "cnn"}
    assert logger.parameters["split_digest"] == "s"
    assert logger.metrics == {
        "val/f1": (0.5, 0),
        "optim/lr": (0.1, 0),
        "speed/epoch_seconds": (2.0, 0),
        "test/accuracy": (0.5, 3),
        "best/val/f1": (0.4, 3),
        "best/epoch": (3.0, 3),
        "parameters": (12.0, 3),
        "images_per_second": (5.0, 3),
    }
    assert logger.status == "success"


def test_any_logger_is_sent_metrics(result: Result, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    tracker = opened(tmp_path, "doubles.PlainLogger", save_dir="there")
    tell(tracker, result)
    (logger,) = PlainLogger.made
    assert logger.arguments == {"save_dir": "there"}
    check_metrics(logger)
    assert caplog.messages == ["PlainLogger is sent metrics alone; figures and files are in the run directory"]
    assert tracker.record is None


def test_tensorboard_is_sent_figures_and_tables(result: Result, tmp_path: Path) -> None:
    tracker = opened(tmp_path, "doubles.BoardLogger")
    tell(tracker, result)
    tracker.report(comparison(tmp_path / "comparison"))
    tracker.failure("why")
    (logger,) = PlainLogger.made
    assert isinstance(logger, BoardLogger)
    check_metrics(logger)
    assert set(logger.images) == {*FIGURES, "val/masks", "report/table1_metrics"}
    assert logger.texts["report/runs"] == "| run | f1 |\n| --- | --- |\n| a | 0.5 |"
    assert logger.texts["test/predictions"].count("\n") == 5
    assert logger.texts["error"] == "why"


def test_mlflow_is_sent_figures_and_files(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUSI_LAB_JOB", "sweep1")
    tracker = opened(tmp_path, "doubles.MLFlowLogger", log_model=True)
    tell(tracker, result)
    tracker.report(comparison(tmp_path / "comparison"))
    (logger,) = PlainLogger.made
    assert isinstance(logger, MLFlowLogger)
    check_metrics(logger)
    assert set(logger.images) == {*(f"{name}.png" for name in FIGURES), "val/masks/epoch0000.png"}
    report = [(name, "report") for name in ("report.html", "table.csv", "table1_metrics.png")]
    assert logger.files == [("predictions.csv", "test"), ("best.ckpt", "model"), *report]
    assert logger.tags == {"job_type": "train", "sweep": "sweep1"}
    assert logger.arguments["run_name"] == "small-seed0"


def test_a_continued_run_is_the_same_mlflow_run(result: Result, tmp_path: Path) -> None:
    assert not LightningTracker.has_begun(tmp_path)
    opened(tmp_path, "doubles.MLFlowLogger").finish(failed=True)
    assert LightningTracker.has_begun(tmp_path)
    tracker = opened(tmp_path, "doubles.MLFlowLogger", run_name="mine")
    tracker.start(result.summary, "val/f1", "max", ())  # MLflow takes no other value for a parameter
    first, second = PlainLogger.made
    assert (first.status, first.updated) == ("failed", [])
    assert second.arguments == {"run_name": "mine", "run_id": "id1"}
    assert second.updated == ["RUNNING"]
    assert (second.run_id, second.parameters) == ("id1", {})


def test_a_classification_has_no_masks(result: Result, tmp_path: Path) -> None:
    tracker = opened(tmp_path, "doubles.BoardLogger", "eval")
    tracker.result(type(result)(result.summary, result.rows, result.pictures, {}, {}))
    (logger,) = PlainLogger.made
    assert set(logger.images) == {"test/confusion_matrix", "test/roc", "test/pr", "test/worst_mistakes"}


def test_a_segmentation_has_masks_alone(result: Result, tmp_path: Path) -> None:
    rows = [{"image": row["image"], "label": row["label"], "dice": row["dice"]} for row in result.rows]
    tracker = opened(tmp_path, "doubles.BoardLogger")
    masks = (result.true_masks, result.predicted_masks)
    tracker.result(type(result)(result.summary, rows, result.pictures, *masks))
    (logger,) = PlainLogger.made
    assert set(logger.images) == {"test/masks_worst", "test/masks_median", "test/masks_best"}


def test_what_is_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="logger: BrokenLogger cannot be started: No module named 'absent'"):
        opened(tmp_path, "doubles.BrokenLogger")
    monkeypatch.setattr("busi_lab.tracking.lightning.find_spec", lambda name: None)
    check_trackers({"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger"}})
    for package, name in (("tensorboard", "TensorBoardLogger"), ("mlflow", "MLFlowLogger")):
        with pytest.raises(UserError, match=rf"{package} is not installed; pip install 'busi-lab\[{package}\]'"):
            check_trackers({package: {"_target_": f"lightning.pytorch.loggers.{name}"}})


def test_tensorboard_itself(result: Result, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = {"save_dir": str(tmp_path), "name": "tensorboard", "version": ""}
    tracker = opened(tmp_path, "lightning.pytorch.loggers.TensorBoardLogger", **place)
    tell(tracker, result)
    tracker.report(comparison(tmp_path / "comparison"))
    tracker.finish(failed=False)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert set(tags["images"]) == {*FIGURES, "val/masks", "report/table1_metrics"}
    assert {"val/f1", "optim/lr", "test/accuracy", "best/val/f1", "best/epoch"} <= set(tags["scalars"])
    assert events.Scalars("test/accuracy")[0].value == 0.5
    assert {"test/predictions/text_summary", "report/runs/text_summary"} <= set(tags["tensors"])
    assert "cnn" in (tmp_path / "tensorboard/hparams.yaml").read_text()


@pytest.mark.slow
def test_mlflow_itself(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    place = {"experiment_name": "small", "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "run_name": None}
    target = "lightning.pytorch.loggers.MLFlowLogger"
    opened(tmp_path, target, **place).finish(failed=True)
    tell(opened(tmp_path, target, **place), result)  # continued: its parameters are those of the first start
    client = MlflowClient(place["tracking_uri"])
    (run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert (run.info.run_name, run.info.status) == ("small-seed0", "FINISHED")
    assert run.data.metrics.items() >= {"val/f1": 0.5, "test/accuracy": 0.5, "best/val/f1": 0.4}.items()
    files = {item.path for item in client.list_artifacts(run.info.run_id, "test")}
    assert files == {*(f"{name}.png" for name in FIGURES), "test/predictions.csv"}
    assert [item.path for item in client.list_artifacts(run.info.run_id, "val/masks")] == ["val/masks/epoch0000.png"]
