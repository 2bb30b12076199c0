"""A job of a sweep on the machine where it runs: ``python -m busi_lab.sweep.task SWEEP JOB``.

Engines that place jobs on other machines start this program there. It decides, from the job's directory as it is now,
whether the job has finished, goes on or begins, and starts ``busi-train`` in a session of its own.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from busi_lab.errors import UserError
from busi_lab.sweep.record import SWEEP, read_sweep
from busi_lab.sweep.work import LOG, PATIENCE, command_line, ended_well, make_room, note_end

UNSEEN = 66
"""Exit code where this machine does not see the sweep's directory."""
HELD = 75
"""Exit code where another process holds the job's directory."""


class Task:
    """A job that is carried out here.

    Args:
        sweep: directory of the sweep.
        name: of the job.

    Attributes:
        signum: the signal by which it was asked to stop; None while it was not.
    """

    def __init__(self, sweep: Path, name: str) -> None:
        self._sweep, self._name = sweep, name
        self._process: subprocess.Popen[bytes] | None = None
        self.signum: int | None = None

    def run(self) -> int:
        """Carry the job out; the exit code of its process, 0 where it had finished before.

        Raises:
            UserError: the sweep's record is damaged, or has no such job.
        """
        record = read_sweep(self._sweep)
        if record is None:
            print(
                f"error: {self._sweep / SWEEP}: expected the record of the sweep, found none on {os.uname().nodename}; "
                "set hydra.sweep.dir to a folder that every node sees",
                file=sys.stderr,
            )
            return UNSEEN
        job, directory = record.job(self._name), self._sweep / self._name
        if ended_well(directory) is not None:
            return 0
        end = time.monotonic() + PATIENCE
        while not make_room(directory):
            if self.signum is not None or time.monotonic() > end:
                return HELD
            time.sleep(0.5)
        variables = {**os.environ, **record.environment, "OMP_NUM_THREADS": str(record.threads)}
        variables.pop("WANDB_RUN_ID", None)  # which names one run, not every job
        started = time.perf_counter()
        code = self._execute(command_line(directory, job), variables, directory / LOG)
        if self.signum is None:
            note_end(directory, code, time.perf_counter() - started)
        return code

    def stop(self, signum: int, frame: Any = None) -> None:
        """Ask the job to save its state and to stop; a handler of signals."""
        self.signum = signum
        if self._process is not None:
            self._process.terminate()

    def _execute(self, arguments: Sequence[str], variables: dict[str, str], log: Path) -> int:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "busi_lab.train", *arguments],
                env=variables,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            self._process = process
            try:
                if self.signum is not None:
                    process.terminate()
                return process.wait()
            finally:  # whatever ends this program, no process of the job is left
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)


def main(argv: Sequence[str]) -> int:
    """Carry out the job that the arguments name; its exit code."""
    task = Task(Path(argv[0]), argv[1])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, task.stop)
    try:
        return task.run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.exit(128 - code if code < 0 else code)
