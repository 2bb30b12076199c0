"""One job of a sweep, whoever places its process: room in its directory, its command line, and how it has ended."""

import shutil
import signal
from pathlib import Path

from busi_lab.errors import UserError
from busi_lab.files import locked
from busi_lab.run_directory import (
    CONFIG,
    LAST_CHECKPOINT,
    METRICS,
    PREDICTIONS,
    PREVIOUS_CHECKPOINT,
    SPLIT,
    quoted,
)
from busi_lab.summary import SUMMARY, Summary, read_summary, write_summary
from busi_lab.sweep.fork_server import LOST
from busi_lab.sweep.record import JobRecord

LOG = "job.log"
"""File in a job's directory with what it prints."""

PATIENCE = 60.0
"""Seconds for which a job's directory may still be held, by a job of a sweep that was killed."""


def make_room(directory: Path) -> bool:
    """Remove what a job has left that cannot be continued; False where another process holds its directory."""
    try:
        with locked(directory):
            if not resumable(directory):
                _clear(directory)
            (directory / SUMMARY).unlink(missing_ok=True)
    except UserError:
        return False
    return True


def finished(directory: Path) -> Summary | None:
    """The summary of a finished run; None for any other directory."""
    try:
        summary = read_summary(directory)
    except UserError:
        return None
    return summary if summary.status == "finished" else None


def ended_well(directory: Path) -> Summary | None:
    """The summary of a run that has finished, or that a search has pruned; None for any other directory."""
    try:
        summary = read_summary(directory)
    except UserError:
        return None
    return None if summary.status == "failed" else summary


def resumable(directory: Path) -> bool:
    """Whether a job was cut after a checkpoint, from which it goes on."""
    return any((directory / name).exists() for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT))


def command_line(directory: Path, job: JobRecord) -> list[str]:
    """The command line of ``busi-train`` for a job as its directory is now."""
    return [*(job.go_on if resumable(directory) else job.begin), "hydra.mode=RUN", f"hydra.run.dir={quoted(directory)}"]


def note_end(directory: Path, code: int, seconds: float) -> None:
    """Leave the summary of a failure where a process has ended without one.

    Args:
        directory: of the job.
        code: its exit code, -N where signal N has killed it, :data:`LOST` if nobody knows.
        seconds: that it took.
    """
    ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    if code == LOST:
        ended = "ended, and nobody knows how, because the process that started it had died"
    note_failure(directory, f"the process {ended}", seconds)


def note_failure(directory: Path, error: str, seconds: float | None = None) -> None:
    """Leave the summary of a failure, unless the job has left one.

    Args:
        directory: of the job.
        error: how it has ended, in words.
        seconds: that it took; None where nobody knows.
    """
    if not (directory / SUMMARY).exists():
        known = {} if seconds is None else {"total": seconds}
        write_summary(directory, Summary("failed", experiment=directory.name, error=error, seconds=known))


def _clear(directory: Path) -> None:
    """Remove what a job has left that was cut before its first checkpoint; its W&B id stays."""
    for name in (CONFIG, SPLIT, METRICS, PREDICTIONS):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
