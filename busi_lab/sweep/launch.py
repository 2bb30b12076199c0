"""Carrying a sweep out: which job is run, continued or left alone, how many at once, and how all are stopped."""

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from omegaconf import DictConfig, OmegaConf

from busi_lab.errors import UserError
from busi_lab.files import locked
from busi_lab.plurals import counted
from busi_lab.run_directory import (
    CONFIG,
    LAST_CHECKPOINT,
    METRICS,
    PREDICTIONS,
    PREVIOUS_CHECKPOINT,
    SPLIT,
    SWEEP_VARIABLE,
    quoted,
)
from busi_lab.summary import SUMMARY, Summary, write_summary
from busi_lab.sweep.executors import LOST, Command, Executor, Process, executor_class
from busi_lab.sweep.outcome import Sweep, finished, objective, reason
from busi_lab.sweep.plan import Job, make_plan, refuse_wrong
from busi_lab.tracking import sweep_environment

log = logging.getLogger(__name__)

_LOG_FILE = "job.log"
_PATIENCE = 60.0  # seconds for which a job's directory may still be held, by a job of a sweep that was killed


def launch(
    config: DictConfig,
    jobs: Sequence[Sequence[str]],
    compose: Callable[[Sequence[str]], DictConfig],
    executor: str,
    n_jobs: int | None,
    before: Sweep | None = None,
) -> tuple[Sweep, list[float]]:
    """Run the jobs of a sweep, each in a process of its own.

    Jobs that have finished are not run again, jobs that were cut are continued. SIGTERM and Ctrl-C are passed on to
    the jobs, which save their state.

    Args:
        config: the composed multirun configuration, with its ``hydra`` node.
        jobs: the overrides of each job.
        compose: overrides -> the configuration of a job.
        executor: where they run, a name of :mod:`busi_lab.sweep.executors`.
        n_jobs: jobs at once; None for as many as suit the executor.
        before: the sweep, where its sweeper has launched jobs already.

    Returns:
        The sweep, and the validation objective of each job, NaN for one that failed.

    Raises:
        UserError: an override would undo the sweep, a job is wrong, or the directory is of no use.
        Stopped: SIGTERM or Ctrl-C.
    """
    limit = OmegaConf.select(config, "sweep.max_failures")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise UserError(f"sweep.max_failures={limit}: expected null or at least 1")
    plan = make_plan(config, jobs, compose)
    if before is None:  # a sweeper that proposes values is told of a wrong one as of a job that failed
        refuse_wrong(plan.jobs)
    sweep = before or _begin(config, plan.directory)
    sweep.jobs += [job.directory for job in plan.jobs]
    if sweep.executor is None:
        sweep.executor = executor_class(executor)(n_jobs)
    grace = OmegaConf.select(config, "sweep.grace")
    places = sweep.executor.places([job.config for job in plan.jobs])
    at_once = min(len(places), len(jobs))
    log.info("sweep of %s, %d at a time, in %s", counted(len(jobs), "job"), at_once, plan.directory)
    with locked(plan.directory):
        _Pool(sweep.executor, places, sweep.environment, limit, grace).run(plan.jobs, plan.arguments)
    return sweep, [objective(job.directory) for job in plan.jobs]


def _begin(config: DictConfig, directory: Path) -> Sweep:
    """The record of a sweep, with what its trackers decide once for all jobs."""
    of_report = config.copy()
    of_report.run_dir = str(directory / "comparison")  # settings of trackers may refer to it
    loggers = of_report.get("logger") or {}
    return Sweep(directory, loggers, {**sweep_environment(loggers, directory), SWEEP_VARIABLE: directory.name})


