"""A job of a sweep under SLURM: ``python -m busi_lab.sweep.slurm_job SWEEP LIST``, as a step of an array's task.

SIGTERM comes before the time limit, before the place is taken for another job, from ``scancel --signal=TERM``, and from
a plain ``scancel``. The job saves its state each time. It then asks SLURM to requeue it, unless SLURM is ending it
already: that is what a plain ``scancel`` means, and a failure of the node, after which SLURM requeues by itself.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STOPPED = 128 + signal.SIGTERM
"""Exit code of a job that was stopped, has saved its state, and is not requeued."""

_TRIES = 3  # without a checkpoint, after which a job that is stopped does not go on by itself
_KEPT = (
    *("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"),
    *("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_CLUSTER_NAME", "SLURMD_NODENAME"),
)


class _Signals:
    """Notes a signal that comes while this program is still importing what it needs."""

    def __init__(self) -> None:
        self.task: Any = None
        self.signum: int | None = None

    def receive(self, signum: int, frame: Any) -> None:
        self.signum = signum
        if self.task is not None:
            self.task.stop(signum)


def main(argv: Sequence[str]) -> int:
    """Carry out the job that the array's task means; its exit code."""
    signals = _Signals()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signals.receive)
    from busi_lab.errors import UserError
    from busi_lab.slurm import own_job
    from busi_lab.sweep.task import UNSEEN, Task

    sweep, names = Path(argv[0]), Path(argv[1])
    identifier, restarts = own_job(os.environ), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    try:
        name = names.read_text(encoding="utf-8").splitlines()[int(os.environ["SLURM_ARRAY_TASK_ID"])]
    except OSError as error:
        print(f"error: {names}: {error.strerror} on {os.uname().nodename}; nodes must see it", file=sys.stderr)
        return UNSEEN
    print(f"{name}: on {os.uname().nodename}{f', restart {restarts}' if restarts else ''}", flush=True)
    _forget_slurm()
    task = Task(sweep, name)
    task.signum, signals.task = signals.signum, task
    try:
        code = task.run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if task.signum is None or code not in (STOPPED, -signal.SIGTERM):
        return 128 - code if code < 0 else code
    print(f"{name}: stopped; {_after_stop(identifier, restarts, sweep / name)}", flush=True)
    return STOPPED


def _forget_slurm() -> None:
    """Remove variables by which Lightning would take SLURM for the one that starts the processes of several GPUs.

    It would also requeue the job by itself. What locks and records need stays.
    """
    for name in list(os.environ):
        if name.startswith(("SLURM", "PMI")) and name not in _KEPT:
            del os.environ[name]


def _after_stop(identifier: str, restarts: int, directory: Path) -> str:
    """Requeue this job where it is to go on; what becomes of it, in words."""
    from busi_lab.slurm import SlurmError, call, job_state
    from busi_lab.sweep.work import resumable

    again = "the same command continues the sweep"
    try:
        job = job_state(identifier)
        if job is None or not (job.state == "RUNNING" or job.reason == "TimeLimit" or job.preempted):
            return f"SLURM ends this job (scancel), so it is not requeued; {again}"
        if restarts + 1 >= _TRIES and not resumable(directory):
            return f"not requeued, because {_TRIES} times it did not get to its first checkpoint; see launcher.time"
        call("scontrol", "requeue", identifier)
    except SlurmError as error:
        return f"not requeued ({error}); {again}"
    return "requeued"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
