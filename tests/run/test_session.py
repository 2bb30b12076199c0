"""A run directory while it is written: what is left of a good end, a failure, and a request to stop."""

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from busi_lab.errors import UserError
from busi_lab.locks import locked
from busi_lab.run.session import Session, session
from busi_lab.run.stop import Interrupted, StopRequest, sweep_has_died
from busi_lab.run_directory import LIFELINE_VARIABLE
from busi_lab.summary import Summary, read_summary
from busi_lab.tracking import Job, Result, Tracker

TOLD: list[tuple[Any, ...]] = []
LOGGERS = {"told": {"_target_": f"{__name__}.Told"}}


class Told(Tracker):
    """Notes what it is told, and what is on the disk then."""

    def __init__(self, settings: Mapping[str, Any], job: Job) -> None:
        super().__init__(settings, job)
        if settings.get("refuses"):
            raise UserError("not today")

    def result(self, result: Result) -> None:
        TOLD.append(("result", read_summary(self.job.directory).status))
        if self.settings.get("is_slow"):
            raise Interrupted(signal.SIGTERM)

    def failure(self, error: str) -> None:
        TOLD.append(("failure", error, (self.job.directory / "summary.json").exists()))

    def finish(self, failed: bool) -> None:
        TOLD.append(("finish", failed))


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    TOLD.clear()


def run(folder: Path, error: BaseException | None = None, loggers: Mapping[str, Any] = LOGGERS, **more: Any) -> Summary:
    summary = Summary("failed", experiment="small")
    with session(summary, Job(folder, "small", "train", {}), loggers, time.perf_counter(), **more) as opened:
        assert isinstance(opened, Session)
        with pytest.raises(UserError, match="in use by another process"), locked(folder):
            pass
        if error is not None:
            raise error
        opened.result = Result(summary, [], {}, {}, {})
    return summary


def test_a_good_end_is_written_before_the_trackers_are_shown_it(tmp_path: Path) -> None:
    summary = run(tmp_path)
    assert (summary.status, read_summary(tmp_path).status) == ("finished", "finished")
    assert summary.seconds["total"] >= 0
    assert TOLD == [("result", "finished"), ("finish", False)]


@pytest.mark.parametrize(
    ("error", "words"), [(UserError("too small"), "too small"), (ZeroDivisionError("by 0"), "ZeroDivisionError: by 0")]
)
def test_a_failure_is_on_record(tmp_path: Path, error: Exception, words: str) -> None:
    with pytest.raises(type(error)):
        run(tmp_path, error)
    assert (read_summary(tmp_path).status, read_summary(tmp_path).error) == ("failed", words)
    assert [("failure", words, True), ("finish", True)] == TOLD


def test_a_run_that_was_asked_to_stop_leaves_no_summary(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with pytest.raises(Interrupted):
        run(tmp_path, Interrupted(signal.SIGTERM))
    assert not (tmp_path / "summary.json").exists()
    assert TOLD == [("finish", True)]
    assert caplog.messages == [f"stopped; continue with: busi-train resume={tmp_path}"]


def test_a_stop_while_trackers_are_shown_the_result_leaves_a_finished_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(Interrupted):
        run(tmp_path, loggers={"told": {**LOGGERS["told"], "is_slow": True}})
    assert read_summary(tmp_path).status == "finished"
    assert TOLD[-1] == ("finish", False)
    assert caplog.messages == ["stopped before all trackers were shown the result; the run itself is finished"]


def test_a_directory_that_another_has_used_meanwhile_is_left_alone(tmp_path: Path) -> None:
    def refuse(directory: Path) -> None:
        raise UserError(f"{directory} holds a result")

    with pytest.raises(UserError, match="holds a result"):
        run(tmp_path, refuse=refuse)
    assert TOLD == []
    assert not (tmp_path / "summary.json").exists()


def test_a_tracker_that_cannot_start_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not today"):
        run(tmp_path, loggers={"told": {**LOGGERS["told"], "refuses": True}})
    assert json.loads((tmp_path / "summary.json").read_text())["error"] == "not today"


def test_a_stop_is_noted_in_training_and_raised_elsewhere_or_when_asked_twice() -> None:
    with StopRequest().watch() as stop:
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # again: what is on its way to the end is left to end
    with StopRequest().watch() as stop:
        stop.training = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested()
        assert stop.signum == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # SLURM signals every process of a job, and the one above this one too
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_job_notices_that_its_sweep_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIFELINE_VARIABLE, raising=False)
    assert not sweep_has_died()
    ours, theirs = os.pipe()
    inode = os.fstat(ours).st_ino
    monkeypatch.setenv(LIFELINE_VARIABLE, f"{ours}:{inode}")
    assert not sweep_has_died()
    monkeypatch.setenv(LIFELINE_VARIABLE, f"{ours}:{inode + 1}")  # the number means another file here
    os.close(theirs)
    assert not sweep_has_died()
    monkeypatch.setenv(LIFELINE_VARIABLE, f"{ours}:{inode}")
    assert sweep_has_died()
    assert StopRequest().requested()
    os.close(ours)
