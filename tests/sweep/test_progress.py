"""How far a sweep is: states from directories alone, and what is left."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from busi_lab.errors import UserError
from busi_lab.files import write_rows
from busi_lab.locks import locked
from busi_lab.status import describe, duration
from busi_lab.summary import Objective, Summary, write_summary
from busi_lab.sweep.progress import progress
from busi_lab.sweep.record import JobRecord, SweepRecord, read_sweep, write_sweep
from tests.programs import call


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Six jobs: one finished in 100 s, one failed, one cut, one running, two that were not begun."""
    names = ("done", "broken", "cut", "now", "later", "last")
    write_sweep(tmp_path, SweepRecord(1, jobs=tuple(JobRecord(name, (), ()) for name in names)))
    objective, metrics = Objective("val/f1", "max"), {"val/f1": 0.75}
    write_summary(
        tmp_path / "done", Summary("finished", epochs=10, objective=objective, metrics=metrics, seconds={"total": 100})
    )
    write_summary(tmp_path / "broken", Summary("failed", error="no space left"))
    for name, epochs in (("cut", 5), ("now", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("trainer:\n  max_epochs: 10\n")
        write_rows(
            tmp_path / name / "metrics.csv", [{"epoch": e, "seconds": 9.0} for e in range(epochs)], ["epoch", "seconds"]
        )
    (tmp_path / "cut/checkpoints").mkdir()
    (tmp_path / "cut/checkpoints/last.ckpt").touch()
    return tmp_path


def test_states_come_from_directories(sweep: Path) -> None:
    with locked(sweep / "now"):
        found = progress(sweep)
    assert {job.name: job.state for job in found.jobs} == {
        "done": "finished",
        "broken": "failed",
        "cut": "stopped",
        "now": "running",
        "later": "waiting",
        "last": "waiting",
    }
    assert found.counts == {"running": 1, "finished": 1, "failed": 1, "stopped": 1, "waiting": 2}
    # one at a time: of the running one 8 epochs of 9 s, of the cut one 5, of two others the median of 100 and 90
    assert found.left == pytest.approx(72 + 45 + 2 * 95)
    text = describe(found)
    assert "running   now     epoch 2 of 10, 9.0 s an epoch" in text
    assert "failed    broken  no space left" in text
    assert "finished  done    val/f1 0.7500, 2 min" in text
    assert text.endswith("6 jobs: 1 running, 1 finished, 1 failed, 1 stopped, 2 waiting; about 5 min left")
    assert progress(sweep).left is None  # nothing runs


def test_a_failed_job_that_runs_again_is_running(sweep: Path) -> None:
    with locked(sweep / "broken"):
        assert progress(sweep).counts["running"] == 1


def test_a_search_has_trials_to_come(sweep: Path) -> None:
    record = read_sweep(sweep)
    assert record is not None
    write_sweep(sweep, replace(record, to_come=4))
    with locked(sweep / "now"):
        found = progress(sweep)
    assert found.left == pytest.approx(72 + 45 + (2 + 4) * 95)
    assert "2 waiting; 4 to be proposed; about" in describe(found)


def test_a_sweep_between_two_jobs_goes_on(sweep: Path) -> None:
    assert not progress(sweep).goes_on
    with locked(sweep):
        found = progress(sweep)
    assert found.goes_on and "running" not in found.counts


def test_older_sweeps_have_no_record(sweep: Path) -> None:
    (sweep / "sweep.json").unlink()
    assert [job.name for job in progress(sweep).jobs] == ["broken", "cut", "done", "now"]


def test_as_it_is_typed(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("status", str(sweep), "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["waiting"] == 3
    for wrong, line in (
        (sweep / "nowhere", "no such folder; give the directory of a sweep"),
        (sweep / "done", "holds no sweep"),
    ):
        assert call("status", str(wrong)) == 2
        printed = capsys.readouterr().err
        assert line in printed and printed.count("\n") == 1
    (sweep / "sweep.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        progress(sweep)


def test_times_are_told_as_people_do() -> None:
    assert [duration(s) for s in (12.3, 99, 180, 5990, 7500)] == ["12 s", "99 s", "3 min", "1 h 40 min", "2 h 05 min"]
