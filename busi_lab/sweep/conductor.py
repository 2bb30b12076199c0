"""Jobs of a sweep on their way: what is started when, what has ended, and how all are asked to stop."""

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from busi_lab.plurals import counted
from busi_lab.sweep.executors import Command, Executor, Place, Process
from busi_lab.sweep.outcome import reason
from busi_lab.sweep.record import JobRecord
from busi_lab.sweep.work import LOG, PATIENCE, command_line, ended_well, make_room, note_end, resumable

log = logging.getLogger(__name__)


class Stopped(BaseException):
    """The sweep was asked to stop by signal ``signum``; its jobs have saved their state, or go on without it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


@dataclass
class _Waiting:
    """A job that is still to be started; ``until`` is the clock until which another process may hold its directory."""

    title: str
    job: JobRecord
    until: float | None = None


@dataclass
class _Running:
    """A job that was started at ``since`` of the clock, at a place."""

    title: str
    directory: Path
    process: Process
    place: Place
    since: float


class Conductor:
    """Carries jobs out, as many at a time as there are places; it is asked for news by :meth:`step`.

    Args:
        directory: of the sweep.
        executor: starts the jobs.
        places: variables of each place; None where the executor takes any number of jobs.
        environment: variables for every job.
        max_failures: start no job after so many have failed; None for no limit.
        grace: seconds that jobs have to save their state when they are stopped.
    """

    def __init__(
        self,
        directory: Path,
        executor: Executor,
        places: Sequence[Place] | None,
        environment: Mapping[str, str],
        max_failures: int | None,
        grace: float,
    ) -> None:
        self._directory = directory
        self._executor = executor
        self._places = None if places is None else list(places)
        self._alone = places is not None and len(places) == 1
        self._environment = environment
        self._max_failures = max_failures
        self._grace = grace
        self._failures = 0
        self._waiting: deque[_Waiting] = deque()
        self._running: list[_Running] = []
        self._signum: int | None = None
        self._last: float | None = None  # of the clock, until which jobs may save their state

    @property
    def busy(self) -> bool:
        """Whether a job is waiting or running."""
        return bool(self._waiting or self._running)

    @property
    def gives_up(self) -> bool:
        """Whether no job is started any more, because so many have failed."""
        return self._max_failures is not None and self._failures >= self._max_failures

    def add(self, title: str, job: JobRecord) -> None:
        """Let a job wait for its turn; ``title`` names it in lines."""
        self._waiting.append(_Waiting(title, job))

    @property
    def left(self) -> bool:
        """Whether all jobs were started, and go on without a process that waits for them."""
        return not self._executor.waits and not self._waiting and bool(self._running)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note SIGTERM and Ctrl-C in this block, outside the main thread nothing.

        Raises:
            Stopped: at the next :meth:`step` after a signal, when the jobs have ended.
        """
        main = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT) if main}
        for number in before:
            signal.signal(number, self._receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, signum: int, frame: Any) -> None:
        """Note a signal, and no more: it may have come while an executor holds what ending a job needs."""
        self._signum = signum

    def step(self) -> list[Path]:
        """Start what can be started, and wait a moment; the directories of jobs that are done with since.

        Raises:
            Stopped: a signal came, and all jobs have ended or outlive this process.
        """
        done = self._start_what_fits() if self._signum is None else []
        done += self._look()
        if self._signum is not None:
            self._stop()
        elif not done and self.busy and not self.left:
            self._rest()
        return done

    def _rest(self) -> None:
        """Wait a moment, but not after a signal."""
        end = time.monotonic() + self._executor.pause
        while self._signum is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))

    def _stop(self) -> None:
        self._waiting.clear()
        if self._executor.outlives and self._running:
            log.info("the jobs go on without this process; %s", self._executor.how_to_stop)
            raise Stopped(self._signum or signal.SIGTERM)
        if not self._running:
            log.info("the sweep was stopped; the same command continues it")
            raise Stopped(self._signum or signal.SIGTERM)
        if self._last is None:
            self._last = time.monotonic() + self._grace
            for item in self._running:
                item.process.terminate()
        if time.monotonic() > self._last:
            for item in self._running:
                log.info("a job has not stopped within %g seconds (sweep.grace) and is killed", self._grace)
                item.process.kill()
            self._last = float("inf")
        time.sleep(self._executor.pause)

    def _start_what_fits(self) -> list[Path]:
        """Start waiting jobs at free places; the directories of those that need no process."""
        done, ready = list[Path](), list[tuple[_Waiting, Place]]()
        for _ in range(len(self._waiting)):
            if self._places is not None and not self._places:
                break
            item = self._waiting.popleft()
            directory = self._directory / item.job.name
            if ended_well(directory) is not None:
                log.info("%s: finished before, not run again", item.title)
                done.append(directory)
            elif self.gives_up:
                failures = counted(self._failures, "failure")
                log.info("%s: not started after %s (sweep.max_failures)", item.title, failures)
                done.append(directory)
            elif self._executor.prepares or make_room(directory):
                ready.append((item, {} if self._places is None else self._places.pop(0)))
            elif item.until is not None and time.monotonic() > item.until:
                log.info("%s: in use by another process, left alone", item.title)
                self._failures += 1
                done.append(directory)
            else:
                if item.until is None:
                    log.info("%s: in use by another process; it has %g seconds to let go", item.title, PATIENCE)
                    item.until = time.monotonic() + PATIENCE
                self._waiting.append(item)
        if ready:
            self._start(ready)
        return done

    def _start(self, ready: Sequence[tuple[_Waiting, Place]]) -> None:
        commands = []
        for item, place in ready:
            directory = self._directory / item.job.name
            if not self._executor.outlives:  # else it may be running already
                log.info("%s%s", item.title, ": continued" if resumable(directory) else "")
            commands.append(
                Command(
                    directory,
                    command_line(directory, item.job),
                    {**self._environment, **place, "WANDB_RUN_ID": None},  # which names one run, not every job
                    None if self._alone else directory / LOG,
                    self._grace,
                )
            )
        started = time.perf_counter()
        for (item, place), command, process in zip(ready, commands, self._executor.start(commands), strict=True):
            self._running.append(_Running(item.title, command.directory, process, place, started))

    def _look(self) -> list[Path]:
        """The directories of jobs that have ended."""
        done = []
        for item in list(self._running):
            code = item.process.poll()
            if code is None:
                continue
            self._running.remove(item)
            if self._places is not None:
                self._places.append(item.place)
            if self._signum is None:
                note_end(item.directory, code, time.perf_counter() - item.since)
            if self._signum is None and ended_well(item.directory) is None:
                self._failures += 1
                log.info("%s failed: %s", item.title, reason(item.directory))
            done.append(item.directory)
        return done
