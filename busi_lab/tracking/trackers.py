"""Finding the trackers that are wanted, and telling them all what happens."""

import importlib
import logging
import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from busi_lab.errors import UserError, one_line
from busi_lab.extensions import installed, load_extension
from busi_lab.summary import Summary
from busi_lab.tracking.lightning import LightningTracker
from busi_lab.tracking.protocol import Job, Result, Settings, Shown, Tracker

log = logging.getLogger(__name__)

EXTENSIONS = "busi_lab.trackers"
"""Group of entry points by which packages bring trackers."""

Loggers = Mapping[str, Any] | DictConfig
"""The group ``logger``: settings by name, None where a tracker is not wanted."""


def tracker_class(name: str, settings: Settings) -> type[Tracker]:
    """The class of a tracker.

    Settings with ``_target_`` name it: a subclass of :class:`Tracker` is used as it is, anything else is taken for a
    logger of Lightning. Without ``_target_`` it is ``TRACKER`` of the module ``busi_lab.tracking.NAME``, else the
    class that an installed package brings.

    Raises:
        UserError: there is none, or its package is broken.
    """
    target = settings.get("_target_")
    if target is None:
        names = [item.name for item in pkgutil.iter_modules(importlib.import_module(__package__).__path__)]
        found = getattr(_module(name), "TRACKER", None) if name in names else load_extension(EXTENSIONS, name)
        if found is None:
            known = ", ".join((*(each for each in names if hasattr(_module(each), "TRACKER")), *installed(EXTENSIONS)))
            raise UserError(f"logger.{name}: no such tracker; expected {known}, or settings with _target_, a class")
        if not (isinstance(found, type) and issubclass(found, Tracker)):
            raise UserError(f"logger.{name}: the entry point of {EXTENSIONS} is no subclass of Tracker")
        return found
    if str(target).startswith("lightning."):
        return LightningTracker  # importing the logger itself would take seconds
    from hydra.utils import get_object

    try:
        found = get_object(str(target))
    except Exception as error:  # Hydra raises whatever importing the module raised
        raise UserError(f"logger.{name}._target_={target}: cannot be imported ({one_line(error)})") from None
    return found if isinstance(found, type) and issubclass(found, Tracker) else LightningTracker


def _module(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}")


def _wanted(loggers: Loggers) -> dict[str, Settings]:
    plain: Any = OmegaConf.to_container(loggers, resolve=True) if isinstance(loggers, DictConfig) else loggers
    return {name: settings for name, settings in plain.items() if settings is not None}


def check_trackers(loggers: Loggers) -> None:
    """Check the settings of all trackers that are wanted.

    Raises:
        UserError: an unknown tracker, or settings that it would refuse.
    """
    for name, settings in _wanted(loggers).items():
        tracker_class(name, settings).check(settings)


def sweep_environment(loggers: Loggers, sweep: Path, elsewhere: bool = False) -> dict[str, str]:
    """Ask each tracker once what all jobs of a sweep are to find in their environment.

    Args:
        loggers: the group ``logger``.
        sweep: folder of the sweep.
        elsewhere: whether the jobs run on other machines.

    Raises:
        UserError: an unknown tracker, or settings that it would refuse.
    """
    environment: dict[str, str] = {}
    for name, settings in _wanted(loggers).items():
        found = tracker_class(name, settings)
        found.check(settings)
        environment |= (found.for_sweep_elsewhere if elsewhere else found.for_sweep)(settings, sweep)
    return environment


