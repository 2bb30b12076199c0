"""A run that is killed and continued ends as if nothing had happened."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from busi_lab.run_directory import read_run, read_summary

RUN = (
    "trainer=cpu",
    "trainer.max_epochs=7",
    "model.weights=none",
    "model.dropout=0.3",
    "data.image_size=64",
    "data.batch_size=2",
    "optim=adamw",
    "logger=none",
)


def start(cwd: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "busi_lab.train", *overrides]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(cwd: Path, *overrides: str) -> str:
    process = start(cwd, *overrides)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def epochs(run: Path) -> int:
    path = run / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def wait_for(condition: object, process: subprocess.Popen[str], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "the run does not get on"
        time.sleep(0.01)


def stop_after(run: Path, process: subprocess.Popen[str], rows: int, delay: float, signum: int) -> int:
    """Send a signal some time after so many epochs are on record; returns the exit code."""
    wait_for(lambda: epochs(run) >= rows and (run / "checkpoints/last.ckpt").exists(), process)
    time.sleep(delay)
    process.send_signal(signum)
    process.communicate(timeout=60)
    return process.returncode


def assert_equal_runs(first: Path, second: Path) -> None:
    a, b = read_summary(first), read_summary(second)
    assert a.status == b.status == "finished"
    assert a.metrics == b.metrics
    assert (a.best_epoch, a.epochs) == (b.best_epoch, b.epochs)
    assert read_run(first).predictions == read_run(second).predictions
    tables = [list(csv.DictReader((run / "metrics.csv").open(newline=""))) for run in (first, second)]
    clocks = ("images_per_second", "seconds")
    plain = [[{k: v for k, v in row.items() if k not in clocks} for row in table] for table in tables]
    assert plain[0] == plain[1]


@pytest.fixture(scope="module")
def undisturbed(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(run.parent, f"data.root={phantom_root}", *RUN, f"hydra.run.dir={run}")
    return run


def test_five_kills(undisturbed: Path, phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    moved = tmp_path / "moved here"
    moments = random.Random(20)
    process = start(tmp_path, f"data.root={phantom_root}", *RUN, f"hydra.run.dir={run}")
    for kill in range(5):
        code = stop_after(run, process, kill + 1, moments.uniform(0, 0.4), signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert not (run / "summary.json").exists()
        if kill == 2:
            run, moved = run.rename(moved), run  # the best epoch must survive that
            refused = start(tmp_path, f"resume='{run}'", "trainer.max_epochs=1")
            assert "already; expected at least that many" in refused.communicate(timeout=300)[0]
            assert refused.returncode == 2
        process = start(tmp_path, f"resume='{run}'")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert_equal_runs(undisturbed, run)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(("signum", "scheduler"), [(signal.SIGTERM, "none"), (signal.SIGINT, "cosine")])
def test_a_polite_stop_saves_the_middle_of_an_epoch(
    undisturbed: Path, phantom_root: Path, tmp_path: Path, signum: int, scheduler: str
) -> None:
    run, whole = tmp_path / "run", undisturbed
    settings = (f"data.root={phantom_root}", *RUN, f"scheduler={scheduler}")
    if scheduler != "none":
        whole = tmp_path / "whole"
        finish(tmp_path, *settings, f"hydra.run.dir={whole}")
    process = start(tmp_path, *settings, f"hydra.run.dir={run}")
    assert stop_after(run, process, 2, 0.15, signum) == 128 + signum
    assert not (run / "summary.json").exists()
    import torch

    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    batches = state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["completed"]
    assert state["BusiDataModule"]["draws"] == 2 * batches > 0
    finish(tmp_path, f"resume={run}")
    assert_equal_runs(whole, run)


def test_a_killed_joint_run_continues(phantom_root: Path, tmp_path: Path) -> None:
    settings = (f"data.root={phantom_root}", "task=multitask", "model=mobilenet_unet", *RUN, "task.threshold=val")
    settings += ("trainer.max_epochs=4", "data.batch_size=8")
    whole, run = tmp_path / "whole", tmp_path / "run"
    finish(tmp_path, *settings, f"hydra.run.dir={whole}")
    process = start(tmp_path, *settings, f"hydra.run.dir={run}")
    stop_after(run, process, 2, 0.2, signal.SIGKILL)
    process = start(tmp_path, f"resume={run}")
    stop_after(run, process, 3, 0.1, signal.SIGTERM)
    finish(tmp_path, f"resume={run}")
    assert_equal_runs(whole, run)
    names = sorted(path.name for path in (whole / "masks").iterdir())
    assert names
    assert all((whole / "masks" / name).read_bytes() == (run / "masks" / name).read_bytes() for name in names)


def test_a_cut_checkpoint_falls_back_to_the_one_before(undisturbed: Path, phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(tmp_path, f"data.root={phantom_root}", *RUN, f"hydra.run.dir={run}")
    stop_after(run, process, 3, 0.1, signal.SIGKILL)
    last = run / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    output = finish(tmp_path, f"resume={run}")
    assert "last.ckpt cannot be read" in output
    assert_equal_runs(undisturbed, run)


def test_a_run_cut_after_its_last_epoch_trains_no_further(phantom_root: Path, tmp_path: Path) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    stopping = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optim.lr=1e-9", "seed=1")
    finish(tmp_path, f"data.root={phantom_root}", *RUN, *stopping, f"hydra.run.dir={run}")
    assert epochs(run) < 7
    shutil.copytree(run, again)
    for name in ("summary.json", "predictions.csv"):
        (again / name).unlink()
    finish(tmp_path, f"resume={again}")
    assert_equal_runs(run, again)
    assert read_summary(again).images_per_second == read_summary(run).images_per_second


def test_what_cannot_be_continued(undisturbed: Path, phantom_copy: Path, tmp_path: Path) -> None:
    def error(*overrides: str) -> str:
        process = start(tmp_path, *overrides)
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 2, output
        return [line for line in output.splitlines() if line.startswith("error: ")][-1]

    assert "the run is finished" in error(f"resume={undisturbed}")
    assert "no such folder" in error("resume=/nowhere")
    assert "config.yaml is missing" in error(f"resume={tmp_path}")
    cut = tmp_path / "cut (1)"
    shutil.copytree(undisturbed, cut)
    (cut / "summary.json").unlink()
    resume = f"resume='{cut}'"
    assert "keeps its configuration" in error(resume, "data.image_size=96")
    assert "needs two pairs of quotes" in error(f"resume={cut}")
    (phantom_copy / "benign/benign (1).png").write_bytes((phantom_copy / "benign/benign (2).png").read_bytes())
    (phantom_copy / "benign/benign (1)_mask.png").write_bytes(
        (phantom_copy / "benign/benign (2)_mask.png").read_bytes()
    )
    assert "use the same version of the dataset" in error(resume, f"data.root={phantom_copy}")
    config = (cut / "config.yaml").read_text()
    (cut / "config.yaml").write_text(config.replace("mobilenetv1_100", "resnet18"))
    assert "belongs to another model" in error(resume)
    (cut / "config.yaml").write_text(config)
    (cut / "summary.json").write_text(json.dumps({"schema": 99, "status": "failed"}))
    assert "schema 99" in error(resume)
    (cut / "summary.json").unlink()
    for path in (cut / "checkpoints").iterdir():
        path.write_bytes(b"no checkpoint")
    assert "no whole checkpoint" in error(resume)
    shutil.rmtree(cut / "checkpoints")
    assert "no checkpoint to continue from" in error(resume)


def test_a_sweep_that_is_killed_goes_on_where_it_was(phantom_root: Path, tmp_path: Path) -> None:
    """Killed with everything it has started, in its third job: two jobs are kept, one continued, one begun."""
    overrides = ("-m", f"data.root={phantom_root}", *RUN, "trainer.max_epochs=4", "seed=0,1,2,3")
    command = [sys.executable, "-m", "busi_lab.train", *overrides]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, text=True)

    def third() -> Path:
        return next(tmp_path.glob("sweeps/*/seed2"), tmp_path / "not yet")

    wait_for(lambda: epochs(third()) >= 2 and (third() / "checkpoints/last.ckpt").exists(), process)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    process.kill()
    process.wait()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    base = third().parent
    before = {name: (base / name / "summary.json").read_bytes() for name in ("seed0", "seed1")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished before, not run again") == 2
    assert "seed2: continued" in done.stdout
    assert before == {name: (base / name / "summary.json").read_bytes() for name in before}
    assert [read_summary(base / f"seed{seed}").status for seed in range(4)] == ["finished"] * 4
    whole = tmp_path / "whole"
    finish(tmp_path, *overrides[1:-1], "seed=2", f"hydra.run.dir={whole}")
    assert_equal_runs(whole, base / "seed2")
