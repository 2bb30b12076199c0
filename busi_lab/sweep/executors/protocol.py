"""What an executor offers. A new one is a file beside this one, with its class as ``EXECUTOR``."""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from omegaconf import DictConfig

from busi_lab.errors import UserError
from busi_lab.sweep.fork_server import LOST

__all__ = ["LOST", "Command", "Executor", "Place", "Process", "executor_class"]

Place = Mapping[str, str]
"""Environment variables of one place for a job, such as the GPU that it may use."""


@dataclass(frozen=True)
class Command:
    """A ``busi-train`` process to start.

    Attributes:
        arguments: its command line without the program's name.
        environment: variables that are set beside those of this process; None removes one.
        log: file that its output is appended to; None for the output of this process.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str | None]
    log: Path | None


class Process(Protocol):
    """A job that was started."""

    def wait(self) -> int:
        """Wait until it has ended; its exit code, -N where signal N has killed it, :data:`LOST` if nobody knows."""

    def terminate(self) -> None:
        """Ask it to save its state and to stop; does nothing where it has ended."""

    def kill(self) -> None:
        """End it at once; does nothing where it has ended."""


class Executor(Protocol):
    """Starts jobs.

    Args:
        n_jobs: jobs at once; None for as many as suit the machine.
    """

    def __init__(self, n_jobs: int | None) -> None: ...

    def places(self, jobs: Sequence[DictConfig]) -> list[Place]:
        """As many places as jobs are to run at once.

        Args:
            jobs: the configuration of each job.
        """

    def start(self, command: Command) -> Process:
        """Start a job; called from several threads."""

    def close(self) -> None:
        """Give back what the executor holds; no job is running then."""


def executor_class(name: str) -> type[Executor]:
    """The class ``EXECUTOR`` of the module ``busi_lab.sweep.executors.NAME``.

    Raises:
        UserError: there is none.
    """
    names = [item.name for item in pkgutil.iter_modules([str(Path(__file__).parent)]) if item.name != "protocol"]
    if name not in names:
        raise UserError(f"hydra.launcher.executor={name}: expected {' or '.join(names)}")
    found: type[Executor] = importlib.import_module(f"{__package__}.{name}").EXECUTOR
    return found
