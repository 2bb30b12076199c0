"""How far a sweep is, from its directories alone, whatever runs its jobs: what is done, running, failed, waiting."""

import csv
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from busi_lab.errors import UserError
from busi_lab.locks import is_held
from busi_lab.run_directory import CONFIG, METRICS
from busi_lab.summary import SUMMARY, Summary, read_summary
from busi_lab.sweep.record import SWEEP, read_sweep
from busi_lab.sweep.work import resumable

STATES = ("running", "finished", "pruned", "failed", "stopped", "waiting")
"""``stopped``: cut after an epoch, and nobody holds its directory; the sweep's command continues it."""


@dataclass(frozen=True)
class JobState:
    """A job of a sweep.

    Attributes:
        name: of its directory.
        state: one of ``STATES``.
        epochs: that are done; None where nothing was written yet.
        of: epochs that it is to take at most; None where that is not known.
        seconds: of an epoch, the median; None without one.
        total: seconds that a finished job took.
        objective: name and value of what ranks it, of a finished job.
        reason: why it has failed.
    """

    name: str
    state: str
    epochs: int | None = None
    of: int | None = None
    seconds: float | None = None
    total: float | None = None
    objective: tuple[str, float] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Progress:
    """A sweep at one moment.

    Attributes:
        jobs: that are known.
        left: seconds until its end; None where nothing tells them.
        to_come: how many jobs a search has still to propose.
        goes_on: whether a job is running, or a process holds the sweep, which may be between two jobs.
    """

    jobs: tuple[JobState, ...]
    left: float | None
    to_come: int = 0
    goes_on: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs are in which state, in the order of ``STATES``."""
        found = Counter(job.state for job in self.jobs)
        return {state: found[state] for state in STATES if found[state]}


def progress(directory: Path) -> Progress:
    """How far the sweep in ``directory`` is.

    Raises:
        UserError: there is no such folder, or it holds no sweep.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; give the directory of a sweep, as sweeps/NAME")
    record = read_sweep(directory)
    names = [job.name for job in record.jobs] if record else _folders_with_runs(directory)
    if not names:
        raise UserError(f"{directory}: holds no sweep: expected {SWEEP}, or runs in its folders")
    jobs = tuple(_state(directory / name) for name in names)
    to_come = record.to_come if record else 0
    goes_on = any(job.state == "running" for job in jobs) or is_held(directory)
    return Progress(jobs, _seconds_left(jobs, to_come), to_come, goes_on)


def _folders_with_runs(directory: Path) -> list[str]:
    """Names of the jobs of an older sweep, which has no record."""
    return sorted(
        path.name
        for path in directory.iterdir()
        if path.is_dir() and any((path / name).exists() for name in (CONFIG, SUMMARY))
    )


def _state(directory: Path) -> JobState:
    name = directory.name
    try:
        summary = read_summary(directory)
    except UserError:
        summary = None
    if summary is not None and not (summary.status == "failed" and is_held(directory)):
        return _ended(name, summary)
    if not directory.is_dir():
        return JobState(name, "waiting")
    epochs, seconds = _epochs(directory / METRICS)
    of = _wanted_epochs(directory / CONFIG)
    state = "running" if is_held(directory) else "stopped" if resumable(directory) else "waiting"
    return JobState(name, state, epochs, of, seconds)


def _ended(name: str, summary: Summary) -> JobState:
    metric = summary.objective.metric
    value = summary.metrics.get(metric or "")
    known = (metric, float(value)) if metric and isinstance(value, int | float) else None
    total = summary.seconds.get("total")
    return JobState(name, summary.status, summary.epochs, summary.epochs, None, total, known, summary.error)


def _epochs(path: Path) -> tuple[int | None, float | None]:
    """How many epochs are done, and the median of their seconds."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            seconds = [float(row.get("seconds") or "nan") for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error):
        return None, None
    known = [value for value in seconds if value == value]
    return len(seconds), statistics.median(known) if known else None


def _wanted_epochs(path: Path) -> int | None:
    """``trainer.max_epochs`` of a configuration, without the second that a parser of YAML takes for a thousand."""
    try:
        found = re.search(r"^  max_epochs: (\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) if found else None


def _seconds_left(jobs: Sequence[JobState], to_come: int) -> float | None:
    """Seconds until all jobs have ended, with as many at once as there are now; None where nothing tells them."""
    running = [job for job in jobs if job.state == "running"]
    open_jobs = [job for job in jobs if job.state in ("stopped", "waiting")]
    if not running:
        return None
    wholes = [job.total for job in jobs if job.state == "finished" and job.total]
    wholes += [job.seconds * job.of for job in running if job.seconds and job.of]
    if not wholes:
        return None
    typical = statistics.median(wholes)
    rests = [typical] * to_come
    for job in (*running, *open_jobs):
        share = 1 - (job.epochs or 0) / job.of if job.of else 1.0
        whole = job.seconds * job.of if job.seconds and job.of else typical
        rests.append(max(0.0, whole * share))
    return max(max(rests), sum(rests) / len(running))
