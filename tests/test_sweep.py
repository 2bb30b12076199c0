"""Sweeps: names, isolation of jobs, what is not run again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from busi_lab import sweep
from busi_lab.run_directory import Summary, locked, read_summary, write_summary

FAST = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=none")


def run_sweep(cwd: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "busi_lab.train", "-m", *FAST, *overrides]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)


def test_jobs_are_named_by_what_sets_them_apart() -> None:
    common = "trainer.max_epochs=3"
    jobs = [[f"experiment=paper/{name}", f"seed={seed}", common] for name in ("vgg16", "mobilenet") for seed in (0, 1)]
    names = sweep.job_names(jobs, {"experiment", "seed"})
    assert names == ["paper-vgg16-seed0", "paper-vgg16-seed1", "paper-mobilenet-seed0", "paper-mobilenet-seed1"]
    assert sweep.job_names([["seed=0"]], ()) == ["job"]
    assert sweep.job_names(jobs[:1], {"experiment", "seed"}) == names[:1]  # a batch of its own, the same name
    for values in (["a='x, y=1'", "a='x; y=1'"], ["a=[1,2]", "a=[1;2]"]):
        odd = sweep.job_names([[value] for value in values], {"a"})
        assert len(set(odd)) == 2
        assert all(not set("=,/' ") & set(name) for name in odd)
    both = sweep.job_names([["+a.x=1", "+b.x=2"], ["+a.x=2", "+b.x=1"]], {"a.x", "b.x"})
    assert len(set(both)) == 2


def test_a_sweeps_directory_follows_from_its_command() -> None:
    first = sweep.directory_name(["sweep=paper_classifiers", "seed=1"])
    assert first == sweep.directory_name(["seed=1", "sweep=paper_classifiers"])
    assert first.startswith("paper_classifiers-")
    assert first != sweep.directory_name(["sweep=paper_classifiers", "seed=2"])


def test_visible_gpus_respects_the_environment() -> None:
    assert sweep.visible_gpus({"CUDA_VISIBLE_DEVICES": "2,3"}) == ["2", "3"]
    assert sweep.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


@pytest.mark.parametrize("finished", [True, False])
def test_a_single_run_leaves_no_record_of_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    monkeypatch.delenv("BUSI_LAB_JOB", raising=False)
    config = OmegaConf.create({"name": None, "logger": {}})
    sweep.record_failure(tmp_path, config, sweep.UserError("no"))
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("BUSI_LAB_JOB", "1")
    if finished:
        write_summary(tmp_path, Summary("finished"))
    sweep.record_failure(tmp_path, config, sweep.UserError("no"))
    assert read_summary(tmp_path).status == ("finished" if finished else "failed")


def test_one_job_fails_the_others_go_on_and_nothing_is_done_twice(phantom_root: Path, tmp_path: Path) -> None:
    overrides = (f"data.root={phantom_root}", "data.batch_size=4,0,8")
    first = run_sweep(tmp_path, *overrides)
    assert first.returncode == 1, first.stderr
    (directory,) = (tmp_path / "sweeps").iterdir()
    states = {path.name: read_summary(path) for path in directory.glob("batch_size*")}
    assert {name: summary.status for name, summary in states.items()} == {
        "batch_size4": "finished",
        "batch_size0": "failed",
        "batch_size8": "finished",
    }
    assert states["batch_size0"].error == "data.batch_size=0: expected more than 0"
    assert "data.batch_size=0: expected more than 0" in first.stdout
    assert (directory / "comparison/table.csv").exists()
    assert str(directory / "comparison") in first.stdout
    stamps = {path: path.stat().st_mtime_ns for path in directory.glob("*/predictions.csv")}
    second = run_sweep(tmp_path, *overrides)
    assert second.returncode == 1
    assert second.stdout.count("finished before, not run again") == 2
    assert stamps == {path: path.stat().st_mtime_ns for path in directory.glob("*/predictions.csv")}
    assert "Traceback" not in first.stderr + second.stderr


def test_a_killed_job_is_on_record(phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that dies by a signal, as the out-of-memory killer sends, does not end the sweep."""
    site = tmp_path / "site"
    site.mkdir()
    # SIGKILL in the first epoch of the job with seed 1
    (site / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'seed=1' in sys.argv and 'hydra.mode=RUN' in sys.argv:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    done = run_sweep(tmp_path, f"data.root={phantom_root}", "seed=0,1")
    assert done.returncode == 1
    (directory,) = (tmp_path / "sweeps").iterdir()
    assert read_summary(directory / "seed0").status == "finished"
    assert read_summary(directory / "seed1").error == "the process was killed by SIGKILL"


def test_one_experiment_beside_a_sweep_over_experiments_is_refused(phantom_root: Path, tmp_path: Path) -> None:
    command = ("sweep=paper_classifiers", "experiment=paper/vgg16", f"data.root={phantom_root}")
    done = run_sweep(tmp_path, *command)
    assert done.returncode == 2
    assert done.stderr.startswith("error: experiment=paper/vgg16: the chosen sweep varies experiment")
    assert not list(tmp_path.glob("sweeps/*/*/summary.json"))


def test_a_sweep_stops_starting_jobs_after_some_failures(phantom_root: Path, tmp_path: Path) -> None:
    done = run_sweep(tmp_path, f"data.root={phantom_root}", "optim.lr=0,-1,1e-4", "sweep.max_failures=1")
    assert done.returncode == 1
    (directory,) = (tmp_path / "sweeps").iterdir()
    assert sorted(path.parent.name for path in directory.glob("*/summary.json")) == ["lr0"]
    assert done.stdout.count("not started after 1 failures (sweep.max_failures)") == 2


@pytest.mark.parametrize("setting", ["sweep.max_failures=0", "hydra.launcher.n_jobs=-1"])
def test_wrong_sweep_settings(phantom_root: Path, tmp_path: Path, setting: str) -> None:
    done = run_sweep(tmp_path, f"data.root={phantom_root}", "seed=0,1", setting)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {setting}: expected null or at least 1")


def test_a_finished_job_of_another_configuration_is_not_taken_for_this_one(phantom_root: Path, tmp_path: Path) -> None:
    common = (f"data.root={phantom_root}", "seed=0", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert run_sweep(tmp_path, *common).returncode == 0
    done = run_sweep(tmp_path, *common, "trainer.max_epochs=3")
    assert done.returncode == 2
    assert "holds a run with another epochs" in done.stderr


def test_a_sweep_runs_once_at_a_time(phantom_root: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "sweep"):
        done = run_sweep(tmp_path, f"data.root={phantom_root}", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.returncode == 2
    assert "in use by another process" in done.stderr


def test_jobs_side_by_side_write_their_own_logs(phantom_root: Path, tmp_path: Path) -> None:
    done = run_sweep(tmp_path, f"data.root={phantom_root}", "seed=0,1", "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    logs = sorted((tmp_path / "sweeps").glob("*/seed*/job.log"))
    assert len(logs) == 2
    assert all("best epoch" in path.read_text() for path in logs)


def test_the_whole_published_system_on_phantoms(phantom_root: Path, tmp_path: Path) -> None:
    common = ("sweep=paper_all", "trainer=smoke", "data.image_size=96", "data.batch_size=8", "logger=none")
    command = [sys.executable, "-m", "busi_lab.train", "-m", *common, f"data.root={phantom_root}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    (directory,) = (tmp_path / "sweeps").iterdir()
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
