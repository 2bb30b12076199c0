"""Jobs as tasks of Ray: on this machine, or on the nodes of a cluster. Needs the extra ``ray``."""

import importlib
import logging
import math
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from busi_lab.checking import check_least
from busi_lab.errors import UserError, one_line
from busi_lab.machine import cpu_count
from busi_lab.summary import SUMMARY
from busi_lab.sweep.executors.protocol import LOST, Command, Place
from busi_lab.sweep.ray_worker import Job, carry_out
from busi_lab.sweep.work import note_failure

_SECONDS = 5.0  # that a cluster has to answer
_STORE = 80 << 20  # bytes of Ray's object store, which holds nothing of ours
_TAKEN_ALONG = ("BUSI_", "WANDB_", "MLFLOW_", "HF_")  # variables of this process that jobs find as well


@dataclass
class RaySettings:
    """Group ``launcher`` of ``ray``.

    Attributes:
        address: ``local`` starts Ray on this machine; ``auto`` finds the cluster that this machine is a node of;
            or ``HOST:PORT`` of its head.
        gpus_per_job: a part of one, or a whole number; None for what the job's trainer wants, where there are GPUs.
        cpus_per_job: cores that a job keeps busy.
        threads: of the processor for each job; None for ``cpus_per_job``.
        max_parallel: jobs at once; None for as many as the nodes hold.
        retries: how often a job whose node or worker has died starts again, from its last checkpoint.
    """

    address: str = "local"
    gpus_per_job: float | None = None
    cpus_per_job: int = 1
    threads: int | None = None
    max_parallel: int | None = None
    retries: int = 3


class RayProcess:
    """A job as a task of Ray.

    Args:
        ray: the package.
        task: its reference.
        directory: of the job.
    """

    def __init__(self, ray: Any, task: Any, directory: Path) -> None:
        self._ray, self._task, self._directory = ray, task, directory
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code; why a job has failed is in its directory then."""
        if self._code is None and self._ray.wait([self._task], timeout=0)[0]:
            self._code = self._end()
        return self._code

    def _end(self) -> int:
        errors = self._ray.exceptions
        try:
            end = self._ray.get(self._task)
        except errors.TaskCancelledError:
            return LOST
        except errors.RayError as error:
            words = f"Ray has given the job up: {one_line(getattr(error, 'cause', None) or error)[:300]}"
            note_failure(self._directory, words)
            return LOST
        if end.code > 0 and end.words:  # else the shell has its words for a signal, and we have ours
            note_failure(self._directory, end.words)
        return int(end.code)

    def terminate(self) -> None:
        """Let it save its state and stop."""
        self._cancel(force=False)

    def kill(self) -> None:
        """End its worker; what is left of the job ends after its grace."""
        self._cancel(force=True)

    def _cancel(self, force: bool) -> None:
        if self._code is None:
            self._ray.cancel(self._task, force=force)


class RayExecutor:
    """Tasks on the nodes of a cluster.

    Ray ends them when this process ends, however it dies; the jobs save their state then.

    Args:
        settings: as the class says.

    Raises:
        UserError: a setting is wrong, Ray is not installed, no cluster answers, or no node could hold a job.
    """

    settings = RaySettings
    outlives = False
    how_to_stop = ""
    elsewhere = True
    waits = True
    prepares = True
    pause = 0.5

    def __init__(self, settings: RaySettings) -> None:
        _check(settings)
        self._settings = settings
        self._gpus = 0.0
        self._ray = _connect(settings.address)
        self._nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        self._refuse_too_much("cpus_per_job", settings.cpus_per_job, "CPU")
        self._refuse_too_much("gpus_per_job", settings.gpus_per_job or 0, "GPU")

    def _refuse_too_much(self, key: str, wanted: float, resource: str) -> None:
        """A task that no node can hold would wait for ever."""
        most = max((node.get(resource, 0) for node in self._nodes), default=0)
        if wanted > most:
            raise UserError(f"launcher.{key}={wanted:g}: expected at most what a node has; the largest has {most:g}")

    def threads(self, jobs: Sequence[DictConfig]) -> int:
        """What is set, or the cores of a job."""
        return self._settings.threads or self._settings.cpus_per_job

    def places(self, jobs: Sequence[DictConfig]) -> list[Place] | None:
        """As many as ``max_parallel``, or None: Ray decides.

        Raises:
            UserError: a job wants more GPUs than it is given.
        """
        wanted, most = _gpus_wanted(jobs), max((node.get("GPU", 0) for node in self._nodes), default=0)
        given = self._settings.gpus_per_job
        self._gpus = (wanted if most else 0) if given is None else given
        forced = any(job.trainer.get("accelerator") in ("gpu", "cuda") for job in jobs)
        if forced and given is None and not most:
            raise UserError("trainer.accelerator=gpu: expected a GPU on a node of Ray; found none")
        if forced and math.ceil(self._gpus) < wanted:
            raise UserError(f"launcher.gpus_per_job={self._gpus:g}: expected {wanted} for trainer.accelerator=gpu")
        self._refuse_too_much("gpus_per_job", self._gpus, "GPU")
        cores = self._settings.cpus_per_job
        if not any(node.get("GPU", 0) >= self._gpus and node.get("CPU", 0) >= cores for node in self._nodes):
            raise UserError(
                f"launcher.gpus_per_job={self._gpus:g}: expected a node that has {cores} cores beside them; found none"
            )
        return None if self._settings.max_parallel is None else [{}] * self._settings.max_parallel

    def start(self, commands: Sequence[Command]) -> list[RayProcess]:
        """Hand tasks to Ray, which starts them when a node has room."""
        task = self._ray.remote(carry_out)
        options = {
            "num_cpus": self._settings.cpus_per_job,
            "num_gpus": self._gpus,
            "max_retries": self._settings.retries,
            "scheduling_strategy": "SPREAD",
        }
        variables = {name: value for name, value in os.environ.items() if name.startswith(_TAKEN_ALONG)}
        started = []
        for command in commands:
            directory = command.directory.absolute()
            (directory / SUMMARY).unlink(missing_ok=True)  # of an earlier attempt: no news of this one
            job = Job(directory.parent, directory.name, Path.cwd(), variables, command.grace)
            reference = task.options(name=directory.name, **options).remote(job)
            started.append(RayProcess(self._ray, reference, directory))
        return started

    def close(self) -> None:
        """Leave the cluster, or end it where it is this process's own."""
        self._ray.shutdown()


