"""Jobs on this machine: one on each GPU, or some on the CPU, forked from a process that has imported what they need."""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

from omegaconf import DictConfig

from busi_lab.checking import check_least
from busi_lab.machine import cpu_count
from busi_lab.run_directory import LIFELINE_VARIABLE
from busi_lab.sweep.executors.protocol import Command, Place, Process
from busi_lab.sweep.fork_server import ForkServer, ServerError
from busi_lab.sweep.gpus import half_full, visible_gpus

log = logging.getLogger(__name__)


@dataclass
class LocalSettings:
    """Group ``launcher`` of ``local``.

    Attributes:
        jobs: at once; None for ``jobs_per_gpu`` on each visible GPU, or one where there is none.
        jobs_per_gpu: jobs that share a GPU.
        threads: of the processor for each job; None for its share of the cores.
    """

    jobs: int | None = None
    jobs_per_gpu: int = 1
    threads: int | None = None


class LocalExecutor:
    """Processes on this machine.

    A job inherits one end of a pipe, whose other end this process keeps: when it ends, however it dies, the kernel
    closes that end, and the jobs save their state and stop.

    Args:
        settings: as the class says.

    Raises:
        UserError: a setting below 1.
    """

    settings = LocalSettings
    outlives = False
    how_to_stop = ""
    elsewhere = False
    waits = True
    prepares = False
    pause = 0.05

    def __init__(self, settings: LocalSettings) -> None:
        check_least("launcher", settings, {"jobs": 1, "jobs_per_gpu": 1, "threads": 1})
        self._settings = settings
        self._server: ForkServer | None = None
        self._refused = ""
        self._lifeline = os.pipe()

    def threads(self, jobs: Sequence[DictConfig]) -> int:
        """What is set, or a share of the cores."""
        given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        if self._settings.threads is not None or given.isdecimal():
            return self._settings.threads or max(1, int(given))
        return max(1, cpu_count() // len(self.places(jobs)))

    def places(self, jobs: Sequence[DictConfig]) -> list[Place]:
        """A place for each job at once, with a GPU where there are some."""
        wanted = {(str(job.trainer.get("accelerator")), str(job.trainer.get("devices", 1))) for job in jobs}
        # a job that wants no GPU, or several, sees the machine as it is
        shared = any(accelerator == "cpu" or devices != "1" for accelerator, devices in wanted)
        gpus = [] if shared else visible_gpus()
        count = self._settings.jobs or len(gpus) * self._settings.jobs_per_gpu or 1
        if 0 < len(gpus) < count and (full := half_full(gpus)):
            log.warning("%s, and several jobs are to share a GPU (launcher.jobs_per_gpu)", full)
        return [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {} for number in range(count)]

    def start(self, commands: Sequence[Command]) -> list[Process]:
        """Start jobs, each in a session of its own, so that Ctrl-C reaches them once, from the sweep."""
        return [self._start(command) for command in commands]

    def _start(self, command: Command) -> Process:
        reading = self._lifeline[0]
        environment = dict(command.environment)
        if os.name != "nt":  # where processes inherit no pipes by their numbers
            environment[LIFELINE_VARIABLE] = f"{reading}:{os.fstat(reading).st_ino}"
        with ExitStack() as stack:
            output = stack.enter_context(command.log.open("ab")) if command.log else None
            try:
                server = self._fork_server()
                return server.start("busi_lab.train", command.arguments, environment, output, keep=[reading])
            except ServerError as error:
                return self._spawn(command, environment, output, error)

    def _fork_server(self) -> ForkServer:
        if self._refused:
            raise ServerError(self._refused)
        if self._server is None:
            self._server = ForkServer()
        return self._server

    def _spawn(
        self, command: Command, environment: Mapping[str, str | None], output: IO[bytes] | None, why: ServerError
    ) -> Process:
        """Start a job in a new interpreter, which takes some seconds more and gives the same."""
        if not self._refused:
            log.info("jobs start as new processes: the fork server does not serve, because %s", why)
        self._refused = str(why)
        variables = {**os.environ, **environment}
        return subprocess.Popen(
            [sys.executable, "-m", "busi_lab.train", *command.arguments],
            env={key: value for key, value in variables.items() if value is not None},
            stdout=output,
            stderr=output,
            pass_fds=() if os.name == "nt" else self._lifeline[:1],
            start_new_session=True,
        )

    def close(self) -> None:
        """End the server and the pipe."""
        if self._server is not None:
            self._server.close()
        for end in self._lifeline:
            os.close(end)


EXECUTOR = LocalExecutor
