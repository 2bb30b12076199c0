"""``launcher=slurm`` against programs that answer as SLURM's do: what is asked, what is refused, what is told."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from busi_lab import slurm
from busi_lab.errors import UserError
from busi_lab.slurm import JobState, SlurmError, job_state, nodes, outside, queued
from busi_lab.summary import Summary, read_summary, write_summary
from busi_lab.sweep import slurm_job
from busi_lab.sweep.executors import LOST, Command, make_executor
from busi_lab.sweep.executors import slurm as executor_module
from busi_lab.sweep.executors.slurm import Queue
from busi_lab.sweep.slurm_request import SlurmSettings, options, seconds
from tests.programs import call

FAKE = """#!/usr/bin/env python3
import json, pathlib, sys
here = pathlib.Path(__file__).parent
name = pathlib.Path(sys.argv[0]).name
with (here / "calls.jsonl").open("a") as file:
    file.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
answer = json.loads((here / "answers.json").read_text()).get(name, ["", "", 0])
sys.stdout.write(answer[0])
sys.stderr.write(answer[1])
sys.exit(answer[2])
"""


class Fake:
    """SLURM's programs in a folder, with answers that a test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: dict[str, list[Any]] = {}
        for name in ("sbatch", "squeue", "scontrol", "sinfo", "scancel"):
            path = folder / name
            path.write_text(FAKE)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.set(sinfo="main*|8|gpu:a100:4(S:0-1)\nlong|64|(null)\n")

    def set(self, **answers: str | tuple[str, str, int]) -> None:
        """What the programs print from now on, or what they print, complain of and end with."""
        for name, answer in answers.items():
            self.answers[name] = [answer, "", 0] if isinstance(answer, str) else list(answer)
        (self.folder / "answers.json").write_text(json.dumps(self.answers))

    def calls(self, name: str) -> list[list[str]]:
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [words[1:] for words in map(json.loads, lines) if words[0] == name]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Fake(folder)


def started(sweep: Path, *names: str, **settings: Any) -> Any:
    executor = make_executor({"name": "slurm", **settings})
    commands = [Command(sweep / name, [], {}, None, 30) for name in names]
    return executor, executor.start(commands)


def line(sweep: Path, index: int, state: str, reason: str = "None", script: str = "jobs-1.sh") -> str:
    return f"17|{index}|{state}|{reason}|n1|{sweep}/slurm/{script}\n"