def _check(settings: RaySettings) -> None:
    check_least("launcher", settings, {"cpus_per_job": 1, "threads": 1, "max_parallel": 1, "retries": 0})
    gpus = settings.gpus_per_job
    if gpus is not None and not (gpus == int(gpus) >= 0 or 0 < gpus < 1):
        raise UserError(f"launcher.gpus_per_job={gpus:g}: expected a part of one, such as 0.5, or a whole number")


def _gpus_wanted(jobs: Sequence[DictConfig]) -> int:
    """The most GPUs that a job can use."""
    most = 0
    for job in jobs:
        devices: Any = job.trainer.get("devices", 1)
        listed = isinstance(devices, Sequence) and not isinstance(devices, str)
        number = len(devices) if listed else int(devices) if str(devices).isdecimal() else 1
        most = max(most, 0 if job.trainer.get("accelerator") == "cpu" else number)
    return most


def _connect(address: str) -> Any:
    """The package ``ray``, connected to a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send statistics of its use
    if (Path.home() / ".ray/auth_token").exists():  # then "ray start" asks for it, and ray.init would not show it
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError:
        raise UserError("launcher=ray needs Ray: pip install 'busi-lab[ray]'") from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    common = {"log_to_driver": False, "configure_logging": False, "include_dashboard": False}
    try:
        if address == "local":
            own = {"num_cpus": cpu_count(), "object_store_memory": _STORE}
            ray.init(address="local", logging_level=logging.ERROR, **common, **own)
        else:
            ray.init(address=_answering(ray, address), logging_level=logging.ERROR, **common)
    except (ConnectionError, OSError, RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"launcher.address={address}: expected a Ray cluster that this machine is a node of "
            f"(ray start --address=HOST:PORT); {one_line(error)[:200]}"
        ) from None
    return ray


def _answering(ray: Any, address: str) -> str:
    """``HOST:PORT`` of a cluster's head, where something answers: Ray itself would try for many minutes.

    Raises:
        ConnectionError: nothing does, or no cluster is known.
        ValueError: that is no address.
    """
    services = importlib.import_module("ray._private.services")
    found: str | None = services.canonicalize_bootstrap_address(address)
    if found is None:
        raise ConnectionError("found none")
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()
    except OSError as error:
        raise ConnectionError(f"nothing answers at {found} ({error.strerror or error})") from None
    return found


EXECUTOR = RayExecutor
