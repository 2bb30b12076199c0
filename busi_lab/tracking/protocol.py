"""What a tracker is told of a job. Subclass :class:`Tracker`, and write only what the tracker shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from busi_lab.summary import Summary

Settings = Mapping[str, Any]
"""One entry of the group ``logger``, resolved."""

Shown = Sequence[tuple[str, Any, Any, Any]]
"""Case id, scan, true and predicted mask of each scan of a panel; the last three uint8 ``[S, S]``."""


@dataclass(frozen=True)
class Job:
    """What is tracked.

    Attributes:
        directory: of the run, the result or the comparison.
        name: what the job is called where the tracker's settings name nothing else.
        kind: train, eval or report.
        config: the resolved configuration; empty for a report.
        live: False where a job that has ended is told again from its directory.
    """

    directory: Path
    name: str
    kind: str
    config: Mapping[str, Any]
    live: bool = True


@dataclass(frozen=True)
class Result:
    """What a finished run or evaluation has found.

    Attributes:
        summary: of the run.
        rows: of ``predictions.csv``.
        pictures: case id -> scan, uint8 ``[S, S]``; empty where the scans are not at hand.
        true_masks: case id -> mask, uint8 ``[S, S]`` of 0 and 1.
        predicted_masks: case id -> mask, bool ``[H, W]``; empty where none are predicted.
        explanations: has a folder of maps for each method; None, or a folder that does not exist, for no maps.
    """

    summary: Summary
    rows: Sequence[Mapping[str, Any]]
    pictures: Mapping[str, Any]
    true_masks: Mapping[str, Any]
    predicted_masks: Mapping[str, Any]
    explanations: Path | None = None


class Tracker:
    """A view of a job. Every method but the constructor does nothing unless a subclass writes it.

    Once a tracker is open, a method may raise whatever it likes: the run then goes on without this tracker.

    Args:
        settings: checked by :meth:`check`.
        job: what is tracked.

    Raises:
        UserError: the tracker cannot be written to.

    Attributes:
        title: what messages call the tracker; empty for the name of its class.
        mask_panel: scans in a panel of validation masks, and epochs between two panels; None for no panels.
    """

    title: str = ""
    mask_panel: tuple[int, int] | None = None

    def __init__(self, settings: Settings, job: Job) -> None:
        self.settings = settings
        self.job = job

    @classmethod
    def check(cls, settings: Settings) -> None:
        """Check the settings before any data are touched.

        Raises:
            UserError: they are of no use.
        """

    @classmethod
    def for_sweep(cls, settings: Settings, sweep: Path) -> Mapping[str, str]:
        """Environment variables for all jobs of the sweep in the folder ``sweep``, decided once by its driver."""
        return {}

    @classmethod
    def for_sweep_elsewhere(cls, settings: Settings, sweep: Path) -> Mapping[str, str]:
        """The same for jobs on other machines, which may have no network, or have one that the driver lacks."""
        return cls.for_sweep(settings, sweep)

    @classmethod
    def has_begun(cls, directory: Path) -> bool:
        """Whether a job has been tracked in this directory before."""
        return False

    def start(self, summary: Summary, monitor: str | None, mode: str, metric_names: Sequence[str]) -> None:
        """Take what is known before the work begins.

        Args:
            summary: as far as it is known.
            monitor: the metric that chooses the best epoch; None where nothing is trained.
            mode: ``max`` or ``min``.
            metric_names: bare names of the task's scalar metrics.
        """

    def earlier(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take the rows of ``metrics.csv`` that a continued job builds on; the tracker may know some of them."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Take a row of ``metrics.csv``."""

    def masks(self, epoch: int, shown: Shown) -> None:
        """Take the masks of some validation scans after an epoch."""

    def result(self, result: Result) -> None:
        """Take the result of a job that has finished."""

    def report(self, out: Path) -> None:
        """Take a comparison, as ``busi-compare`` wrote it into ``out``."""

    def failure(self, error: str) -> None:
        """Take the reason why the job has failed."""

    def finish(self, failed: bool) -> None:
        """End the job, marked failed or not."""

    @property
    def record(self) -> dict[str, Any] | None:
        """What ``summary.json`` says of this tracker."""
        return None
