"""A job of a sweep on the machine where it runs: ``python -m busi_lab.sweep.task SWEEP JOB [GRACE]``.

Engines that place jobs on other machines start this program there. It decides, from the job's directory as it is now,
whether the job has finished, goes on or begins, and starts ``busi-train`` in a session of its own. It is asked to stop
by SIGTERM, by Ctrl-C, or by the end of the lifeline that it has inherited; then the job has GRACE seconds to save its
state, or as many as the engine leaves it.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from busi_lab.errors import UserError
from busi_lab.run.stop import lifeline, sweep_has_died
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
        grace: seconds that it has to save its state when it is asked to stop; then it is killed.

    Attributes:
        signum: the signal by which it was asked to stop; None while it was not.
    """

    def __init__(self, sweep: Path, name: str, grace: float = math.inf) -> None:
        self._sweep, self._name, self._grace = sweep, name, grace
        self._last = math.inf  # of the clock, until which the job may save its state
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
            self._look()
            if self.signum is not None or time.monotonic() > end:
                print(f"error: {directory}: in use by another process", file=sys.stderr)
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
        self._note(signum)
        if self._process is not None:
            self._process.terminate()

    def _note(self, signum: int) -> None:
        if self.signum is None:
            self._last = time.monotonic() + self._grace
        self.signum = signum

    def _look(self) -> None:
        """Note that what started this program has died; the job sees it as well, and a signal would be its second."""
        if self.signum is None and sweep_has_died():
            self._note(signal.SIGTERM)

    def _wait(self, process: "subprocess.Popen[bytes]") -> int:
        """Wait for the end of the job's process; its exit code."""
        while True:
            try:
                return process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                self._look()
            if time.monotonic() > self._last:
                process.kill()

    def _execute(self, arguments: Sequence[str], variables: dict[str, str], log: Path) -> int:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "busi_lab.train", *arguments],
                env=variables,
                stdout=output,
                stderr=output,
                pass_fds=[] if (number := lifeline()) is None else [number],
                start_new_session=True,
            )
            self._process = process
            try:
                if self.signum is not None:
                    process.terminate()
                return self._wait(process)
            finally:  # whatever ends this program, no process of the job is left
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)


def main(argv: Sequence[str]) -> int:
    """Carry out the job that the arguments name; its exit code."""
    task = Task(Path(argv[0]), argv[1], *map(float, argv[2:]))
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
