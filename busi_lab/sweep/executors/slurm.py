"""Jobs on a SLURM cluster: an array of them for those that are neither finished nor in the queue already.

What SLURM knows is asked of ``squeue`` and ``scontrol``, never of its accounting; what came of a job is in its
directory. The array's name is a digest of the sweep's directory, and its script lies there beside the list of its
jobs: so whoever calls, now or later, finds what was submitted.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from busi_lab.errors import UserError
from busi_lab.files import write_atomically
from busi_lab.plurals import counted
from busi_lab.slurm import JobState, Queued, SlurmError, call, job_state, nodes, outside, queued
from busi_lab.summary import SUMMARY
from busi_lab.sweep.executors.protocol import LOST, Command, Place
from busi_lab.sweep.slurm_job import STOPPED
from busi_lab.sweep.slurm_request import SlurmSettings, check_nodes, check_settings, options, script, words
from busi_lab.sweep.task import HELD, UNSEEN
from busi_lab.sweep.work import ended_well, note_failure

log = logging.getLogger(__name__)

FOLDER = "slurm"
"""Folder in a sweep's directory with scripts, lists of jobs and what the tasks print."""

_SETTLING = 90.0  # seconds in which SLURM has ended, or requeued, a job that is being ended
_VISIBLE = 15.0  # seconds after which a file that another machine has written is seen here
_PLAIN = ("None", "Resources", "Priority", "JobArrayTaskLimit", "BeginTime")  # reasons to wait that need no word
_COULD_NOT_WRITE = 53  # the "signal" of a job whose output file cannot be opened


class Queue:
    """Tasks in the queue of the sweep in a directory, by the names of their jobs; one call of squeue for all.

    Args:
        sweep: directory of the sweep.
        pause: seconds for which an answer is good.

    Attributes:
        name: of the sweep's arrays.
        folder: of the sweep's scripts.
    """

    def __init__(self, sweep: Path, pause: float) -> None:
        self.name = f"busi-{hashlib.sha256(str(sweep.resolve()).encode()).hexdigest()[:8]}"
        self.folder = sweep.resolve() / FOLDER
        self._pause = pause
        self._asked: float | None = None
        self._tasks: dict[str, Queued] = {}
        self._silent = False

    def ask(self) -> dict[str, Queued]:
        """The tasks now.

        Raises:
            SlurmError: SLURM does not answer.
        """
        listed = {script: (self.folder / Path(script).with_suffix(".txt").name) for script in self._scripts()}
        names = {script: path.read_text(encoding="utf-8").splitlines() for script, path in listed.items()}
        found = [task for task in queued(self.name) if task.script in names]
        self._tasks = {names[task.script][task.index]: task for task in found}
        self._asked = time.monotonic()
        return self._tasks

    def _scripts(self) -> list[str]:
        return [str(path) for path in self.folder.glob("jobs-*.sh") if path.with_suffix(".txt").exists()]

    def tasks(self) -> dict[str, Queued]:
        """The tasks as they were some seconds ago at most, or longer where SLURM does not answer."""
        if self._asked is None or time.monotonic() - self._asked >= self._pause:
            try:
                self.ask()
                self._silent = False
            except SlurmError as error:
                if not self._silent:
                    log.info("SLURM: %s; asked again until it answers", error)
                self._silent = True
                self._asked = time.monotonic()
        return self._tasks

    def settled(self, names: Collection[str]) -> dict[str, Queued]:
        """The tasks when none of these jobs is being ended any more: it will be gone then, or have been requeued.

        Raises:
            SlurmError: SLURM does not answer.
        """
        end = time.monotonic() + _SETTLING
        told = False
        while any(task.state == "COMPLETING" for name, task in self.ask().items() if name in names):
            if time.monotonic() > end:
                break
            if not told:
                log.info("SLURM is ending jobs of this sweep; waiting for that")
            told = True
            time.sleep(1)
        return self._tasks


