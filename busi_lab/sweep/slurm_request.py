"""What a sweep asks of SLURM: settings, checked against the partitions, become options of ``sbatch`` and a script."""

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from busi_lab.checking import check_least
from busi_lab.errors import UserError
from busi_lab.slurm import Node
from busi_lab.suggestions import one_of


@dataclass
class SlurmSettings:
    """Group ``launcher`` of ``slurm``.

    Attributes:
        partition: None for the cluster's default; several with commas between.
        gpus_per_job: of one node.
        cpus_per_job: of one node.
        memory: of a job, such as ``16G``; None for the cluster's default.
        time: limit of a job, such as ``4:00:00``; at the limit a job saves its state, is requeued and goes on.
        max_parallel: jobs that run at once; None for no limit of ours.
        setup: lines of the shell before each job.
        sbatch: further options of sbatch by their long names, such as ``{account: us, qos: long}``.
        wait: whether the command waits for its jobs and ranks them.
        threads: of the processor for each job; None for ``cpus_per_job``.
    """

    partition: str | None = None
    gpus_per_job: int = 0
    cpus_per_job: int = 4
    memory: str | None = None
    time: str | None = None
    max_parallel: int | None = None
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] | None = None
    wait: bool = True
    threads: int | None = None


def check_settings(settings: SlurmSettings) -> None:
    """Refuse what no cluster could follow.

    Raises:
        UserError: naming the first such setting.
    """
    check_least("launcher", settings, {"cpus_per_job": 1, "gpus_per_job": 0, "max_parallel": 1, "threads": 1})
    if settings.time is not None:
        seconds(settings.time)
    if settings.memory is not None and not re.fullmatch(r"\d+[KMGT]?", settings.memory, re.IGNORECASE):
        raise UserError(f"launcher.memory={settings.memory}: expected a number with K, M, G or T, such as 16G")


def check_nodes(settings: SlurmSettings, nodes: list[Node]) -> None:
    """Refuse what no node of the partition has.

    Args:
        settings: checked by :func:`check_settings`.
        nodes: of all partitions.

    Raises:
        UserError: an unknown partition, or more than any node has.
    """
    wanted = settings.partition.split(",") if settings.partition else []
    known = sorted({node.partition for node in nodes})
    for name in wanted:
        if name not in known:
            raise UserError(one_of(f"launcher.partition={name}: no such partition", name, known, "partitions"))
    usable = [node for node in nodes if (node.partition in wanted if wanted else node.default)]
    place = f"partition {settings.partition}" if wanted else "the default partition"
    for name, what, most in (
        ("gpus_per_job", "GPUs", max((node.gpus for node in usable), default=None)),
        ("cpus_per_job", "processors", max((node.cpus for node in usable), default=None)),
    ):
        value = getattr(settings, name)
        if most is not None and value > most:
            raise UserError(f"launcher.{name}={value}: expected at most {most}, as no node of {place} has more {what}")


_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")


def seconds(time: str) -> float:
    """A time limit as SLURM understands it: ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M`` or ``D-H:M:S``.

    Raises:
        UserError: it is none.
    """
    if time.lower() in ("infinite", "unlimited"):
        return float("inf")
    found = _TIME.fullmatch(time)
    if found is None:
        raise UserError(f"launcher.time={time}: expected minutes, H:M:S or DAYS-H:M:S, such as 4:00:00")
    parts = [int(part) for part in found["parts"].split(":")]
    first = 0 if found["days"] or len(parts) == 3 else 1  # hours, or minutes
    units = (3600, 60, 1)[first:]
    return int(found["days"] or 0) * 86400.0 + sum(part * unit for part, unit in zip(parts, units, strict=False))


def options(settings: SlurmSettings, name: str, count: int, folder: Path, grace: float) -> dict[str, str | None]:
    """Options of ``sbatch`` for an array of jobs; None for one without a value.

    Args:
        settings: checked.
        name: of the array.
        count: of jobs.
        folder: for what jobs print.
        grace: seconds that a job has to save its state.

    Raises:
        UserError: ``launcher.sbatch`` sets what is set here, or the time limit is shorter than ``grace``.
    """
    if settings.time is not None and seconds(settings.time) <= grace:
        raise UserError(
            f"launcher.time={settings.time}: expected more than the {grace:g} seconds that a job has to save its state "
            "(sweep.grace)"
        )
    at_once = "" if settings.max_parallel is None else f"%{settings.max_parallel}"
    ours: dict[str, str | None] = {
        "job-name": name,
        "array": f"0-{count - 1}{at_once}",
        "output": f"{str(folder).replace('%', '%%')}/%A_%a.log",
        "open-mode": "append",
        "requeue": None,
        "signal": f"TERM@{max(1, round(grace))}",
        "ntasks": "1",
        "cpus-per-task": str(settings.cpus_per_job),
    }
    given = {"partition": settings.partition, "mem": settings.memory, "time": settings.time}
    ours |= {option: value for option, value in given.items() if value is not None}
    if settings.gpus_per_job:
        ours["gres"] = f"gpu:{settings.gpus_per_job}"
    return {**ours, **_further(settings.sbatch or {}, ours)}


def _further(given: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for key, value in given.items():
        option = str(key).lstrip("-").replace("_", "-")
        if option in ours or option in ("no-requeue", "wrap", "parsable", "error"):
            raise UserError(f"launcher.sbatch.{key}: busi-train sets this itself; leave it out")
        if value is not None and value is not False:
            listed = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            found[option] = None if value is True else listed
    return found


def words(chosen: Mapping[str, str | None]) -> list[str]:
    """Options as words of a command line."""
    return [f"--{option}" if value is None else f"--{option}={value}" for option, value in chosen.items()]


def script(settings: SlurmSettings, chosen: Mapping[str, str | None], sweep: Path, names: Path) -> str:
    """The text of a script for ``sbatch``.

    ``srun`` makes a step of each job: signals of SLURM reach steps, and not the shell around them.

    Args:
        settings: of the sweep.
        chosen: options of ``sbatch``.
        sweep: directory of the sweep.
        names: file with a name of a job on each line.
    """
    program = [sys.executable, "-m", "busi_lab.sweep.slurm_job", str(sweep), str(names)]
    srun = ["srun", "--ntasks=1", f"--cpus-per-task={settings.cpus_per_job}", *program]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {shlex.quote(word)}" for word in words(chosen)),
        f"# Written by busi-train for the jobs in {names.name}: line 1 is task 0. The same command writes a new",
        "# script for jobs that are neither finished nor in the queue.",
        *settings.setup,
        f"exec {shlex.join(srun)}",
    ]
    return "\n".join(lines) + "\n"
