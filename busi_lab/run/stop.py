"""How a run is asked to stop: by SIGTERM, by Ctrl-C, or because the sweep that it belongs to has died."""

import logging
import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from busi_lab.run_directory import LIFELINE_VARIABLE

log = logging.getLogger(__name__)


class Interrupted(BaseException):
    """The process was asked to stop; its state is saved.

    Args:
        signum: the signal that asked.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class StopRequest:
    """Notes SIGTERM and Ctrl-C, so that training can save its state before it stops.

    Outside training the signal raises :class:`Interrupted` at once, and so does a second Ctrl-C. A second SIGTERM is
    the same request: SLURM sends it to every process of a job, and again when the time is up. A job of a sweep is
    also asked to stop when its sweep has died: the same sweep, started again, would run it a second time.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.training = False

    def requested(self) -> bool:
        """Whether to save the state and stop."""
        if self.signum is None and sweep_has_died():
            log.info("the sweep has ended: %s", "saving the state, then stopping" if self.training else "stopping")
            self.signum = signal.SIGTERM
        return self.signum is not None

    @contextmanager
    def watch(self) -> Iterator["StopRequest"]:
        """Handle both signals in this block; does nothing outside the main thread, where Python cannot.

        Raises:
            Interrupted: a job's sweep has died while the job was starting.
        """
        if self.requested():
            raise Interrupted(self.signum or signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self.install()
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Take the signals over, also from Lightning, which would stop without saving."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._receive)

    def _receive(self, signum: int, frame: Any) -> None:
        repeated = self.signum is not None
        if repeated and signum == signal.SIGTERM:
            return
        self.signum = signum
        if repeated or not self.training:
            raise Interrupted(signum)
        log.info("%s: saving the state, then stopping", signal.Signals(signum).name)


def lifeline() -> int | None:
    """The pipe that ends when what started this process is gone; None in a process that has none.

    A sweep, or a worker of an engine, holds one end of the pipe, and its jobs the other, which the environment
    variable names by its number and its inode. The kernel closes the first end however its process dies.
    """
    number, _, inode = os.environ.get(LIFELINE_VARIABLE, "").partition(":")
    try:
        # in a process of the job's own the number may mean another file
        return int(number) if str(os.fstat(int(number)).st_ino) == inode else None
    except (ValueError, OSError):
        return None


def sweep_has_died() -> bool:
    """Whether the sweep that started this process is gone; False in a process that no sweep started."""
    number = lifeline()
    if number is None:
        return False
    ends = select.poll()
    ends.register(number, select.POLLIN)
    return bool(ends.poll(0))
