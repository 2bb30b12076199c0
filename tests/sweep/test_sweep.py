"""Sweeps as a user types them: isolation of jobs, what is not run again, what stops them."""

import math
import os
import signal
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import pytest
from hydra_plugins.busi_lab_launcher import worst_value
from omegaconf import OmegaConf

from busi_lab.errors import UserError
from busi_lab.locks import locked
from busi_lab.summary import Summary, read_summary, write_summary
from busi_lab.sweep.executors import make_executor
from busi_lab.sweep.executors.local import LocalExecutor, LocalSettings
from busi_lab.sweep.outcome import record_failure
from busi_lab.sweep.record import read_sweep
from tests.programs import Programs, call

Sweep = Callable[..., tuple[int, str, str]]


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


@pytest.mark.parametrize("finished", [True, False])
def test_a_single_run_leaves_no_record_of_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    monkeypatch.delenv("BUSI_LAB_JOB", raising=False)
    config = OmegaConf.create({"name": None, "logger": {}})
    record_failure(tmp_path, config, UserError("no"))
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("BUSI_LAB_JOB", "1")
    if finished:
        write_summary(tmp_path, Summary("finished"))
    record_failure(tmp_path, config, UserError("no"))
    assert read_summary(tmp_path).status == ("finished" if finished else "failed")


def test_one_job_fails_the_others_go_on_and_nothing_is_done_twice(sweep: Sweep, tmp_path: Path) -> None:
    code, output, errors = sweep("split.test_fraction=0.2,0.001,0.3")
    assert code == 1, errors
    directory = only(tmp_path / "sweeps")
    states = {path.name: read_summary(path) for path in directory.glob("test_fraction*")}
    assert {name: summary.status for name, summary in states.items()} == {
        "test_fraction0.2": "finished",
        "test_fraction0.001": "failed",
        "test_fraction0.3": "finished",
    }
    reason = states["test_fraction0.001"].error
    assert reason is not None and "leaves no benign image for test" in reason
    assert reason in output
    assert str(directory / "comparison") in output
    stamps = {path: path.stat().st_mtime_ns for path in directory.glob("*/predictions.csv")}
    code, output, again = sweep("split.test_fraction=0.2,0.001,0.3")
    assert code == 1
    assert output.count("finished before, not run again") == 2
    assert stamps == {path: path.stat().st_mtime_ns for path in directory.glob("*/predictions.csv")}
    assert "Traceback" not in errors + again


def test_a_killed_job_is_on_record(sweep: Sweep, tmp_path: Path) -> None:
    """A job that dies by a signal, as the out-of-memory killer sends, does not end the sweep."""
    dying = "+callbacks.dying._target_=tests.sweep.test_sweep.Dying"
    code, _, _ = sweep("seed=0,1", dying, "+callbacks.dying.seed=${seed}")
    assert code == 1
    directory = only(tmp_path / "sweeps")
    assert read_summary(directory / "seed0").status == "finished"
    assert read_summary(directory / "seed1").error == "the process was killed by SIGKILL"


def Dying(seed: int) -> object:  # noqa: N802 (named as a class in a configuration)
    """A callback for the test above: kills the job with seed 1 when it is built."""
    from lightning.pytorch.callbacks import Callback

    if seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return Callback()


def test_one_experiment_beside_a_sweep_over_experiments_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    code, _, errors = sweep("sweep=paper_classifiers", "experiment=paper/vgg16")
    assert code == 2
    assert errors.startswith("error: experiment=paper/vgg16: the chosen sweep varies experiment")
    assert not list(tmp_path.glob("sweeps/*/*/summary.json"))


def test_a_sweep_stops_starting_jobs_after_some_failures(sweep: Sweep, tmp_path: Path) -> None:
    code, output, _ = sweep("split.test_fraction=0.001,0.002,0.2", "sweep.max_failures=1")
    assert code == 1
    directory = only(tmp_path / "sweeps")
    assert sorted(path.parent.name for path in directory.glob("*/summary.json")) == ["test_fraction0.001"]
    assert output.count("not started after 1 failure (sweep.max_failures)") == 2


