"""``sweep.json``: what a sweep has decided once for all of its jobs, wherever they run and whenever it goes on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from busi_lab.errors import UserError, one_line
from busi_lab.files import write_json

SWEEP = "sweep.json"


@dataclass(frozen=True)
class JobRecord:
    """A job of a sweep.

    Attributes:
        name: of its directory, in that of the sweep.
        begin: the command line of ``busi-train`` that begins it, without where to write.
        go_on: the command line that continues it where it was cut.
    """

    name: str
    begin: tuple[str, ...]
    go_on: tuple[str, ...]


@dataclass(frozen=True)
class SweepRecord:
    """A sweep.

    Attributes:
        threads: of the processor for each job: with others, sums of floating-point numbers differ in their last digit.
        environment: variables for every job, which trackers have decided on.
        jobs: in their order; those of earlier batches first.
        to_come: how many jobs a search has still to propose.
        schema: of this file.
    """

    threads: int
    environment: Mapping[str, str] = field(default_factory=dict)
    jobs: tuple[JobRecord, ...] = ()
    to_come: int = 0
    schema: int = 1

    def with_jobs(self, jobs: Sequence[JobRecord]) -> "SweepRecord":
        """The same with further jobs; one of a known name takes the place of that."""
        known = {job.name: job for job in (*self.jobs, *jobs)}
        return replace(self, jobs=tuple(known.values()))

    def job(self, name: str) -> JobRecord:
        """A job by its name.

        Raises:
            UserError: there is none.
        """
        found = next((job for job in self.jobs if job.name == name), None)
        if found is None:
            raise UserError(f"{SWEEP} has no job {name}; start the sweep again with its command")
        return found


def write_sweep(directory: Path, record: SweepRecord) -> None:
    """Write the record of the sweep in ``directory``."""
    write_json(directory / SWEEP, asdict(record))


def read_sweep(directory: Path) -> SweepRecord | None:
    """The record of the sweep in ``directory``; None where there is none yet.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / SWEEP
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        jobs = tuple(JobRecord(job["name"], tuple(job["begin"]), tuple(job["go_on"])) for job in content["jobs"])
        known = {item.name for item in fields(SweepRecord)}
        return SweepRecord(**{**{key: value for key, value in content.items() if key in known}, "jobs": jobs})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({one_line(error)[:100]}); remove it and start the sweep again") from None