class SlurmProcess:
    """A job in the queue.

    Args:
        queue: of the sweep.
        directory: of the job.
        identifier: of the array's task, ``ARRAY_INDEX``.
    """

    def __init__(self, queue: Queue, directory: Path, identifier: str) -> None:
        self._queue = queue
        self._directory = directory
        self._identifier = identifier
        self._told: tuple[str, ...] = ()
        self._since: float | None = None

    def poll(self) -> int | None:
        """Its exit code when it has left the queue; why a job has failed is in its directory then."""
        task = self._queue.tasks().get(self._directory.name)
        if task is not None:
            self._identifier, self._since = f"{task.array}_{task.index}", None
            self._tell(task)
            return None
        self._since = self._since or time.monotonic()
        for folder in (self._directory.parent, self._directory):
            with contextlib.suppress(FileNotFoundError), os.scandir(folder):  # lets NFS look again
                pass
        if (summary := ended_well(self._directory)) is not None:
            log.info("%s: %s", self._directory.name, summary.status)
            return 0
        try:
            job = job_state(self._identifier)
        except SlurmError:
            return None
        if job is not None and not job.ended:
            return None  # between two answers it was requeued
        if (job is None or job.code == job.signum == 0) and time.monotonic() < self._since + _VISIBLE:
            return None
        note_failure(self._directory, f"SLURM job {self._identifier} {self._end(job)}")
        return LOST if job is None else job.code or -job.signum

    def _tell(self, task: Queued) -> None:
        """Say once what has become of the job in the queue."""
        name, number = self._directory.name, f"job {task.array}_{task.index}"
        if task.state == "RUNNING":
            told: tuple[str, ...] = ("running", task.node)
            words = f"{name}: running on {task.node} ({number})"
        elif task.state == "PENDING" and task.reason not in _PLAIN:
            told, words = ("waiting", task.reason), f"{name}: waits ({task.reason}; {number})"
        elif task.state == "PENDING" and self._told[:1] == ("running",):
            told, words = ("waiting", ""), f"{name}: was requeued, and waits ({number})"
        else:
            return
        if told != self._told:
            log.info("%s", words)
        self._told = told

    def _end(self, job: JobState | None) -> str:
        """How a job has ended that has not finished, in words."""
        again = "the same command continues it"
        if job is None:
            return f"has ended, and SLURM has forgotten how; {again}"
        node = job.node or "its node"
        known = {
            "CANCELLED": f"was cancelled; {again}",
            "TIMEOUT": f"reached the time limit before it had saved its state (launcher.time, sweep.grace); {again}",
            "OUT_OF_MEMORY": "ran out of memory (launcher.memory)",
            "NODE_FAIL": f"lost {node}; {again}",
            "BOOT_FAIL": f"lost {node}; {again}",
            "PREEMPTED": f"made room for another job; {again}",
            "DEADLINE": f"passed its deadline; {again}",
        }
        if job.state in known:
            return known[job.state]
        output = f"see {self._queue.folder.name}/{self._identifier}.log in the sweep's folder"
        if job.code == UNSEEN or job.signum == _COULD_NOT_WRITE:
            where = self._queue.folder.parent
            return f"does not see {where} on {node}; set hydra.sweep.dir to a folder that every node sees"
        if job.code == HELD:
            return f"found its directory in use by another process; {output}"
        if job.code == STOPPED:
            return f"was stopped and not requeued; {output}; {again}"
        return f"was killed by signal {job.signum}" if job.signum else f"ended with exit code {job.code}; {output}"

    def terminate(self) -> None:
        """Cancel the job, which saves its state."""
        self._cancel()

    def kill(self) -> None:
        """End the job at once."""
        self._cancel("--signal=KILL", "--full")

    def _cancel(self, *how: str) -> None:
        call("scancel", *how, self._identifier)