class Stopped(BaseException):
    """The sweep was asked to stop by signal ``signum``; its jobs have saved their state."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class _Pool:
    """Runs jobs, as many at a time as there are places.

    Args:
        executor: starts them.
        places: variables of each place.
        environment: variables for every job.
        max_failures: start no job after so many have failed; None for no limit.
        grace: seconds that jobs have to save their state when they are stopped.
    """

    def __init__(
        self,
        executor: Executor,
        places: Sequence[Mapping[str, str]],
        environment: Mapping[str, str],
        max_failures: int | None,
        grace: float,
    ) -> None:
        self._executor = executor
        self._count = len(places)
        self._places: SimpleQueue[Mapping[str, str]] = SimpleQueue()
        for place in places:
            self._places.put(place)
        self._environment = environment
        self._max_failures = max_failures
        self._grace = grace
        self._failures = 0
        self._signum: int | None = None
        self._processes: set[Process] = set()

    def run(self, jobs: Sequence[Job], arguments: Sequence[str]) -> None:
        """Run all jobs; returns when the last has ended."""
        main = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT) if main}
        for number in before:
            signal.signal(number, self._pass_on)
        try:
            with ThreadPoolExecutor(max_workers=self._count) as pool:
                titles = [f"[{number}/{len(jobs)}] {job.directory.name}" for number, job in enumerate(jobs, start=1)]
                waiting = [pool.submit(self._do, *item, arguments) for item in zip(titles, jobs, strict=True)]
                for outcome in waiting:
                    outcome.result()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._signum is not None:
            log.info("the sweep was stopped; the same command continues it")
            raise Stopped(self._signum)

    def _pass_on(self, signum: int, frame: Any) -> None:
        if self._signum is None:
            patience = threading.Timer(self._grace, self._kill)
            patience.daemon = True
            patience.start()
        self._signum = signum
        for process in list(self._processes):
            process.terminate()

    def _kill(self) -> None:
        """End the jobs that have not stopped, such as one that hangs: the state of their last epoch is saved."""
        for process in list(self._processes):
            log.info("a job has not stopped within %g seconds (sweep.grace) and is killed", self._grace)
            process.kill()

    def _do(self, title: str, job: Job, arguments: Sequence[str]) -> None:
        place = self._places.get()
        try:
            if self._signum is not None:
                return
            if finished(job.directory) is not None:
                log.info("%s: finished before, not run again", title)
                return
            if self._max_failures is not None and self._failures >= self._max_failures:
                failures = counted(self._failures, "failure")
                log.info("%s: not started after %s (sweep.max_failures)", title, failures)
                return
            if not self._prepare(job):
                log.info("%s: in use by another process, left alone", title)
                self._failures += 1
                return
            resumable = _is_resumable(job)
            log.info("%s%s", title, ": continued" if resumable else "")
            self._execute(job, [*arguments, *(job.continued if resumable else job.overrides)], place)
            if self._signum is None and finished(job.directory) is None:
                self._failures += 1
                log.info("%s failed: %s", title, reason(job.directory))
        finally:
            self._places.put(place)

    def _prepare(self, job: Job) -> bool:
        """Remove what a job has left that cannot be continued; False where another process holds its directory."""
        end = time.monotonic() + _PATIENCE
        while not _clean(job):
            if self._signum is not None or time.monotonic() > end:
                return False
            time.sleep(0.5)
        return True

    def _execute(self, job: Job, arguments: Sequence[str], place: Mapping[str, str]) -> None:
        """Run one job to its end; leaves a summary unless it was asked to stop."""
        command = Command(
            [*arguments, "hydra.mode=RUN", f"hydra.run.dir={quoted(job.directory)}"],
            {**self._environment, **place, "WANDB_RUN_ID": None},  # which names one run, not every job
            job.directory / _LOG_FILE if self._count > 1 else None,
        )
        started = time.perf_counter()
        process = self._executor.start(command)
        self._processes.add(process)
        if self._signum is not None:
            process.terminate()
        code = process.wait()
        self._processes.discard(process)
        if not (job.directory / SUMMARY).exists() and self._signum is None:
            ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            if code == LOST:
                ended = "ended, and nobody knows how, because the process that started it had died"
            seconds = {"total": time.perf_counter() - started}
            failure = Summary("failed", experiment=job.directory.name, error=f"the process {ended}", seconds=seconds)
            write_summary(job.directory, failure)


def _is_resumable(job: Job) -> bool:
    return any((job.directory / name).exists() for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT))


def _clean(job: Job) -> bool:
    """Make room for a job in its directory; False where another process holds that."""
    try:
        with locked(job.directory):
            if not _is_resumable(job):
                _clear(job)
            (job.directory / SUMMARY).unlink(missing_ok=True)
    except UserError:
        return False
    return True


def _clear(job: Job) -> None:
    """Remove what a job has left that was cut before its first checkpoint; its W&B id stays."""
    for name in (CONFIG, SPLIT, METRICS, PREDICTIONS):
        (job.directory / name).unlink(missing_ok=True)
    shutil.rmtree(job.directory / "checkpoints", ignore_errors=True)
