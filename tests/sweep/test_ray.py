"""launcher=ray: what it refuses, with a stand-in for the package; and, marked ``ray``, sweeps on Ray itself."""

import importlib.util
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from busi_lab.errors import UserError
from busi_lab.run_directory import LAST_CHECKPOINT
from busi_lab.summary import read_summary
from busi_lab.sweep.executors.protocol import LOST, Command
from busi_lab.sweep.executors.ray import RayExecutor, RaySettings
from busi_lab.sweep.ray_worker import End, Job, carry_out
from busi_lab.sweep.record import read_sweep
from busi_lab.sweep.task import UNSEEN
from tests.programs import SLOWLY, Programs, Started, call, is_alive

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")


class RayError(Exception):
    pass


class TaskCancelledError(RayError):
    pass


class StandIn:
    """What the executor asks of the package ``ray``; a task has ended when ``ends`` has its name."""

    exceptions = SimpleNamespace(RayError=RayError, TaskCancelledError=TaskCancelledError)

    def __init__(self, *nodes: dict[str, float]) -> None:
        self._nodes = nodes
        self.options: dict[str, Any] = {}
        self.ends: dict[str, Any] = {}
        self.cancelled: list[tuple[str, bool]] = []
        self.jobs: list[Job] = []

    def init(self, **settings: Any) -> None:
        assert settings["include_dashboard"] is False and settings["log_to_driver"] is False

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": node} for node in self._nodes]

    def remote(self, function: object) -> Any:
        def options(**given: Any) -> Any:
            self.options = given
            return SimpleNamespace(remote=lambda job: self.jobs.append(job) or job.name)

        return SimpleNamespace(options=options)

    def wait(self, tasks: list[str], timeout: float) -> tuple[list[str], list[str]]:
        return [task for task in tasks if task in self.ends], []

    def get(self, task: str) -> End:
        if isinstance(end := self.ends[task], Exception):
            raise end
        return end  # type: ignore[no-any-return]

    def cancel(self, task: str, force: bool) -> None:
        self.cancelled.append((task, force))

    def shutdown(self) -> None:
        pass


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., StandIn]:
    def make(*nodes: dict[str, float]) -> StandIn:
        found = StandIn(*nodes)
        monkeypatch.setitem(sys.modules, "ray", found)  # type: ignore[arg-type]
        return found

    return make


def of(accelerator: str = "auto", devices: object = 1) -> Any:
    return OmegaConf.create({"trainer": {"accelerator": accelerator, "devices": devices}})


def test_without_the_package(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    assert call("train", "-m", "launcher=ray", "seed=0,1", f"data.root={tmp_path}") == 2
    assert capfd.readouterr().err == "error: launcher=ray needs Ray: pip install 'busi-lab[ray]'\n"
    assert not list(tmp_path.rglob("sweep.json"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpus_per_job": 5}, "launcher.cpus_per_job=5: expected at most what a node has; the largest has 4"),
        ({"gpus_per_job": 3}, "launcher.gpus_per_job=3: expected at most what a node has; the largest has 2"),
        ({"gpus_per_job": 1.5}, "launcher.gpus_per_job=1.5: expected a part of one, such as 0.5, or a whole number"),
        ({"gpus_per_job": -1}, "launcher.gpus_per_job=-1: expected a part of one, such as 0.5, or a whole number"),
        ({"retries": -1}, "launcher.retries=-1: expected at least 0"),
        ({"max_parallel": 0}, "launcher.max_parallel=0: expected at least 1"),
        ({"gpus_per_job": 2, "cpus_per_job": 4}, "launcher.gpus_per_job=2: expected a node that has 4 cores beside"),
    ],
)
def test_a_job_that_no_node_could_hold(
    stand_in: Callable[..., StandIn], settings: dict[str, Any], message: str
) -> None:
    stand_in({"CPU": 4.0}, {"CPU": 2.0, "GPU": 2.0})
    with pytest.raises(UserError) as error:
        RayExecutor(RaySettings(**settings)).places([of()])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("nodes", "given", "job", "gpus"),
    [
        ([{"CPU": 4.0}], None, of(), 0),
        ([{"CPU": 4.0, "GPU": 2.0}], None, of(), 1),
        ([{"CPU": 4.0, "GPU": 2.0}], None, of("cpu"), 0),
        ([{"CPU": 4.0, "GPU": 2.0}], None, of("gpu", 2), 2),
        ([{"CPU": 4.0, "GPU": 2.0}], None, of("gpu", [0, 1]), 2),
        ([{"CPU": 4.0, "GPU": 2.0}], 0.5, of("gpu"), 0.5),
    ],
)
def test_gpus_of_a_job(
    stand_in: Callable[..., StandIn], tmp_path: Path, nodes: list[dict[str, float]], given: float, job: Any, gpus: float
) -> None:
    ray = stand_in(*nodes)
    executor = RayExecutor(RaySettings(gpus_per_job=given, cpus_per_job=2))
    assert executor.places([job]) is None
    assert executor.threads([job]) == 2
    executor.start([Command(tmp_path / "seed0", [], {}, None, 7.0)])
    assert (ray.options["num_gpus"], ray.options["num_cpus"], ray.options["max_retries"]) == (gpus, 2, 3)
    assert (ray.jobs[0].sweep, ray.jobs[0].name, ray.jobs[0].grace) == (tmp_path, "seed0", 7.0)


