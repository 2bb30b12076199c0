"""What came of a sweep's jobs, read from their directories alone."""

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from busi_lab.errors import UserError, one_line
from busi_lab.run_directory import SWEEP_VARIABLE
from busi_lab.summary import SUMMARY, Summary, read_summary, write_summary
from busi_lab.sweep.executors import Executor
from busi_lab.sweep.work import ended_well
from busi_lab.tracking import publish_report, record_failed_start

log = logging.getLogger(__name__)


@dataclass
class Sweep:
    """What a launcher has started.

    Attributes:
        directory: of the sweep.
        executor: where the jobs run, for all batches.
        loggers: the group ``logger`` of the jobs.
        environment: variables of the jobs, which trackers have decided on once for all of them.
        jobs: the directory of each job; some sweepers start jobs in batches.
        left: whether jobs go on without this process.
    """

    directory: Path
    executor: Executor
    loggers: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    jobs: list[Path] = field(default_factory=list)
    left: bool = False


def reason(directory: Path) -> str:
    """Why a job has failed, in a line."""
    try:
        return read_summary(directory).error or "no reason given"
    except UserError as error:
        return str(error)


def objective(directory: Path) -> float:
    """The validation objective of a job; NaN for one that has failed or not ended."""
    summary = ended_well(directory)
    value = None if summary is None else summary.metrics.get(summary.objective.metric or "")
    return float("nan") if value is None else float(value)


def record_failure(directory: Path, config: DictConfig, error: Exception) -> None:
    """Let a sweep's job that could not start leave its reason; a single run leaves nothing behind."""
    if SWEEP_VARIABLE not in os.environ or (directory / SUMMARY).exists():
        return
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    words = f"{kind}{one_line(error)}"
    name = OmegaConf.select(config, "name") or directory.name
    write_summary(directory, Summary("failed", experiment=str(name), error=words))
    with contextlib.suppress(UserError):  # the first error counts
        record_failed_start(config.get("logger") or {}, directory, {"name": name}, words)


def conclude(sweep: Sweep) -> int:
    """Print the ranking of a sweep and its failures, and show both to the trackers; returns the exit code.

    A sweep whose jobs go on without this process is ranked by the call that finds them done.
    """
    from busi_lab.compare import compare, describe  # plots take a second to import

    sweep.executor.close()
    if sweep.left:
        return 0
    failed = [directory for directory in sweep.jobs if ended_well(directory) is None]
    idle = [directory.name for directory in failed if not (directory / SUMMARY).exists()]
    if len(failed) < len(sweep.jobs):
        report = sweep.directory / "comparison"
        print(describe(compare([sweep.directory], report), report))
        try:
            publish_report(sweep.loggers, report, f"report-{sweep.directory.name}", sweep.environment)
        except UserError as error:
            log.warning("the report went to no tracker: %s", error)
    else:
        for directory in failed:
            print(f"{directory.name}: {reason(directory) if directory.name not in idle else 'not started'}")
    if idle and len(failed) < len(sweep.jobs):
        print(f"not started: {', '.join(idle)}")
    return 1 if failed else 0
