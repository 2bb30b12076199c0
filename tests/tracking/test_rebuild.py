"""Runs against a stand-in for W&B's service, with its real client: live, continued, told again, failed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tracking_server import WandbServer, wandb_server

from busi_lab.files import write_rows
from busi_lab.summary import Objective, Summary, write_summary

ROWS = [
    {"epoch": n, "train/loss": 1.0 - n / 10, "val/loss": 0.9, "val/f1": f1, "lr": 0.1, "seconds": 1.0}
    for n, f1 in enumerate((0.1, 0.5, 0.3))
]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with wandb_server() as served:
        monkeypatch.setenv("WANDB_BASE_URL", served.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        yield served


def made_run(directory: Path, status: str | None, rows: int = 3) -> Path:
    """A run directory without scans: finished, failed, or cut where the status is None."""
    directory.mkdir(parents=True)
    logger = {"wandb": {"project": "mine", "tags": ["first"], "mode": "offline"}}  # another machine's mode
    task = {"monitor": "val/f1", "monitor_mode": "max"}
    config = {"name": "small", "seed": 4, "task": task, "data": {"image_size": 32}, "logger": logger}
    OmegaConf.save(config, directory / "config.yaml")
    (directory / "split.json").write_text(json.dumps({"digest": "s"}))
    write_rows(directory / "metrics.csv", ROWS[:rows], ROWS[0])
    if status is None:
        return directory
    summary = Summary(status, experiment="small", seed=4, objective=Objective("val/f1", "max"), best_epoch=1)
    summary.data = {"name": "busi", "digest": "d", "root": "/nowhere"}
    summary.device, summary.peak_gpu_memory_bytes = "NVIDIA H100", 2**30
    if status == "finished":
        summary.metrics = {"val/f1": 0.5, "test/f1": 0.25}
        cells = {"image": "a", "label": "benign", "prediction": "malignant"}
        cells |= {"p_benign": "0.25", "p_malignant": "0.75", "p_normal": "0"}
        write_rows(directory / "predictions.csv", [cells], cells)
        (directory / "checkpoints").mkdir()
        (directory / "checkpoints/best.ckpt").write_bytes(b"weights")
    else:
        summary.error = "no luck"
    write_summary(directory, Summary(**asdict(summary)))
    return directory


TWICE = """
import sys
from pathlib import Path
from busi_lab.tracking.rebuild import describe, send_runs

folder = Path(sys.argv[1])
for _ in range(2):
    print(describe(send_runs([folder]), [folder]))
    (folder / "cut/metrics.csv").write_bytes((folder / "good/metrics.csv").read_bytes())  # it goes on meanwhile
assert "torch" not in sys.modules
"""


def python(*arguments: str) -> str:
    """What a process of its own says; its end is that of the client's service as well."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_whole_runs_are_sent_again_without_a_double(service: WandbServer, tmp_path: Path) -> None:
    good = made_run(tmp_path / "good", "finished")
    bad, cut = made_run(tmp_path / "bad", "failed"), made_run(tmp_path / "cut", None, rows=2)
    said = python("-c", TWICE, str(tmp_path))
    assert said.count("W&B: 3 runs sent to mine") == said.count("the scans of 1 of them are not at hand") == 2
    runs = {folder: service.runs[(folder / "wandb/id").read_text().strip()] for folder in (good, bad, cut)}
    for run in runs.values():
        assert run.values("epoch") == [0, 1, 2]
        assert run.values("val/f1") == [0.1, 0.5, 0.3]
        assert run.summary["val/f1"] == {"max": 0.5}  # of all epochs, also of those before
        assert run.fields["displayName"] == "small-seed4"
        assert (run.fields["jobType"], run.fields["tags"], run.project) == ("train", ["first"], "mine")
        assert run.config["task"]["monitor"] == "val/f1"
    assert [run.exit_code for run in runs.values()] == [0, 1, 1]
    assert len(runs[good].history) == 4  # the epochs and, once, the panels
    assert runs[good].summary["test/f1"] == 0.25
    assert runs[good].summary["peak_gpu_memory_bytes"] == 2**30
    assert runs[good].config["device"] == "NVIDIA H100"
    assert runs[good].used == ["dataset-busi", "dataset-busi"]
    assert service.uploads[f"artifact-model-{runs[good].name}/best.ckpt"] == b"weights"
    assert json.loads(service.artifacts["dataset-busi"]["metadata"]) == {"name": "busi", "digest": "d"}
    assert runs[bad].summary["error"] == "no luck"
    assert runs[cut].summary["error"].startswith("cut after 3 epochs")
    assert service.alerts == []  # nobody is alarmed by an old failure
    assert service.errors == []


@pytest.mark.slow
def test_an_air_gapped_folder_has_one_offline_run_each(
    service: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = made_run(tmp_path / "good", "finished")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for _ in range(2):
        said = python("-m", "busi_lab.compare", str(tmp_path), "--format", "csv", "--wandb")
        assert len(list(good.glob("wandb/offline-run-*"))) == 1
    (line,) = [line for line in said.splitlines() if "send them later with" in line]
    monkeypatch.delenv("WANDB_MODE")
    command = line.partition("later with: ")[2].replace("exec wandb", f"exec {Path(sys.executable).with_name('wandb')}")
    subprocess.run(command, shell=True, check=True, capture_output=True, timeout=120)
    run = service.runs[(good / "wandb/id").read_text().strip()]
    assert (run.values("epoch"), run.values("val/f1"), run.exit_code) == ([0, 1, 2], [0.1, 0.5, 0.3], 0)
