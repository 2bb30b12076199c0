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
from busi_lab.summary import SUMMARY, Summary, write_summary
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
    if (directory / SUMMARY).exists():
        return
    ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    if code == LOST:
        ended = "ended, and nobody knows how, because the process that started it had died"
    failure = Summary("failed", experiment=directory.name, error=f"the process {ended}", seconds={"total": seconds})
    write_summary(directory, failure)


def _clear(directory: Path) -> None:
    """Remove what a job has left that was cut before its first checkpoint; its W&B id stays."""
    for name in (CONFIG, SPLIT, METRICS, PREDICTIONS):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
