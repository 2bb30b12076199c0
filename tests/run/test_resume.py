"""A run that is killed and continued ends as if nothing had happened."""

import copy
import csv
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from busi_lab.errors import UserError
from busi_lab.run.resume import resumed_config
from busi_lab.run.state import find_state
from busi_lab.run_directory import read_run
from busi_lab.summary import read_summary
from busi_lab.sweep.executors import local
from busi_lab.tasks import ClassificationTask
from busi_lab.tasks.checkpoint import with_defaults
from tests.programs import SLOWLY, Programs, Started, call, descendants, is_alive

RUN = (
    *("trainer=cpu", "trainer.max_epochs=7", "model.backbone=test_efficientnet", "model.weights=none"),
    *("model.dropout=0.3", "data.image_size=32", "data.batch_size=2", "optim=adamw", "logger=none"),
    "callbacks.last.keep=true",  # tests cut a finished run
)
TRUSTED = "trust=[tests]"  # of SLOWLY
MASKS = (
    "task=multitask",
    "model=smp",
    "model.arch=Linknet",
    "model.encoder=tu-test_efficientnet",
    "task.threshold=val",
)
GUIDED = ("scheduler=cosine", "data.annotated=0.5", "task.semi=pseudo_label", "task.semi_threshold=0.5")


def epochs(run: Path) -> int:
    path = run / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def wait_for(run: Path, started: Started, rows: int) -> None:
    """Wait until so many epochs are on record, and the state of the last one is saved."""
    saved = run / "checkpoints/last.ckpt"
    started.until(lambda: epochs(run) >= rows and saved.exists())