def test_a_wrong_value_is_found_before_the_first_job(sweep: Sweep, tmp_path: Path) -> None:
    code, _, errors = sweep("data.batch_size=4,0,-1")
    assert code == 2
    expected = "data.batch_size=0: expected more than 0 (job batch_size0; 2 of 3 jobs are wrong, so none was started)"
    assert errors == f"error: {expected}\n"
    assert not list(tmp_path.glob("sweeps/*/*/*"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sweep.max_failures=0", "sweep.max_failures=0: expected null or at least 1"),
        ("launcher.jobs=-1", "launcher.jobs=-1: expected at least 1"),
        ("launcher.jobs=two", "configuration: launcher.jobs: Value 'two' of type 'str' could not be converted"),
        ("launcher=cloud", "launcher=cloud: no such option; choices: local"),
        (
            "launcher.job=2",
            "launcher.job: unknown key; did you mean jobs? known keys of local: name, jobs, jobs_per_gpu",
        ),
        ("launcher.jobs=1,2", "launcher.jobs: a sweep runs in one place; give one value"),
    ],
)
def test_wrong_sweep_settings(sweep: Sweep, setting: str, message: str) -> None:
    code, _, errors = sweep("seed=0,1", setting)
    assert code == 2
    assert errors.startswith(f"error: {message}")