def test_one_array_is_submitted_for_what_is_not_in_the_queue(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("SLURM_JOB_ID", "3")  # the sweep is itself called in an allocation
    fake.set(sbatch="17;cluster\n", squeue="")
    sweep = tmp_path / "sweep 1%"
    settings = {"max_parallel": 2, "gpus_per_job": 1, "time": "1:00:00", "sbatch": {"account": "us", "exclusive": True}}
    _, processes = started(sweep, "seed0", "seed1", **settings)
    (words,) = fake.calls("sbatch")
    name = Queue(sweep, 1).name
    assert words == [
        *("--parsable", f"--job-name={name}", "--array=0-1%2", f"--output={tmp_path}/sweep 1%%/slurm/%A_%a.log"),
        *("--open-mode=append", "--requeue", "--signal=TERM@30", "--ntasks=1", "--cpus-per-task=4", "--time=1:00:00"),
        *("--gres=gpu:1", "--account=us", "--exclusive", f"{sweep}/slurm/jobs-1.sh"),
    ]
    assert (sweep / "slurm/jobs-1.txt").read_text() == "seed0\nseed1\n"
    script = (sweep / "slurm/jobs-1.sh").read_text()
    assert "exec srun --ntasks=1 --cpus-per-task=4 " in script and "#SBATCH --gres=gpu:1\n" in script
    assert caplog.messages == [f"SLURM ({name}): 2 jobs submitted as array 17"]

    fake.set(squeue=line(sweep, 0, "RUNNING") + line(sweep, 1, "PENDING") + "18|N/A|RUNNING|None|n1|/bin/else\n")
    executor, processes = started(sweep, "seed0", "seed1", "seed2")  # as after the death of the command
    assert fake.calls("sbatch")[1][2] == "--array=0-0"
    assert (sweep / "slurm/jobs-2.txt").read_text() == "seed2\n"
    assert caplog.messages[-1].endswith("1 job submitted as array 17, 1 pending since before, 1 running since before")
    assert f"scancel --name={name} ends them" in executor.how_to_stop
    asked = len(fake.calls("squeue"))
    assert [process.poll() for process in processes[:2]] == [None, None]
    assert len(fake.calls("squeue")) == asked, "one answer is good for all jobs, and for some seconds"


def test_sbatch_that_refuses_is_a_line_and_leaves_no_script(fake: Fake, tmp_path: Path) -> None:
    fake.set(squeue="", sbatch=("", "sbatch: error: Batch job submission failed: Invalid account\n", 1))
    with pytest.raises(UserError, match=r"SLURM refuses the jobs \(Batch job submission failed: Invalid account\)"):
        started(tmp_path, "seed0")
    assert list((tmp_path / "slurm").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"partition": "mian"},
            "launcher.partition=mian: no such partition; did you mean main? partitions: long",
        ),
        ({"gpus_per_job": 5}, "launcher.gpus_per_job=5: expected at most 4, as no node of the default partition"),
        ({"gpus_per_job": 1, "partition": "long"}, "expected at most 0, as no node of partition long has more GPUs"),
        ({"cpus_per_job": 9}, "launcher.cpus_per_job=9: expected at most 8"),
        ({"cpus_per_job": 0}, "launcher.cpus_per_job=0: expected at least 1"),
        ({"time": "1h"}, "launcher.time=1h: expected minutes, H:M:S or DAYS-H:M:S"),
        ({"memory": "10X"}, "launcher.memory=10X: expected a number with K, M, G or T"),
        ({"cpu": 1}, "launcher.cpu: unknown key"),
    ],
)
def test_wrong_settings_are_a_line_before_anything_is_written(fake: Fake, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        make_executor({"name": "slurm", **settings})
    assert words in str(caught.value)
    assert fake.calls("sbatch") == []


def test_a_machine_without_slurm_and_one_that_is_not_answered(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.set(sinfo=("", "slurm_load_partitions: Unable to contact slurm controller (connect failure)\n", 1))
    with pytest.raises(UserError, match=r"SLURM does not answer \(Unable to contact slurm controller"):
        make_executor({"name": "slurm"})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="found no sbatch on the path; call busi-train on a login node"):
        make_executor({"name": "slurm"})


def test_options_that_are_ours_and_a_limit_below_the_grace(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"launcher.sbatch.cpus_per_task: busi-train sets this itself"):
        options(SlurmSettings(sbatch={"cpus_per_task": 3}), "x", 1, tmp_path, 30)
    with pytest.raises(UserError, match=r"launcher.time=2: expected more than the 120 seconds .*sweep.grace"):
        options(SlurmSettings(time="2"), "x", 1, tmp_path, 120)
    given = SlurmSettings(sbatch={"exclude": ["a", "b"], "contiguous": False, "qos": None})
    chosen = options(given, "x", 1, tmp_path, 120)
    assert chosen["exclude"] == "a,b" and not {"contiguous", "qos"} & set(chosen)


@pytest.mark.parametrize(
    ("time", "expected"),
    [("90", 5400), ("1:30", 90), ("1:00:30", 3630), ("2-1", 176400), ("1-0:30", 88200), ("1-0:0:5", 86405)],
)
def test_time_limits_as_slurm_reads_them(time: str, expected: float) -> None:
    assert seconds(time) == expected


def test_what_slurm_says(fake: Fake) -> None:
    fake.set(
        scontrol="JobId=2 JobName=a JobState=CANCELLED Reason=None Restarts=3 ExitCode=1:15 PreemptTime=None "
        "BatchHost=n7 Command=/a b\n"
    )
    assert job_state("17_0") == JobState("CANCELLED", "None", 3, 1, 15, "n7")
    fake.set(scontrol=("", "slurm_load_jobs error: Invalid job id specified\n", 1))
    assert job_state("17_0") is None
    fake.set(scontrol=("", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1))
    with pytest.raises(SlurmError, match="Unable to contact"):
        job_state("17_0")
    assert [(node.partition, node.default, node.cpus, node.gpus) for node in nodes()] == [
        ("main", True, 8, 4),
        ("long", False, 64, 0),
    ]
    fake.set(scontrol="JobState=RUNNING\nJobState=PENDING\n")  # an array's first task of those that it has
    assert job_state("17") == JobState("RUNNING")
    assert slurm.own_job({"SLURM_JOB_ID": "17", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2"}) == "17_2"
    fake.set(squeue="17|0|RUNNING|None|n1|/a|b/jobs-1.sh\n")
    assert queued("x")[0].script == "/a|b/jobs-1.sh"
    assert outside({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2", "SLURM_CONF": "c", "HOME": "h"}) == {
        "SLURM_CONF": "c",
        "HOME": "h",
    }
    assert slurm._complaint("sinfo: error: a\nsinfo: fatal: b\nsinfo: error: a\n") == "a; b"


@pytest.mark.parametrize(
    ("job", "code", "words"),
    [
        ("JobState=CANCELLED ExitCode=0:15", -15, "SLURM job 17_0 was cancelled; the same command continues it"),
        ("JobState=FAILED ExitCode=66:0 BatchHost=n7", 66, "does not see SWEEP on n7; set hydra.sweep.dir"),
        ("JobState=FAILED ExitCode=0:53 BatchHost=n7", -53, "does not see SWEEP on n7"),
        ("JobState=FAILED ExitCode=3:0", 3, "ended with exit code 3; see slurm/17_0.log"),
        ("JobState=FAILED ExitCode=143:0", 143, "was stopped and not requeued"),
        ("JobState=OUT_OF_MEMORY ExitCode=0:125", -125, "ran out of memory (launcher.memory)"),
        ("JobState=TIMEOUT ExitCode=0:0", 0, "reached the time limit before it had saved its state"),
        ("", LOST, "has ended, and SLURM has forgotten how"),
    ],
)
def test_why_a_job_has_failed(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, code: int, words: str
) -> None:
    monkeypatch.setattr(executor_module, "_VISIBLE", 0.0)
    fake.set(sbatch="17\n", squeue="", scontrol=job or ("", "slurm_load_jobs error: Invalid job id specified", 1))
    _, (process,) = started(tmp_path, "seed0")
    assert process.poll() == code
    assert words.replace("SWEEP", str(tmp_path)) in str(read_summary(tmp_path / "seed0").error)


def test_a_job_on_its_way(fake: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    fake.set(sbatch="17\n", squeue="")
    executor, (process,) = started(tmp_path, "seed0")
    executor._queue._pause = 0
    told = []
    for state, reason in (
        ("PENDING", "Resources"),
        ("PENDING", "PartitionTimeLimit"),
        ("RUNNING", "None"),
        ("RUNNING", "None"),
        ("COMPLETING", "None"),
        ("PENDING", "BeginTime"),
        ("RUNNING", "None"),
    ):
        caplog.clear()
        fake.set(squeue=line(tmp_path, 0, state, reason))
        assert process.poll() is None
        told += caplog.messages
    assert told == [
        "seed0: waits (PartitionTimeLimit; job 17_0)",
        "seed0: running on n1 (job 17_0)",
        "seed0: was requeued, and waits (job 17_0)",
        "seed0: running on n1 (job 17_0)",
    ]
    fake.set(squeue=("", "squeue: error: no answer\n", 1))
    assert process.poll() is None, "a controller that is silent for a while ends nothing"
    fake.set(squeue="", scontrol="JobState=PENDING Reason=BeginTime")
    assert process.poll() is None, "requeued between two answers"
    write_summary(tmp_path / "seed0", Summary("finished"))
    assert process.poll() == 0
    process.terminate()
    assert fake.calls("scancel") == [["17_0"]]


@pytest.mark.parametrize(
    ("job", "restarts", "checkpoint", "words", "requeued"),
    [
        ("JobState=RUNNING Reason=None", 0, False, "requeued", True),
        ("JobState=RUNNING Reason=None", 9, True, "requeued", True),
        ("JobState=RUNNING Reason=None", 2, False, "3 times it did not get to its first checkpoint", False),
        ("JobState=COMPLETING Reason=TimeLimit", 0, True, "requeued", True),
        ("JobState=COMPLETING Reason=None PreemptTime=2026-01-01T00:00:00", 0, True, "requeued", True),
        ("JobState=COMPLETING Reason=None PreemptTime=None", 0, True, "SLURM ends this job (scancel)", False),
        ("JobState=CANCELLED Reason=None", 0, True, "SLURM ends this job (scancel)", False),
    ],
)
def test_what_becomes_of_a_job_that_was_stopped(
    fake: Fake, tmp_path: Path, job: str, restarts: int, checkpoint: bool, words: str, requeued: bool
) -> None:
    if checkpoint:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints/last.ckpt").touch()
    fake.set(scontrol=job)
    assert words in slurm_job._after_stop("5", restarts, tmp_path)
    assert (["requeue", "5"] in fake.calls("scontrol")) is requeued


def test_a_site_that_forbids_requeueing(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> str:
        raise SlurmError("Access/permission denied")

    monkeypatch.setattr(slurm, "job_state", lambda _: JobState("RUNNING"))
    monkeypatch.setattr(slurm, "call", refuse)
    assert slurm_job._after_stop("5", 0, tmp_path) == (
        "not requeued (Access/permission denied); the same command continues the sweep"
    )


def test_lightning_does_not_take_slurm_for_the_one_that_starts_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.plugins.environments import SLURMEnvironment

    for name in ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_NAME", "PMI_RANK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    assert SLURMEnvironment.detect()
    slurm_job._forget_slurm()
    assert not SLURMEnvironment.detect()
    assert os.environ["SLURM_JOB_ID"] == "5" and "PMI_RANK" not in os.environ


def test_gpus_that_a_job_wants(fake: Fake) -> None:
    def job(**trainer: Any) -> Any:
        return SimpleNamespace(trainer=trainer)

    executor = make_executor({"name": "slurm"})
    assert executor.places([job(accelerator="auto", devices=1)]) is None
    assert executor.threads([]) == 4
    with pytest.raises(UserError, match=r"launcher.gpus_per_job=0: expected 2, as trainer.devices=2"):
        executor.places([job(accelerator="gpu", devices=2)])
    executor = make_executor({"name": "slurm", "gpus_per_job": 2, "threads": 3})
    assert executor.places([job(accelerator="gpu", devices=2)]) is None
    assert executor.threads([]) == 3


@pytest.mark.slow
def test_a_sweep_that_is_not_waited_for_and_the_same_command_later(
    fake: Fake, sweep: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    fake.set(sbatch="17\n", squeue="")
    folder = tmp_path / "sweep"
    command = ("seed=0,1", "hydra.sweep.dir=sweep", "launcher=slurm", "launcher.wait=false")
    fake.set(squeue="", sbatch="17\n", scontrol="JobState=PENDING Reason=Priority")
    code, output, _ = sweep(*command)
    assert code == 0
    assert "2 jobs submitted as array 17" in output and "not waited for (launcher.wait=false): squeue --name=" in output
    assert not (folder / "comparison").exists()
    fake.set(squeue=line(folder, 0, "RUNNING") + line(folder, 1, "RUNNING"))
    assert sweep(*command)[0] == 0
    assert len(fake.calls("sbatch")) == 1
    for name in ("seed0", "seed1"):
        fast = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=none")
        root = json.loads((folder / "sweep.json").read_text())["jobs"][0]["begin"]
        data = next(item for item in root if item.startswith("data.root="))
        assert call("train", *fast, data, f"seed={name[-1]}", f"hydra.run.dir={folder / name}") == 0
    fake.set(squeue="")
    code, output, _ = sweep(*command)
    assert code == 0 and "the report is" in output
    assert len(fake.calls("sbatch")) == 1
