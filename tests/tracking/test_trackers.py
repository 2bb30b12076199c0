"""All trackers are told the same, none can harm the run, and one of one's own is a single class."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles import PlainLogger, Recorder, Result, Told
from hydra import compose, initialize_config_dir

from busi_lab.config import config_dir
from busi_lab.errors import UserError
from busi_lab.summary import Summary, read_summary
from busi_lab.tracking import (
    Job,
    Trackers,
    check_trackers,
    open_trackers,
    publish_report,
    record_failed_start,
    sweep_environment,
)
from busi_lab.tracking.lightning import LightningTracker
from busi_lab.tracking.trackers import tracker_class
from busi_lab.tracking.wandb import WandbTracker
from busi_lab.train import train

OWN = {"_target_": "doubles.Told"}


@pytest.fixture(autouse=True)
def calls() -> Iterator[list[tuple[Any, ...]]]:
    Told.calls.clear()
    yield Told.calls
    PlainLogger.made.clear()


def test_a_name_is_a_module_and_a_target_a_class() -> None:
    assert tracker_class("wandb", {}) is WandbTracker
    assert tracker_class("anything", OWN).__name__ == "Told"
    assert tracker_class("other", {"_target_": "doubles.PlainLogger"}) is LightningTracker
    assert tracker_class("tensorboard", {"_target_": "lightning.pytorch.loggers.TensorBoardLogger"}) is LightningTracker


@pytest.mark.parametrize(
    ("loggers", "message"),
    [
        ({"wandbb": {}}, "logger.wandbb: no such tracker; expected wandb, or settings with _target_, a class"),
        ({"lightning": {}}, "logger.lightning: no such tracker"),
        ({"own": {"_target_": "nowhere.Told"}}, "logger.own._target_=nowhere.Told: cannot be imported"),
        ({"wandb": {"projekt": "x"}}, "logger.wandb.projekt: unknown key"),
    ],
)
def test_wrong_trackers_are_one_line(loggers: dict[str, Any], message: str, tmp_path: Path) -> None:
    for use in (check_trackers, lambda group: sweep_environment(group, tmp_path)):
        with pytest.raises(UserError) as caught:
            use(loggers)
        assert message in str(caught.value)


def test_all_are_told_the_same(result: Result, tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    trackers = open_trackers({"one": OWN, "none": None, "two": OWN}, Job(tmp_path, "small", "train", {}))
    trackers.start(result.summary, "val/f1", "max", ())
    trackers.epoch({"epoch": 0})
    trackers.result(result)
    trackers.finish(failed=False)
    one = [("open", "small", "train"), ("start", "val/f1", "max"), ("epoch", 0), ("result", "finished")]
    assert calls == [call for call in (*one, ("finish", False)) for _ in range(2)]
    assert trackers and not Trackers({})
    assert trackers.record == {}


def test_a_run_goes_on_without_what_breaks(
    result: Result, tmp_path: Path, caplog: pytest.LogCaptureFixture, calls: list[tuple[Any, ...]]
) -> None:
    broken = {**OWN, "breaks": ["epoch", "finish"]}
    trackers = open_trackers({"bad": broken, "good": OWN}, Job(tmp_path, "small", "train", {}))
    trackers.epoch({"epoch": 0})
    trackers.epoch({"epoch": 1})
    trackers.result(result)
    trackers.finish(failed=False)
    assert caplog.messages == ["Told is lost (ConnectionResetError: the service is gone); the run goes on"]
    assert [call[1] for call in calls if call[0] == "epoch"] == [0, 0, 1]
    assert [call[0] for call in calls].count("finish") == 2  # the lost one is ended as well


def test_wandb_keeps_its_words(recorder: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trackers = open_trackers({"wandb": {"mode": "offline"}}, Job(tmp_path, "small", "train", {}))
    recorder.runs[0].log = None  # type: ignore[assignment,method-assign]
    trackers.epoch({"epoch": 0})
    trackers.epoch({"epoch": 1})
    trackers.finish(failed=False)
    (message,) = [words for words in caplog.messages if "is lost" in words]
    assert message.startswith("W&B is lost (TypeError: ") and message.endswith("; the run goes on")
    assert recorder.runs[0].exit_code == 0
    assert set(trackers.record) == {"wandb"}


def test_trackers_that_were_opened_are_ended_when_the_next_refuses(
    recorder: Recorder, tmp_path: Path, calls: list[tuple[Any, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "wandb").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written to"):
        open_trackers({"own": OWN, "wandb": {}}, Job(tmp_path, "small", "train", {}))
    assert calls[-1] == ("finish", True)
    assert not open_trackers({"own": {**OWN, "breaks": ["open"]}}, Job(tmp_path, "small", "train", {}))
    assert "Told is lost" in caplog.messages[-1]


def test_panels_of_masks_belong_to_those_who_want_them(tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    one, two, three = (Told({}, Job(tmp_path, "small", "train", {})) for _ in range(3))
    one.mask_panel, two.mask_panel = (8, 5), (2, 1)
    trackers = Trackers({"one": one, "two": two, "three": three})
    assert [panel[:2] for panel in trackers.mask_panels] == [(8, 5), (2, 1)]
    calls.clear()
    trackers.mask_panels[1][2](4, [])
    assert calls == [("masks", 4)]


def test_a_sweep_hands_out_an_environment_and_publishes_in_it(
    recorder: Recorder, tmp_path: Path, calls: list[tuple[Any, ...]]
) -> None:
    loggers = {"wandb": {}, "own": OWN}
    environment = sweep_environment(loggers, tmp_path / "sweep")
    assert environment == {"WANDB_MODE": "offline", "WANDB_RUN_GROUP": "sweep", "TOLD": "sweep"}
    publish_report(loggers, tmp_path, "report-sweep", environment)
    assert calls == [("open", "report-sweep", "report"), ("report", tmp_path.name), ("finish", False)]
    arguments = recorder.runs[0].arguments
    assert (arguments["group"], arguments["name"], arguments["mode"]) == ("sweep", "report-sweep", "offline")
    assert "TOLD" not in os.environ


def test_a_job_that_cannot_start_leaves_its_reason_once(
    recorder: Recorder, tmp_path: Path, calls: list[tuple[Any, ...]]
) -> None:
    for _ in range(2):
        record_failed_start({"wandb": {}, "own": OWN}, tmp_path, {"name": "x"}, "no scans")
    (run,) = recorder.runs  # the second time its run has been ended already
    assert (run.summary["error"], run.exit_code, run.arguments["config"]) == ("no scans", 1, {"name": "x"})
    assert calls[:3] == [("open", tmp_path.name, "train"), ("failure", "no scans"), ("finish", True)]


def test_a_run_that_dies_in_training_is_marked_failed(
    recorder: Recorder, phantom_root: Path, tmp_path: Path, calls: list[tuple[Any, ...]]
) -> None:
    """One class that ``_target_`` names is enough, beside W&B."""
    run = tmp_path / "run"
    fast = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "+logger.own._target_=doubles.Told", "seed=3")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        bad = ("optim.name=sgd", "optim.lr=1e30")
        config = compose("train", [*fast, *bad, f"data.root={phantom_root}", f"run_dir={run}"])
    with pytest.raises(UserError, match="training loss became"):
        train(config)
    assert calls[:2] == [("open", "custom_cnn-seed3", "train"), ("start", "val/f1", "max")]
    assert ("epoch", 0) in calls
    assert calls[-1] == ("finish", True)
    assert recorder.runs[0].exit_code == 1
    assert recorder.runs[0].configured["model"]["name"] == "custom_cnn"
    assert "val/loss" in recorder.runs[0].shown
    summary = read_summary(run)
    assert summary.status == "failed"
    assert summary.wandb == {"id": recorder.runs[0].id, "group": None, "directory": "wandb"}
    assert isinstance(summary, Summary)