def test_a_trainer_that_wants_more_gpus_than_a_job_has(stand_in: Callable[..., StandIn]) -> None:
    stand_in({"CPU": 4.0})
    with pytest.raises(UserError, match=r"trainer.accelerator=gpu: expected a GPU on a node of Ray; found none"):
        RayExecutor(RaySettings()).places([of("gpu")])
    stand_in({"CPU": 4.0, "GPU": 2.0})
    with pytest.raises(UserError, match=r"launcher.gpus_per_job=1: expected 2 for trainer.accelerator=gpu"):
        RayExecutor(RaySettings(gpus_per_job=1)).places([of("gpu", 2)])


def test_tasks_at_once_and_how_they_end(stand_in: Callable[..., StandIn], tmp_path: Path) -> None:
    ray = stand_in({"CPU": 4.0})
    executor = RayExecutor(RaySettings(max_parallel=3))
    assert executor.places([of()]) == [{}, {}, {}]
    names = ("good", "bad", "lost", "stopped")
    processes = dict(zip(names, executor.start([Command(tmp_path / n, [], {}, None, 7.0) for n in names]), strict=True))
    assert [process.poll() for process in processes.values()] == [None] * 4
    ray.ends = {"good": End(0, ""), "bad": End(UNSEEN, "nothing there"), "lost": RayError("node died\nmore")}
    assert [process.poll() for process in processes.values()] == [0, UNSEEN, LOST, None]
    assert read_summary(tmp_path / "bad").error == "nothing there"
    assert read_summary(tmp_path / "lost").error == "Ray has given the job up: node died more"
    processes["good"].terminate()  # has ended
    processes["stopped"].terminate()
    processes["stopped"].kill()
    assert ray.cancelled == [("stopped", False), ("stopped", True)]


