"""A job of a sweep inside a worker of Ray, which may be killed at any moment.

The worker holds one end of a pipe, the job's lifeline. However the worker ends, the kernel closes that end, and the
job saves its state and stops. Between the worker and the job stands a shell: Ray, which kills the children of its
workers, kills that, and not the program that watches over the job (:mod:`busi_lab.sweep.task`).
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from busi_lab.run_directory import LIFELINE_VARIABLE
from busi_lab.sweep.task import UNSEEN

_SHELL = ("sh", "-c", '"$@" & wait $!', "sh")
_SPARE = 10.0  # seconds beside the job's own, until its shell is killed


@dataclass(frozen=True)
class Job:
    """What a worker is told of a job.

    Attributes:
        sweep: directory of the sweep, absolute.
        name: of the job.
        folder: that its paths are relative to.
        variables: set beside those of the worker.
        grace: seconds that it has to save its state when it is stopped.
    """

    sweep: Path
    name: str
    folder: Path
    variables: Mapping[str, str]
    grace: float


@dataclass(frozen=True)
class End:
    """How a job has ended: its exit code, -N where signal N has killed it, and the last line that was printed."""

    code: int
    words: str


def carry_out(job: Job) -> End:
    """Carry a job out on this machine; Ctrl-C lets it save its state and stop."""
    if not job.folder.is_dir():
        place = f"found none on {os.uname().nodename}; call busi-train from a folder that every node sees"
        return End(UNSEEN, f"{job.folder}: expected the folder of the call, {place}")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where Ray was started in the background
    program = [sys.executable, "-m", "busi_lab.sweep.task", str(job.sweep), job.name, str(job.grace)]
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as theirs, os.fdopen(writing, "wb") as ours, tempfile.TemporaryFile() as output:
        held = {LIFELINE_VARIABLE: f"{reading}:{os.fstat(reading).st_ino}"}
        shell = subprocess.Popen(
            [*_SHELL, *program],
            cwd=job.folder,
            env={**os.environ, **job.variables, **held},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        try:
            with contextlib.suppress(KeyboardInterrupt):
                while shell.poll() is None:
                    time.sleep(0.2)
            ours.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                shell.wait(job.grace + _SPARE)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(shell.pid, signal.SIGKILL)
        code = shell.wait()
        output.seek(0)
        lines = output.read().decode(errors="replace").splitlines()
    return End(128 - code if code > 128 else code, lines[-1].removeprefix("error: ") if lines else "")
