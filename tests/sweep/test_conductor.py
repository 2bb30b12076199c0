"""The loop that starts the jobs of a sweep and looks at them, with an executor that does nothing."""

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from busi_lab.sweep.conductor import Conductor, Stopped
from busi_lab.sweep.executors import Command
from busi_lab.sweep.record import JobRecord


class Process:
    """A job that ends when it is asked to, for which its executor's lock is needed."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        assert self._lock.acquire(timeout=5), "the executor holds its lock"
        self._lock.release()
        self.code = 143

    kill = terminate


class Executor:
    """Sends itself SIGTERM while it starts its second job and holds its lock."""

    outlives = False
    prepares = False
    waits = True
    pause = 0.01

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.started: list[Process] = []

    def start(self, commands: Sequence[Command]) -> list[Process]:
        with self._lock:
            if self.started:
                os.kill(os.getpid(), signal.SIGTERM)
            self.started += (new := [Process(self._lock) for _ in commands])
        return new


def test_a_signal_while_a_job_is_started_stops_all_jobs(tmp_path: Path) -> None:
    executor: Any = Executor()
    conductor = Conductor(tmp_path, executor, [{}, {}], {}, None, 60)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="stopped by SIGTERM"), conductor.watch():
        for name in ("a", "b"):
            conductor.add(name, JobRecord(name, (), ()))
            conductor.step()
        while conductor.busy:
            conductor.step()
    assert [process.code for process in executor.started] == [143, 143]
    assert signal.getsignal(signal.SIGTERM) is before
    assert not list(tmp_path.rglob("summary.json"))  # they go on with the next call
