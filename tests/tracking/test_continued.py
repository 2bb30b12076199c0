"""Runs that are killed and continued, against a stand-in for W&B's service, with its real client."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from tracking_server import ServedRun, WandbServer, wandb_server

from busi_lab.files import read_rows
from tests.programs import SLOWLY, Programs

SMALL = ("trainer=cpu", "model=custom_cnn", "data.image_size=32", "split=grouped_holdout", "trainer.max_epochs=5")


@pytest.fixture
def service_of_another_process() -> Iterator[None]:
    """The service of this process, which programs started from here are told of, as those from a notebook are."""
    wandb.setup()
    assert "WANDB_SERVICE" in os.environ
    yield
    wandb.teardown()


def killed(programs: Programs, run: Path, root: Path, cwd: Path, service: dict[str, str | None]) -> None:
    settings = (*SMALL, "logger=wandb", *SLOWLY, f"data.root={root}", f"hydra.run.dir={run}")
    started = programs.start("train", *settings, cwd=cwd, environment=service)
    started.until(lambda: len(read_rows(run / "metrics.csv")) >= 2)
    started.process.kill()
    started.wait()


def continued(programs: Programs, run: Path, cwd: Path, service: dict[str, str | None]) -> None:
    print(programs.start("train", f"resume={run}", "trust=[tests]", cwd=cwd, environment=service).finish())


def is_whole(run: ServedRun, directory: Path) -> None:
    rows = read_rows(directory / "metrics.csv")
    assert run.values("epoch") == [0, 1, 2, 3, 4]
    for name in ("val/f1", "train/loss"):
        assert run.values(name) == pytest.approx([float(row[name]) for row in rows], rel=1e-6)
    assert run.values("_step") == [0, 1, 2, 3, 4, 5]  # epochs, then the panels
    best = max(float(row["val/f1"]) for row in rows)
    assert run.summary["val/f1"]["max"] == pytest.approx(best, rel=1e-6)
    assert (run.exit_code, "error" in run.summary) == (0, False)


@pytest.mark.slow
@pytest.mark.usefixtures("service_of_another_process")
@pytest.mark.parametrize("first", ["online", "offline"])
@pytest.mark.parametrize("second", ["online", "offline"])
def test_a_killed_run_ends_in_one_whole_record(
    programs: Programs, phantom_root: Path, tmp_path: Path, first: str, second: str
) -> None:
    with wandb_server() as service:
        connection: dict[str, str | None] = {"WANDB_BASE_URL": service.url, "WANDB_API_KEY": "a" * 40}
        run = tmp_path / "run"
        killed(programs, run, phantom_root, tmp_path, {**connection, "WANDB_MODE": first})
        continued(programs, run, tmp_path, {**connection, "WANDB_MODE": second})
        if second == "offline":
            assert len(list(run.glob("wandb/offline-run-*"))) == 1
            there = {**connection, "WANDB_MODE": "online"}
            programs.start("compare", str(run), "--format=csv", "--wandb", cwd=tmp_path, environment=there).finish()
        is_whole(_only(service, run), run)
        assert service.errors == []


def _only(service: WandbServer, run: Path) -> ServedRun:
    (trained,) = [each for each in service.runs.values() if each.fields.get("jobType") == "train"]
    assert trained.name == (run / "wandb/id").read_text().strip()
    return trained
