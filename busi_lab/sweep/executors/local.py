"""Jobs on this machine: one on each GPU, or some on the CPU, forked from a process that has imported what they need."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import IO

from omegaconf import DictConfig

from busi_lab.errors import UserError
from busi_lab.machine import cpu_count
from busi_lab.run_directory import LIFELINE_VARIABLE
from busi_lab.sweep.executors.protocol import Command, Place, Process
from busi_lab.sweep.fork_server import ForkServer, ServerError

log = logging.getLogger(__name__)


class LocalExecutor:
    """Processes on this machine.

    A job inherits one end of a pipe, whose other end this process keeps: when it ends, however it dies, the kernel
    closes that end, and the jobs save their state and stop.

    Args:
        n_jobs: jobs at once; None for one on each visible GPU, or one where there is none.

    Raises:
        UserError: ``n_jobs`` is below 1.
    """

    def __init__(self, n_jobs: int | None) -> None:
        if n_jobs is not None and n_jobs < 1:
            raise UserError(f"hydra.launcher.n_jobs={n_jobs}: expected null or at least 1")
        self._count = n_jobs
        self._server: ForkServer | None = None
        self._refused = ""
        self._lock = threading.Lock()
        self._lifeline = os.pipe()

    def places(self, jobs: Sequence[DictConfig]) -> list[Place]:
        """A place for each job at once: with a GPU of its own, or with its share of the cores."""
        wanted = {(str(job.trainer.get("accelerator")), str(job.trainer.get("devices", 1))) for job in jobs}
        # a job that wants no GPU, or several, sees the machine as it is
        shared = any(accelerator == "cpu" or devices != "1" for accelerator, devices in wanted)
        gpus = [] if shared else visible_gpus()
        count = self._count or len(gpus) or 1
        if gpus:
            return [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} for number in range(count)]
        if count == 1 or "OMP_NUM_THREADS" in os.environ:
            return [{}] * count
        return [{"OMP_NUM_THREADS": str(max(1, cpu_count() // count))}] * count

    def start(self, command: Command) -> Process:
        """Start a job in a session of its own, so that Ctrl-C reaches it once, from the sweep."""
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
        with self._lock:
            if self._refused:
                raise ServerError(self._refused)
            if self._server is None:
                self._server = ForkServer()
            return self._server

    def _spawn(
        self, command: Command, environment: Mapping[str, str | None], output: IO[bytes] | None, why: ServerError
    ) -> Process:
        """Start a job in a new interpreter, which takes some seconds more and gives the same."""
        with self._lock:
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


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Identifiers of the GPUs that jobs may use, found without CUDA being initialised here."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [item for item in environment["CUDA_VISIBLE_DEVICES"].split(",") if item.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]


EXECUTOR = LocalExecutor
