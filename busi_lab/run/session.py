"""A run directory while one process writes it: its lock, its summary, its trackers, and what becomes of a failure."""

import contextlib
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from busi_lab.errors import UserError, one_line
from busi_lab.locks import locked
from busi_lab.run.environment import forget_peak_memory, peak_memory
from busi_lab.run.stop import Interrupted
from busi_lab.run_directory import SWEEP_VARIABLE, quoted
from busi_lab.summary import Summary, write_summary
from busi_lab.tracking import Job, Result, Trackers, open_trackers

log = logging.getLogger(__name__)


class Session:
    """What the body of :func:`session` works with.

    Attributes:
        trackers: are told of the run while it goes on.
        result: what a run that ends well has to show; the body sets it.
        status: of a run that ends well.
    """

    def __init__(self, trackers: Trackers) -> None:
        self.trackers = trackers
        self.result: Result | None = None
        self.status = "finished"


@contextmanager
def session(
    summary: Summary,
    job: Job,
    loggers: Mapping[str, Any],
    started: float,
    refuse: Callable[[Path], None] = lambda directory: None,
) -> Iterator[Session]:
    """Hold a run directory for the body of this block, and write how it ended.

    A body that ends well leaves the summary of a finished run, written last and atomically; the trackers are shown
    the result after that, because they are views. An error leaves the summary of a failed run. A run that was asked
    to stop leaves none, because it can be continued.

    Args:
        summary: of the run; the body fills it in.
        job: what trackers are told of the run; has its directory.
        loggers: the group ``logger`` of the configuration.
        started: of the clock ``time.perf_counter``, when the run began.
        refuse: called with the directory when it is held; raises where another process has used it meanwhile.

    Raises:
        UserError: another process holds the directory, or a tracker cannot start.
    """
    with locked(job.directory):
        refuse(job.directory)
        forget_peak_memory()
        trackers = Trackers({})
        try:
            trackers = open_trackers(loggers, job)
            summary.wandb = trackers.record.get("wandb")
            opened = Session(trackers)
            yield opened
            summary.seconds["total"] = time.perf_counter() - started
            vars(summary).update(peak_memory())
            write_summary(job.directory, replace(summary, status=opened.status))
            summary.status = opened.status  # not before the file says so
            if opened.result is not None:
                trackers.result(opened.result)
        except Interrupted:
            if summary.status != "failed":
                log.info("stopped before all trackers were shown the result; the run itself is finished")
            elif SWEEP_VARIABLE in os.environ:
                log.info("stopped; the same command continues the sweep, and this run with it")
            else:
                log.info("stopped; continue with: busi-train %s", shlex.quote(f"resume={quoted(job.directory)}"))
            raise
        except BaseException as error:
            if summary.status != "failed":
                raise  # trackers are views: what happens while they are shown the result does not undo it
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            summary.status, summary.error = "failed", f"{kind}{one_line(error)}"
            summary.seconds["total"] = time.perf_counter() - started
            vars(summary).update(peak_memory())
            with contextlib.suppress(OSError):  # a full disk must not hide the first error
                write_summary(job.directory, summary)
            trackers.failure(summary.error)
            raise
        finally:
            trackers.finish(failed=summary.status == "failed")