def stop_after(run: Path, started: Started, rows: int, delay: float, signum: int) -> int:
    """Send a signal some time after so many epochs are on record; returns the exit code."""
    wait_for(run, started, rows)
    time.sleep(delay)
    started.process.send_signal(signum)
    return started.wait(60)


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
    weights = [torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"] for run in (first, second)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.fixture(scope="module")
def undisturbed(programs: Programs, phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    programs.run("train", f"data.root={phantom_root}", *RUN, f"hydra.run.dir={run}", cwd=run.parent)
    return run


def test_five_kills(programs: Programs, undisturbed: Path, phantom_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    moved = tmp_path / "moved here"
    moments = random.Random(20)
    started = programs.start("train", f"data.root={phantom_root}", *RUN, *SLOWLY, f"hydra.run.dir={run}", cwd=tmp_path)
    for kill in range(5):
        code = stop_after(run, started, kill + 1, moments.uniform(0, 0.2), signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert not (run / "summary.json").exists()
        if kill == 2:
            run, moved = run.rename(moved), run  # the best epoch must survive that
            refused = programs.start("train", f"resume='{run}'", TRUSTED, "trainer.max_epochs=1", cwd=tmp_path)
            assert refused.wait() == 2
            assert "already; expected at least that many" in refused.output
        started = programs.start("train", f"resume='{run}'", TRUSTED, cwd=tmp_path)
    started.finish()
    assert_equal_runs(undisturbed, run)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


EVERYTHING_RANDOM = (
    *("scheduler=warmup_cosine", "ema=0.9", "task.mixup=0.4", "task.cutmix=1.0"),
    *("data.annotated=0.5", "task.semi=mean_teacher", "data.epoch_images=20"),
)
"""What has a state of its own, or draws numbers while it trains."""


@pytest.mark.parametrize(("signum", "more"), [(signal.SIGTERM, ()), (signal.SIGINT, EVERYTHING_RANDOM)])
def test_a_polite_stop_saves_the_middle_of_an_epoch(
    programs: Programs, undisturbed: Path, phantom_root: Path, tmp_path: Path, signum: int, more: tuple[str, ...]
) -> None:
    run, whole = tmp_path / "run", undisturbed
    settings = (f"data.root={phantom_root}", *RUN, *more)
    if more:
        whole = tmp_path / "whole"
        programs.run("train", *settings, f"hydra.run.dir={whole}", cwd=tmp_path)
    started = programs.start("train", *settings, *SLOWLY, f"hydra.run.dir={run}", cwd=tmp_path)
    assert stop_after(run, started, 2, 0.1, signum) == 128 + signum
    assert f"continue with: busi-train resume={run}" in started.output
    assert not (run / "summary.json").exists()
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    batches = state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["completed"]
    assert state["BusiDataModule"]["draws"] == 2 * batches > 0
    programs.run("train", f"resume={run}", TRUSTED, cwd=tmp_path)
    assert_equal_runs(whole, run)


def test_a_killed_joint_run_continues(
    programs: Programs, undisturbed: Path, phantom_root: Path, tmp_path: Path
) -> None:
    """With the guides that keep no state of their own: a teacher, and pseudo-labels."""
    settings = (f"data.root={phantom_root}", *(item for item in RUN if "backbone" not in item), *MASKS)
    settings += (*GUIDED, f"task.teacher={undisturbed}")
    settings += ("trainer.max_epochs=4", "data.batch_size=4")
    whole, run = tmp_path / "whole", tmp_path / "run"
    programs.run("train", *settings, f"hydra.run.dir={whole}", cwd=tmp_path)
    started = programs.start("train", *settings, *SLOWLY, f"hydra.run.dir={run}", cwd=tmp_path)
    stop_after(run, started, 2, 0.1, signal.SIGKILL)
    started = programs.start("train", f"resume={run}", TRUSTED, cwd=tmp_path)
    stop_after(run, started, 3, 0.05, signal.SIGTERM)
    programs.run("train", f"resume={run}", TRUSTED, cwd=tmp_path)
    assert_equal_runs(whole, run)
    with (whole / "metrics.csv").open(newline="") as file:
        assert all(float(row["train/guidance_loss"]) > 0 for row in csv.DictReader(file))
    names = sorted(path.name for path in (whole / "masks").iterdir())
    assert names
    assert all((whole / "masks" / name).read_bytes() == (run / "masks" / name).read_bytes() for name in names)


def test_a_cut_checkpoint_falls_back_to_the_one_before(
    programs: Programs, undisturbed: Path, phantom_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    started = programs.start("train", f"data.root={phantom_root}", *RUN, *SLOWLY, f"hydra.run.dir={run}", cwd=tmp_path)
    stop_after(run, started, 3, 0.1, signal.SIGKILL)
    last = run / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    output = programs.run("train", f"resume={run}", TRUSTED, cwd=tmp_path)
    assert "last.ckpt cannot be read" in output
    assert "continued: in epoch 3\n" in output
    assert_equal_runs(undisturbed, run)


def test_a_run_cut_after_its_last_epoch_trains_no_further(
    programs: Programs, phantom_root: Path, tmp_path: Path
) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    stopping = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optim.lr=1e-9", "seed=1")
    programs.run("train", f"data.root={phantom_root}", *RUN, *stopping, f"hydra.run.dir={run}", cwd=tmp_path)
    assert epochs(run) < 7
    shutil.copytree(run, again)
    for name in ("summary.json", "predictions.csv"):
        (again / name).unlink()
    programs.run("train", f"resume={again}", TRUSTED, cwd=tmp_path)
    assert_equal_runs(run, again)
    assert read_summary(again).images_per_second == read_summary(run).images_per_second


def test_a_run_that_leaves_images_out_continues(phantom_root: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "left_out.txt"
    out.write_text("benign (1)\nnormal (2)\n")
    settings = ("trainer=smoke", "data.subset=null", "data.image_size=32", "model=custom_cnn", "logger=none")
    kept = ("callbacks.last.keep=true", f"split.exclude={out}", f"hydra.run.dir={run}")
    assert call("train", f"data.root={phantom_root}", *settings, *kept) == 0
    whole = read_summary(run)
    (run / "summary.json").unlink()
    assert call("train", f"resume={run}") == 0
    assert read_summary(run).metrics == whole.metrics
    assert {"benign (1)", "normal (2)"} == set(json.loads((run / "split.json").read_text())["excluded"])


def test_what_cannot_be_continued(
    undisturbed: Path,
    phantom_copy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    def error(*overrides: str) -> str:
        capsys.readouterr()
        assert call("train", *overrides) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert "interpolation" not in line
        return line

    assert "the run is finished" in error(f"resume={undisturbed}")
    assert error("resume=/nowhere").startswith("error: resume=/nowhere: no such folder; ")
    assert error("resume=[a,b]").startswith("error: resume=['a', 'b']: expected the directory of a run")
    assert "config.yaml is missing" in error(f"resume={tmp_path}")
    assert not list(tmp_path.glob("runs")), "a refused resume leaves no folder"
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
    (cut / "config.yaml").write_text(config.replace("test_efficientnet", "test_resnet"))
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


@pytest.mark.parametrize(
    ("scheduler", "task", "planned"),
    [
        *((name, {}, f"the {name} schedule") for name in ("cosine", "warmup_cosine", "onecycle")),
        ("none", {"semi": "mean_teacher", "semi_ramp": 0.3}, "the growing weight of task.semi=mean_teacher"),
        ("none", {"semi": "pseudo_label", "semi_ramp": 0.0}, None),
        ("none", {"semi": "none", "semi_ramp": 0.3}, None),
        ("plateau", {}, None),
    ],
)
def test_what_was_planned_for_a_number_of_epochs_keeps_it(
    scheduler: str, task: dict[str, object], planned: str | None, tmp_path: Path
) -> None:
    """Else the rate would be 0 in all further epochs, or a weight would fall back."""
    saved = {"run_dir": "", "trainer": {"max_epochs": 7}, "scheduler": {"name": scheduler}, "task": task}
    OmegaConf.save(OmegaConf.create({**saved, "callbacks": {}, "logger": {}, "split": {}}), tmp_path / "config.yaml")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    composed = OmegaConf.create({"resume": str(tmp_path), "trainer": {"max_epochs": 9}, "trust": []})
    if planned is None:
        assert resumed_config(composed, ["trainer.max_epochs=9"]).trainer.max_epochs == 9
        return
    with pytest.raises(UserError, match=f"^trainer.max_epochs: {planned} was planned for 7 epochs and cannot change"):
        resumed_config(composed, ["trainer.max_epochs=9"])


def test_an_option_that_came_later_does_not_orphan_a_checkpoint(undisturbed: Path, tmp_path: Path) -> None:
    """A checkpoint from before an option has its default; one of another schema is refused."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed / "checkpoints", run / "checkpoints")
    path = run / "checkpoints/last.ckpt"
    content = torch.load(path, weights_only=True)
    saved = content["hyper_parameters"]
    task = ClassificationTask(**copy.deepcopy(saved))
    split = content["BusiDataModule"]["split"]
    del saved["label_smoothing"], saved["model"]["freeze"], saved["optim"]["backbone_lr"]
    torch.save(content, path)
    assert find_state(run, task, split, 7).checkpoint == path
    assert with_defaults(ClassificationTask, saved)["model"]["freeze"] == "none"
    smoothed = ClassificationTask(**{**task.hparams, "label_smoothing": 0.1})
    with pytest.raises(UserError, match="belongs to another label_smoothing"):
        find_state(run, smoothed, split, 7)
    with pytest.raises(UserError, match=r"belongs to scans that were cut by data\.roi with other weights"):
        find_state(run, task, split, 7, origin="ab12")
    torch.save({**content, "schema": 2}, path)
    with pytest.raises(UserError, match=r"last\.ckpt has schema 2, this version 1"):
        find_state(run, task, split, 7)


@pytest.fixture(scope="module")
def sweep(phantom_root: Path) -> tuple[str, ...]:
    return ("-m", f"data.root={phantom_root}", *RUN, *SLOWLY, "trainer.max_epochs=4", "seed=1,2,3")


def second_job(tmp_path: Path) -> Path:
    return next(tmp_path.glob("sweeps/*/seed2"), tmp_path / "not yet")


def test_a_sweep_that_is_killed_goes_on_where_it_was(
    programs: Programs,
    tmp_path: Path,
    sweep: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Killed with everything it has started, in its second job: one job is kept, one continued, one begun."""
    started = programs.start("train", *sweep, cwd=tmp_path)
    started.until(lambda: epochs(second_job(tmp_path)) >= 2)
    started.until(lambda: (second_job(tmp_path) / "checkpoints/last.ckpt").exists())
    assert started.process.pid is not None
    everything = descendants(started.process.pid)
    assert len(everything) >= 2  # the server, and a job
    started.process.kill()
    for process in everything:
        if is_alive(process):
            os.kill(process, signal.SIGKILL)
    started.wait(60)
    base = second_job(tmp_path).parent
    before = (base / "seed1/summary.json").read_bytes()
    monkeypatch.setattr(local, "ForkServer", programs.lent)
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    assert call("train", *sweep) == 0
    output = capfd.readouterr().out
    assert output.count("finished before, not run again") == 1
    assert "seed2: continued" in output
    assert before == (base / "seed1/summary.json").read_bytes()
    assert [read_summary(base / f"seed{seed}").status for seed in (1, 2, 3)] == ["finished"] * 3
    whole = tmp_path / "whole"
    alone = [item for item in sweep if item not in ("-m", sweep[-1], *SLOWLY)]
    programs.run("train", *alone, "seed=2", f"hydra.run.dir={whole}", cwd=tmp_path)
    assert_equal_runs(whole, base / "seed2")


def test_a_job_whose_sweep_was_killed_saves_its_state_and_stops(
    programs: Programs, tmp_path: Path, sweep: tuple[str, ...]
) -> None:
    started = programs.start("train", *sweep[:-1], "seed=2,3", cwd=tmp_path)
    run = second_job(tmp_path)
    started.until(lambda: epochs(second_job(tmp_path)) >= 1)
    assert started.process.pid is not None
    everything = descendants(started.process.pid)
    started.process.kill()
    started.wait(60)
    end = time.monotonic() + 60
    while any(is_alive(process) for process in everything):
        assert time.monotonic() < end, "a job trains on without its sweep"
        time.sleep(0.01)
    run = second_job(tmp_path)
    assert "the sweep has ended: saving the state, then stopping" in started.output
    assert not (run / "summary.json").exists()
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"] >= 1
