"""What SLURM says of jobs, asked by its own commands; its accounting (sacct), which many sites lack, is never asked."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from busi_lab.errors import one_line

_SECONDS = 60.0  # in which SLURM answers, or does not
_ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
)
_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")  # variables that say where SLURM is, not which job this process belongs to


class SlurmError(Exception):
    """A command of SLURM is missing, was refused, or had no answer; the message is one line."""


@dataclass(frozen=True)
class JobState:
    """A job as ``scontrol show job`` tells of it.

    Attributes:
        state: in SLURM's words, such as ``RUNNING``; a job that is being ended is ``COMPLETING``, whatever ends it.
        reason: why it waits or was ended, such as ``TimeLimit``; ``None`` for no reason.
        restarts: how often it was requeued.
        code: its exit code.
        signum: the signal that ended it, 0 for none.
        node: where it runs or ran; empty where it never did.
        preempted: whether SLURM has taken its place for another job.
    """

    state: str
    reason: str = "None"
    restarts: int = 0
    code: int = 0
    signum: int = 0
    node: str = ""
    preempted: bool = False

    @property
    def ended(self) -> bool:
        """Whether no process of it is left, and none will come."""
        return self.state in _ENDED


@dataclass(frozen=True)
class Queued:
    """A task of an array of jobs in the queue, as ``squeue`` tells of it.

    Attributes:
        array: number of the array.
        index: of the task.
        state: as in :class:`JobState`.
        reason: as there.
        node: where it runs; empty while it waits.
        script: path of the script that was submitted.
    """

    array: str
    index: int
    state: str
    reason: str
    node: str
    script: str


def call(*words: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a command of SLURM; what it prints.

    Raises:
        SlurmError: it is missing, fails, or SLURM does not answer.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, env=environment)
    except FileNotFoundError:
        raise SlurmError(f"{words[0]} is not on the path") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{words[0]} has no answer within {_SECONDS:g} seconds") from None
    except OSError as error:
        raise SlurmError(f"{words[0]} cannot be started ({one_line(error)})") from None
    if done.returncode:
        raise SlurmError(_complaint(done.stderr) or f"{words[0]} ended with exit code {done.returncode}")
    return done.stdout


def _complaint(text: str) -> str:
    """SLURM's lines of errors as one, without the program's name and what is said twice."""
    lines = [re.sub(r"^(\w+: )*(error|fatal): |^\w+: ", "", line.strip()) for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))


def outside(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables without those of an allocation that this process is in, which SLURM would take for options."""
    inside = "SLURM_JOB_ID" in environment
    return {
        key: value for key, value in environment.items() if not (inside and key.startswith("SLURM")) or key in _KEPT
    }


def job_state(identifier: str) -> JobState | None:
    """What SLURM knows of a job; None where it knows none, which for a known job means that it ended minutes ago.

    Args:
        identifier: number of a job, or ``ARRAY_INDEX``.

    Raises:
        SlurmError: SLURM does not answer.
    """
    try:
        text = call("scontrol", "--oneliner", "show", "job", identifier)
    except SlurmError as error:
        if "invalid job id" in str(error).lower():
            return None
        raise
    record = text.partition("\n")[0]
    found = dict(re.findall(r"(?:^|\s)(JobState|Reason|Restarts|ExitCode|BatchHost|PreemptTime)=(\S*)", record))
    if "JobState" not in found:
        return None
    code, _, signum = found.get("ExitCode", "0:0").partition(":")
    return JobState(
        found["JobState"],
        found.get("Reason", "None"),
        int(found.get("Restarts", "0")),
        int(code),
        int(signum or "0"),
        found.get("BatchHost", ""),
        found.get("PreemptTime", "None") not in ("None", "Unknown", "N/A"),
    )


def queued(name: str) -> list[Queued]:
    """The tasks of all arrays of a name that wait, run or are being ended, by one call of ``squeue``.

    Raises:
        SlurmError: SLURM does not answer.
    """
    fields = ("%F", "%K", "%T", "%r", "%N", "%o")
    lines = call("squeue", "--noheader", "--array", f"--name={name}", f"--format={'|'.join(fields)}").splitlines()
    split = [line.split("|", len(fields) - 1) for line in lines if line.strip()]
    return [
        Queued(array, int(index), state, reason, node, script)
        for array, index, state, reason, node, script in split
        if index.isdecimal()
    ]


@dataclass(frozen=True)
class Node:
    """Nodes of one kind in a partition.

    Attributes:
        partition: its name.
        default: whether jobs go to this partition that name none.
        cpus: of a node.
        gpus: of a node.
    """

    partition: str
    default: bool
    cpus: int
    gpus: int


def nodes() -> list[Node]:
    """The kinds of nodes of all partitions.

    Raises:
        SlurmError: SLURM does not answer.
    """
    lines = call("sinfo", "--noheader", "--exact", "--format=%P|%c|%G").splitlines()
    return [_node(line.strip().split("|")) for line in lines if line.count("|") == 2]


def _node(fields: Sequence[str]) -> Node:
    partition, cpus, resources = fields
    gpus = sum(int(number) for number in re.findall(r"(?:^|,)gpu(?::[^:,(]+)?:(\d+)", resources))
    return Node(partition.rstrip("*"), partition.endswith("*"), int(re.sub(r"\D", "", cpus) or 0), gpus)


def cluster() -> str:
    """Name of the cluster that SLURM's commands speak to here.

    Raises:
        SlurmError: SLURM does not answer.
    """
    found = re.search(r"^ClusterName\s*=\s*(\S+)", call("scontrol", "show", "config"), re.MULTILINE)
    return found[1] if found else ""


def own_job(environment: Mapping[str, str]) -> str:
    """The job that a process belongs to, empty outside SLURM.

    A task of an array is ``ARRAY_INDEX``: the number of its last task is that of the whole array.
    """
    array, index = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else environment.get("SLURM_JOB_ID", "")