class SlurmExecutor:
    """Arrays of jobs on a cluster.

    Args:
        settings: as the class says.

    Raises:
        UserError: a setting is wrong, no node could follow it, or no SLURM answers here.
    """

    settings = SlurmSettings
    outlives = True
    prepares = True
    elsewhere = True
    pause = 5.0

    def __init__(self, settings: SlurmSettings) -> None:
        check_settings(settings)
        missing = [name for name in ("sbatch", "squeue", "scontrol", "sinfo") if shutil.which(name) is None]
        if missing:
            raise UserError(
                f"launcher=slurm: expected the commands of SLURM, found no {missing[0]} on the path; "
                "call busi-train on a login node of the cluster"
            )
        try:
            check_nodes(settings, nodes())
        except SlurmError as error:
            raise UserError(f"launcher=slurm: SLURM does not answer ({error})") from None
        self._settings = settings
        self._queue: Queue | None = None
        self.waits = settings.wait
        self.how_to_stop = ""

    def threads(self, jobs: Sequence[DictConfig]) -> int:
        """What is set, or the processors of a job."""
        return self._settings.threads or self._settings.cpus_per_job

    def places(self, jobs: Sequence[DictConfig]) -> list[Place] | None:
        """None: SLURM decides.

        Raises:
            UserError: a job wants more GPUs than it is given.
        """
        for job in jobs:
            wanted: Any = job.trainer.get("devices", 1)
            wanted = len(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else wanted
            given = self._settings.gpus_per_job
            if job.trainer.get("accelerator") in ("gpu", "cuda") and (given == 0 or str(wanted) > str(given)):
                raise UserError(f"launcher.gpus_per_job={given}: expected {wanted}, as trainer.devices={wanted} of gpu")
        return None

    def start(self, commands: Sequence[Command]) -> list[SlurmProcess]:
        """Submit jobs that are not in the queue, as one array.

        Raises:
            UserError: SLURM refuses them, or does not answer.
        """
        sweep = commands[0].directory.parent
        queue = self._queue = self._queue or Queue(sweep, self.pause)
        self.how_to_stop = (
            f"squeue --name={queue.name} shows them, scancel --name={queue.name} ends them, and the same command "
            "goes on with the sweep"
        )
        try:
            names = {command.directory.name for command in commands}
            known = queue.settled(names)
            missing = [command for command in commands if command.directory.name not in known]
            array = self._submit(missing, queue, sweep.resolve()) if missing else ""
            queue.ask()
        except SlurmError as error:
            raise UserError(f"launcher=slurm: SLURM refuses the jobs ({error})") from None
        states = Counter(task.state.lower() for name, task in known.items() if name in names)
        parts = [f"{counted(len(missing), 'job')} submitted as array {array}"] if missing else []
        parts += [f"{count} {state} since before" for state, count in sorted(states.items())]
        log.info("SLURM (%s): %s", queue.name, ", ".join(parts))
        numbers = {command.directory.name: f"{array}_{number}" for number, command in enumerate(missing)}
        numbers |= {name: f"{task.array}_{task.index}" for name, task in known.items()}
        return [SlurmProcess(queue, command.directory, numbers[command.directory.name]) for command in commands]

    def _submit(self, commands: Sequence[Command], queue: Queue, sweep: Path) -> str:
        """Submit jobs as one array; its number."""
        chosen = options(self._settings, queue.name, len(commands), queue.folder, commands[0].grace)
        queue.folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(path.stem.split("-")[1]) for path in queue.folder.glob("jobs-*.txt")), default=0)
        path = queue.folder / f"jobs-{number}.sh"
        names = path.with_suffix(".txt")
        write_atomically(names, "".join(f"{command.directory.name}\n" for command in commands))
        write_atomically(path, script(self._settings, chosen, sweep, names))
        for command in commands:  # what an earlier attempt has left is no news of this one
            (command.directory / SUMMARY).unlink(missing_ok=True)
        # options stand in the script for readers; on the command line they go before those of SBATCH_* variables
        try:
            answer = call("sbatch", "--parsable", *words(chosen), str(path), environment=outside(os.environ))
        except SlurmError:
            names.unlink()  # without it no task can begin, should SLURM have taken them all the same
            path.unlink()
            raise
        return answer.strip().partition(";")[0]

    def close(self) -> None:
        """Nothing is held."""


EXECUTOR = SlurmExecutor