def test_a_finished_job_of_another_configuration_is_not_taken_for_this_one(sweep: Sweep, tmp_path: Path) -> None:
    common = ("seed=0", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert sweep(*common)[0] == 0
    changes = {
        "trainer.max_epochs=3": "epochs",
        "test=false": "test",
        "callbacks=early_stopping": "callbacks",
        "trainer.precision=bf16-mixed": "trainer",
    }
    for change, key in changes.items():
        code, _, errors = sweep(*common, change)
        assert code == 2
        assert f"holds a run with another {key}" in errors


@pytest.mark.parametrize("more", [(), ("hydra.sweep.dir=elsewhere",)])
def test_other_launchers_are_refused(sweep: Sweep, tmp_path: Path, more: tuple[str, ...]) -> None:
    code, _, errors = sweep("seed=0,1", "hydra/launcher=basic", *more)
    assert code == 2
    assert errors.count("error: hydra/launcher: BasicLauncher would run jobs that cannot be continued") == 1
    assert not list(tmp_path.rglob("summary.json"))


def test_a_sweep_runs_once_at_a_time(sweep: Sweep, tmp_path: Path) -> None:
    with locked(tmp_path / "sweep"):
        code, _, errors = sweep("seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert code == 2
    assert "in use by another process" in errors


def test_jobs_side_by_side_write_their_own_logs(sweep: Sweep, tmp_path: Path) -> None:
    code, _, errors = sweep("seed=0,1", "launcher.jobs=2")
    assert code == 0, errors
    logs = sorted((tmp_path / "sweeps").glob("*/seed*/job.log"))
    assert len(logs) == 2
    assert all("best epoch" in path.read_text() for path in logs)


def test_runs_without_a_test_are_ranked_by_validation_and_tested_later(sweep: Sweep, tmp_path: Path) -> None:

    code, output, errors = sweep("seed=0,1", "test=false", "hydra.sweep.dir=sweep")
    assert code == 0, errors
    for seed in (0, 1):
        run = tmp_path / f"sweep/seed{seed}"
        summary = read_summary(run)
        assert summary.status == "finished"
        assert summary.metrics["val/f1"] >= 0
        assert not [name for name in summary.metrics if name.startswith("test/")]
        assert (run / "validation.csv").exists()
        assert not (run / "predictions.csv").exists()
    assert "Ranked by val/f1 (higher is better); no run was tested (test=false)" in output
    assert "2 of 2 runs of custom_cnn were not tested (test=false)." in output
    assert (tmp_path / "sweep/comparison/report.html").exists()
    assert call("evaluate", "run=sweep/seed0", "hydra.run.dir=tested", "trainer=cpu") == 0
    assert read_summary(tmp_path / "tested").metrics["test/accuracy"] >= 0


def test_places_share_gpus_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def places(jobs: int | None, gpus: str, **trainer: object) -> list[dict[str, str]]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        settings = LocalSettings(jobs, jobs_per_gpu=trainer.pop("jobs_per_gpu", 1))  # type: ignore[arg-type]
        executor, configs = LocalExecutor(settings), [OmegaConf.create({"trainer": trainer})]
        found = [dict(place) for place in executor.places(configs)]
        threads.append(executor.threads(configs))
        executor.close()
        return found

    threads: list[int] = []

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("busi_lab.sweep.executors.local.cpu_count", lambda: 5)
    assert places(None, "2,3", accelerator="auto") == [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "3"}]
    assert places(3, "2,3", accelerator="gpu")[2] == {"CUDA_VISIBLE_DEVICES": "2"}
    assert places(None, "2,3", accelerator="gpu", devices=2) == [{}]
    assert places(None, "2,3", accelerator="cpu") == [{}]
    assert places(None, "2,3", accelerator="gpu", jobs_per_gpu=2) == [{"CUDA_VISIBLE_DEVICES": n} for n in "2323"]
    assert places(2, "", accelerator="auto") == [{}, {}]
    assert threads == [2, 1, 5, 5, 1, 2]  # of five cores
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    places(2, "", accelerator="auto")
    assert threads[-1] == 3


def test_executors_are_found_by_their_file() -> None:
    executor = make_executor({"name": "local", "jobs": 2})
    assert isinstance(executor, LocalExecutor)
    executor.close()


def test_one_run_has_no_place_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("train", "launcher.name=slurm") == 2
    assert "error: launcher=slurm: it places the jobs of a sweep; add -m, also for one job" in capfd.readouterr().err


def test_threads_are_those_with_which_a_sweep_was_begun(sweep: Sweep, tmp_path: Path) -> None:
    common = ("seed=0", "hydra.sweep.dir=sweep", "test=false")
    assert sweep(*common, "launcher.threads=2")[0] == 0
    code, _, errors = sweep(*common, "launcher.threads=1")
    assert code == 0, errors
    record = read_sweep(tmp_path / "sweep")
    assert record is not None
    assert (record.threads, [job.name for job in record.jobs]) == (2, ["job"])
    assert not any("launcher" in item for job in record.jobs for item in job.begin)


@pytest.mark.slow
def test_the_whole_published_system_on_phantoms(programs: Programs, phantom_root: Path, tmp_path: Path) -> None:
    common = ("sweep=paper_all", "trainer=smoke", "data.image_size=96", "data.batch_size=8", "logger=none")
    programs.run("train", "-m", *common, f"data.root={phantom_root}", cwd=tmp_path)
    directory = only(tmp_path / "sweeps")
    tasks = {path.parent.name: read_summary(path.parent).task for path in directory.glob("*/summary.json")}
    assert tasks == {
        "paper-mobilenet": "classification",
        "paper-inception_v3": "classification",
        "paper-vgg16": "classification",
        "paper-custom_cnn": "classification",
        "paper-unet": "segmentation",
        "joint-mobilenet": "multitask",
    }
    page = (directory / "comparison/report.html").read_text()
    for words in ("paper/unet", "joint/mobilenet", "One encoder or two"):
        assert words in page


def test_a_failed_job_has_the_worst_value_for_a_sweeper_with_a_direction() -> None:
    class Direction(Enum):  # as hydra-optuna-sweeper has it
        minimize = 1
        maximize = 2

    assert worst_value("maximize") == worst_value(Direction.maximize) == -math.inf
    assert worst_value("minimize") == worst_value(Direction.minimize) == math.inf
    assert math.isnan(worst_value(None)) and math.isnan(worst_value(["maximize", "minimize"]))
