"""Trackers: views of a run, never its record. A tracker is one file here, or one class named by ``_target_``."""

from busi_lab.tracking.protocol import Job, Result, Tracker
from busi_lab.tracking.trackers import (
    Trackers,
    check_trackers,
    open_trackers,
    publish_report,
    record_failed_start,
    sweep_environment,
)

__all__ = [
    "Job",
    "Result",
    "Tracker",
    "Trackers",
    "check_trackers",
    "open_trackers",
    "publish_report",
    "record_failed_start",
    "sweep_environment",
]
