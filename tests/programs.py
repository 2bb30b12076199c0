"""Our programs in tests: called in this process, or started in one of their own that can be stopped and killed."""

import contextlib
import importlib
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from busi_lab.sweep.fork_server import ForkServer, ServedProcess

SLOWLY = ("+callbacks.slow._target_=tests.slow.Slow",)
"""Overrides that make batches slow enough to be cut."""


def call(name: str, *arguments: str) -> int:
    """Call the console script of a module, such as ``train``, in this process; returns its exit code."""
    try:
        importlib.import_module(f"busi_lab.{name}").main(list(arguments))
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def outcome(name: str, *arguments: str) -> tuple[int, str]:
    """Call a console script in this process; returns its exit code and its error line, without ``error: ``."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = call(name, *arguments)
    lines = [line.removeprefix("error: ") for line in errors.getvalue().splitlines() if line.startswith("error: ")]
    return code, lines[0] if lines else ""


class Started:
    """A program in a process of its own, with what it prints."""

    def __init__(self, process: ServedProcess, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        """What it has printed, standard output and error together."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float = 300) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(seconds)

    def finish(self) -> str:
        """Wait for a good end; returns what it has printed."""
        assert self.wait() == 0, self.output
        return self.output

    def until(self, condition: Callable[[], object], seconds: float = 300) -> None:
        """Wait until something has happened."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < end, f"it does not get on:\n{self.output}"
            time.sleep(0.005)


class Programs:
    """Starts programs from one fork server, without the seconds of their imports."""

    def __init__(self, folder: Path) -> None:
        self.server = ForkServer()
        self._folder = folder
        self._count = 0

    def start(
        self, name: str, *arguments: str, cwd: Path, environment: Mapping[str, str | None] | None = None
    ) -> Started:
        """Start the console script of a module, such as ``train``."""
        self._count += 1
        path = self._folder / f"{self._count}.log"
        with path.open("wb") as log:
            process = self.server.start(f"busi_lab.{name}", arguments, environment, log, cwd)
        return Started(process, path)

    def run(self, name: str, *arguments: str, cwd: Path) -> str:
        """Run a console script to its good end; returns what it has printed."""
        return self.start(name, *arguments, cwd=cwd).finish()

    def lent(self) -> "Lent":
        """The server for a sweep in this process, which ends its own when it is done."""
        return Lent(self.server)

    def close(self) -> None:
        """End the server."""
        self.server.close()


class Lent:
    """A fork server that somebody else ends."""

    def __init__(self, server: ForkServer) -> None:
        self.start = server.start

    def close(self) -> None:
        pass


def is_alive(process: int) -> bool:
    """Whether a process with this id runs, a zombie not counted."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(process: int) -> list[int]:
    """Ids of the processes that a process has started and that run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and is_alive(int(entry.name)):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == process:
                found.append(int(entry.name))
    return found


def descendants(process: int) -> list[int]:
    """Ids of all processes below a process."""
    found = children(process)
    return found + [below for child in found for below in descendants(child)]