def test_a_worker_that_does_not_see_the_folders(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    job = Job(tmp_path / "sweep", "seed0", tmp_path / "nowhere", {}, 5.0)
    end = carry_out(job)
    assert end.code == UNSEEN and end.words.startswith(f"{tmp_path}/nowhere: expected the folder of the call, found")
    end = carry_out(Job(tmp_path / "sweep", "seed0", tmp_path, {}, 5.0))
    assert end.code == UNSEEN and "sweep.json: expected the record of the sweep, found none on" in end.words
    signal.signal(signal.SIGINT, before)


PATH = os.pathsep.join((str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")))
"""Where jobs on nodes find the callback that slows them."""
TINY = ("trainer=smoke", "model=custom_cnn", "data.image_size=32", "logger=none", "launcher.threads=1")


@needs_ray
def test_no_cluster_at_the_address() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    for wrong, words in ((address, "nothing answers at"), ("nonsense", "Invalid address format")):
        with pytest.raises(UserError, match=f"launcher.address={wrong}: expected a Ray cluster.*{words}"):
            RayExecutor(RaySettings(address=wrong))


@pytest.fixture
def started(programs: Programs, phantom_root: Path, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Start a sweep of Ray, with slow jobs that can be cut."""
    found: list[Started] = []

    def start(*overrides: str) -> Started:
        common = ("-m", "launcher=ray", *TINY, f"data.root={phantom_root}", "hydra.sweep.dir=sweep")
        found.append(programs.start("train", *common, *overrides, cwd=tmp_path, environment={"PYTHONPATH": PATH}))
        return found[-1]

    yield start
    for item in found:
        item.process.kill()


def processes(*words: str) -> list[int]:
    """Ids of the processes whose command lines hold all these words."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode() if entry.name.isdigit() else ""
        except OSError:
            continue
        if line and all(word in line for word in words) and is_alive(int(entry.name)):
            found.append(int(entry.name))
    return found


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.1)


def content(run: Path, name: str) -> list[list[str]]:
    """Rows of a table without the times, which are the last two columns of ``metrics.csv``."""
    rows = [line.split(",") for line in (run / name).read_text().splitlines()]
    return [row[:-2] for row in rows] if name == "metrics.csv" else rows


@needs_ray
@pytest.mark.ray
def test_a_sweep_is_that_of_the_local_launcher(
    started: Callable[..., Started], programs: Programs, phantom_root: Path, tmp_path: Path
) -> None:
    ray = started("seed=0,1,2", "launcher.cpus_per_job=1").finish()
    common = ("-m", *TINY, f"data.root={phantom_root}", "hydra.sweep.dir=local")
    local = programs.run("train", *common, "seed=0,1,2", cwd=tmp_path)
    for seed in (0, 1, 2):
        for name in ("metrics.csv", "predictions.csv", "validation.csv"):
            runs = [tmp_path / sweep / f"seed{seed}" for sweep in ("sweep", "local")]
            assert content(runs[0], name) == content(runs[1], name)
    tables = [text[text.index("Table 1") : text.index("Cost and origin")] for text in (ray, local)]
    assert tables[0] == tables[1]
    record = read_sweep(tmp_path / "sweep")
    assert record is not None and record.threads == 1
    assert not processes(str(tmp_path / "sweep"))


@needs_ray
@pytest.mark.ray
def test_a_killed_worker_a_killed_driver_and_the_same_command(started: Callable[..., Started], tmp_path: Path) -> None:
    slowly = (*SLOWLY, "seed=0", "data.batch_size=2", "trainer.max_epochs=60")
    run = tmp_path / "sweep/job"
    sweep = started(*slowly)
    sweep.until((run / LAST_CHECKPOINT).exists, 120)
    before = processes("busi_lab.sweep.task", str(tmp_path / "sweep"))
    (worker,) = processes("ray::job")
    os.kill(worker, signal.SIGKILL)
    until(lambda: not any(map(is_alive, before)))
    assert "saving the state, then stopping" in (run / "job.log").read_text()
    until(lambda: processes("busi_lab.train", str(tmp_path / "sweep")))  # Ray has started it again
    sweep.process.kill()
    until(lambda: not processes(str(tmp_path / "sweep")), 30)
    assert not (run / "summary.json").exists()
    assert "[1/1] job: continued" in started(*slowly).finish()
    assert len(content(run, "metrics.csv")) == 61
    assert read_summary(run).status == "finished"
    assert not processes(str(tmp_path / "sweep"))


@needs_ray
@pytest.mark.ray
def test_a_sweep_that_is_stopped_saves_its_state(started: Callable[..., Started], tmp_path: Path) -> None:
    sweep = started(*SLOWLY, "seed=0", "data.batch_size=2", "trainer.max_epochs=500")
    sweep.until((tmp_path / "sweep/job" / LAST_CHECKPOINT).exists, 120)
    sweep.process.terminate()
    assert sweep.wait(60) == 128 + signal.SIGTERM
    assert "the sweep was stopped; the same command continues it" in sweep.output
    assert "saving the state, then stopping" in (tmp_path / "sweep/job/job.log").read_text()
    assert not processes(str(tmp_path / "sweep"))


@needs_ray
@pytest.mark.ray
def test_the_job_of_a_lost_node_goes_on_elsewhere(
    started: Callable[..., Started], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", PATH)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20})
    try:
        node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
        cluster.wait_for_nodes()
        runs = [tmp_path / f"sweep/seed{seed}" for seed in (0, 1)]
        slowly = (*SLOWLY, "data.batch_size=2", "trainer.max_epochs=10")
        sweep = started(f"launcher.address={cluster.address}", "seed=0,1", *slowly)
        sweep.until(lambda: all((run / LAST_CHECKPOINT).exists() for run in runs), 120)
        cluster.remove_node(node, allow_graceful=False)
        sweep.finish()
    finally:
        cluster.shutdown()
    logs = [(run / "job.log").read_text() for run in runs]
    assert sorted("saving the state, then stopping" in log for log in logs) == [False, True]
    assert [len(content(run, "metrics.csv")) for run in runs] == [11, 11]
    assert not processes(str(tmp_path / "sweep"))