class Trackers:
    """The trackers of one job, told together.

    A tracker is a view: when it breaks, a warning says so once, and the run goes on without it.

    Args:
        opened: by the names that the group ``logger`` gives them.
    """

    def __init__(self, opened: Mapping[str, Tracker]) -> None:
        self._opened = dict(opened)
        self._lost: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._opened)

    def start(
        self, summary: Summary, monitor: str | None = None, mode: str = "max", metric_names: Sequence[str] = ()
    ) -> None:
        """Pass on what is known before the work begins."""
        self._tell("start", summary, monitor, mode, metric_names)

    def earlier(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Pass on the rows of ``metrics.csv`` that a continued job builds on."""
        self._tell("earlier", rows)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Pass on a row of ``metrics.csv``."""
        self._tell("epoch", row)

    def result(self, result: Result) -> None:
        """Pass on the result of a job that has finished."""
        self._tell("result", result)

    def report(self, out: Path) -> None:
        """Pass on a comparison."""
        self._tell("report", out)

    def failure(self, error: str) -> None:
        """Pass on the reason why the job has failed."""
        self._tell("failure", error)

    def finish(self, failed: bool) -> None:
        """End the job in all trackers, also in those that were lost: the next job must not go on in theirs."""
        for name in self._opened:
            self._guard(name, lambda tracker: tracker.finish(failed))

    @property
    def mask_panels(self) -> list[tuple[int, int, Callable[[int, Shown], None]]]:
        """For each tracker with panels of masks: scans, epochs between two panels, and what takes a panel."""

        def publisher(name: str) -> Callable[[int, Shown], None]:
            return lambda epoch, shown: self._tell("masks", epoch, shown, to=name)

        opened = self._opened.items()
        return [(*tracker.mask_panel, publisher(name)) for name, tracker in opened if tracker.mask_panel]

    @property
    def record(self) -> dict[str, dict[str, Any]]:
        """What ``summary.json`` may say of each tracker, by its name."""
        records = {name: self._guard(name, lambda tracker: tracker.record) for name in self._opened}
        return {name: record for name, record in records.items() if record is not None}

    def _tell(self, method: str, *arguments: Any, to: str | None = None) -> None:
        for name in self._opened:
            if name not in self._lost and to in (None, name):
                self._guard(name, lambda tracker: getattr(tracker, method)(*arguments))

    def _guard(self, name: str, tell: Callable[[Tracker], Any]) -> Any:
        """Do something with a tracker; it is lost when that breaks."""
        tracker = self._opened[name]
        try:
            return tell(tracker)
        except Exception as error:  # whatever its client and its service raise
            if name not in self._lost:
                _say_lost(tracker.title or type(tracker).__name__, error)
            self._lost.add(name)
            return None


def _say_lost(title: str, error: Exception) -> None:
    log.warning("%s is lost (%s: %s); the run goes on", title, type(error).__name__, one_line(error)[:120])


def open_trackers(loggers: Loggers, job: Job) -> Trackers:
    """Open all trackers that are wanted.

    Raises:
        UserError: one of them cannot be written to; those before it are ended as failed.
    """
    opened: dict[str, Tracker] = {}
    for name, settings in _wanted(loggers).items():
        found = tracker_class(name, settings)
        try:
            opened[name] = found(settings, job)
        except UserError:
            Trackers(opened).finish(failed=True)
            raise
        except Exception as error:  # as later, when it breaks
            _say_lost(found.title or found.__name__, error)
    return Trackers(opened)


def publish_report(loggers: Loggers, out: Path, name: str, environment: Mapping[str, str] | None = None) -> None:
    """Send a comparison, as ``busi-compare`` wrote it into ``out``, to all trackers as one job of the kind report.

    Args:
        loggers: the group ``logger``.
        out: the folder of the comparison.
        name: of the job.
        environment: of the sweep's jobs, so that the report goes where they went.

    Raises:
        UserError: as :func:`open_trackers`.
    """
    with variables_set(environment or {}):
        trackers = open_trackers(loggers, Job(out, name, "report", {}))
        trackers.report(out)
        trackers.finish(failed=False)


@contextmanager
def variables_set(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block alone."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def record_failed_start(loggers: Loggers, directory: Path, config: Mapping[str, Any], error: str) -> None:
    """Leave a failed job in each tracker for a sweep's job that could not start.

    Raises:
        UserError: as :func:`open_trackers`.
    """
    wanted = _wanted(loggers).items()
    fresh = {name: item for name, item in wanted if not tracker_class(name, item).has_begun(directory)}
    trackers = open_trackers(fresh, Job(directory, directory.name, "train", config))
    trackers.failure(error)
    trackers.finish(failed=True)
