"""``launcher=slurm`` on a real SLURM: one that answers here, or that ``BUSI_SLURM_TOOL start`` starts."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from busi_lab.run_directory import LAST_CHECKPOINT
from busi_lab.slurm import SlurmError, call, job_state
from busi_lab.summary import read_summary
from busi_lab.sweep.executors.slurm import Queue
from tests.programs import SLOWLY, Programs, Started

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module", autouse=True)
def _slurm() -> Iterator[None]:
    tool, ours = os.environ.get("BUSI_SLURM_TOOL", ""), False
    if not answers() and tool:
        subprocess.run([tool, "start", str(os.cpu_count())], check=True)  # nproc would heed OMP_NUM_THREADS
        ours = True
    if not answers():
        pytest.skip("needs a SLURM: squeue does not answer, and BUSI_SLURM_TOOL names no program that starts one")
    yield
    if ours:
        subprocess.run([tool, "stop"], check=True)


def answers() -> bool:
    try:
        call("squeue", "--noheader")
    except SlurmError:
        return False
    return shutil.which("sbatch") is not None


Start = Callable[..., Started]
CLUSTER = ("launcher=slurm", "launcher.cpus_per_job=1", "sweep.grace=20")
LONG = (*SLOWLY, "trainer.max_epochs=120")


@pytest.fixture
def start(programs: Programs, phantom_root: Path, tmp_path: Path) -> Iterator[Start]:
    fast = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=none", f"data.root={phantom_root}")
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, f"{root}/busi_lab/_plugins", os.environ.get("PYTHONPATH", "")])

    def begin(*overrides: str, folder: str = "sweep") -> Started:
        words = ("-m", *fast, f"hydra.sweep.dir={folder}", *overrides)
        return programs.start("train", *words, cwd=tmp_path, environment={"PYTHONPATH": path})

    yield begin
    subprocess.run(["scancel", f"--name={Queue(tmp_path / 'sweep', 1).name}"], check=True)


def at_once(job: str) -> None:
    """Let a requeued job begin now; SLURM waits for two minutes before."""
    end = time.monotonic() + 60
    while (found := job_state(job)) is None or found.state != "PENDING":
        assert time.monotonic() < end
        time.sleep(0.2)
    time.sleep(5)  # the node may still be ending what was there, and would refuse the same job
    call("scontrol", "update", f"JobId={job}", "StartTime=now")


def test_a_cluster_gives_what_this_machine_gives_and_a_dead_command_loses_nothing(start: Start, tmp_path: Path) -> None:
    first = start(*CLUSTER, "seed=0,1")
    first.until(lambda: "submitted as array" in first.output)
    first.process.kill()  # as with kill -9
    first.wait(30)
    output = start(*CLUSTER, "seed=0,1").finish()
    assert "submitted" not in output
    assert len(list((tmp_path / "sweep/slurm").glob("jobs-*.sh"))) == 1
    start("seed=0,1", "launcher.threads=1", folder="local").finish()
    for seed in (0, 1):
        there, here = (tmp_path / folder / f"seed{seed}" for folder in ("sweep", "local"))
        assert (there / "predictions.csv").read_bytes() == (here / "predictions.csv").read_bytes()
        assert read_summary(there).metrics == read_summary(here).metrics
    assert json.loads((tmp_path / "sweep/sweep.json").read_text())["threads"] == 1


def test_a_job_that_is_stopped_goes_on_and_one_that_is_cancelled_does_not(start: Start, tmp_path: Path) -> None:
    sweep = start(*CLUSTER, *LONG, "seed=0,1")
    sweep.until(lambda: all((tmp_path / f"sweep/seed{seed}" / LAST_CHECKPOINT).exists() for seed in (0, 1)))
    array = sweep.output.partition("as array ")[2].split()[0]
    call("scancel", f"{array}_0")
    call("scancel", "--signal=TERM", f"{array}_1")  # the last task, whose number is that of the array
    at_once(f"{array}_1")
    assert sweep.wait(120) == 1
    assert "seed1: finished" in sweep.output and f"SLURM job {array}_0 was cancelled" in sweep.output
    cancelled, stopped = ((tmp_path / f"sweep/slurm/{array}_{task}.log").read_text() for task in (0, 1))
    assert "seed1: stopped; requeued" in stopped and "restart 1" in stopped
    assert "it is not requeued" in cancelled and "restart" not in cancelled
    assert (tmp_path / "sweep/seed0" / LAST_CHECKPOINT).exists()


@pytest.mark.slow
def test_a_time_limit_cuts_a_job_and_it_goes_on(start: Start, tmp_path: Path) -> None:
    sweep = start(*CLUSTER, *SLOWLY, "trainer.max_epochs=800", "seed=0,1", "launcher.time=1")
    sweep.until(lambda: sweep.output.count("was requeued") == 2, 150)
    array = sweep.output.partition("as array ")[2].split()[0]
    for task in (0, 1):
        call("scontrol", "update", f"JobId={array}_{task}", "TimeLimit=10")
        at_once(f"{array}_{task}")
    sweep.finish()
    assert [read_summary(tmp_path / f"sweep/seed{seed}").status for seed in (0, 1)] == ["finished"] * 2
