"""What an executor offers. A new one is a file beside this one, with its class as ``EXECUTOR``."""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from omegaconf import DictConfig

from busi_lab.checking import checked
from busi_lab.errors import UserError
from busi_lab.suggestions import one_of
from busi_lab.sweep.fork_server import LOST

__all__ = ["LOST", "Command", "Executor", "Place", "Process", "make_executor"]

Place = Mapping[str, str]
"""Environment variables of one place for a job, such as the GPU that it may use."""


@dataclass(frozen=True)
class Command:
    """A job to start.

    Attributes:
        directory: of its run; that of the sweep, with ``sweep.json``, is above it.
        arguments: the command line of ``busi-train``, as the directory is now.
        environment: variables that are set beside those of this process; None removes one.
        log: file that its output is appended to; None for the output of this process.
        grace: seconds that it has to save its state when it is stopped.
    """

    directory: Path
    arguments: Sequence[str]
    environment: Mapping[str, str | None]
    log: Path | None
    grace: float


class Process(Protocol):
    """A job that was started; no handler of signals calls its methods."""

    def poll(self) -> int | None:
        """Its exit code, -N where signal N has killed it, :data:`LOST` if nobody knows; None while it goes on."""

    def terminate(self) -> None:
        """Ask it to save its state and to stop; does nothing where it has ended."""

    def kill(self) -> None:
        """End it at once; does nothing where it has ended."""


class Executor(Protocol):
    """Starts jobs.

    Args:
        settings: of the class :attr:`settings`.

    Raises:
        UserError: a setting that this machine or the engine cannot follow.
    """

    settings: ClassVar[type]
    """A dataclass; its fields are the keys of the group ``launcher``, beside ``name``."""
    outlives: ClassVar[bool]
    """Whether jobs go on when this process ends."""
    how_to_stop: str
    """How jobs that go on are seen and ended, in words."""
    elsewhere: ClassVar[bool]
    """Whether jobs run on other machines than this process: what is true here, as a network, need not be there."""
    waits: bool
    """Whether this process waits for its jobs; False only where they outlive it."""
    prepares: ClassVar[bool]
    """Whether jobs prepare their directories themselves, where they run, by :mod:`busi_lab.sweep.task`."""
    pause: ClassVar[float]
    """Seconds between two looks at the jobs."""

    def __init__(self, settings: Any) -> None: ...

    def threads(self, jobs: Sequence[DictConfig]) -> int:
        """Threads of the processor that suit a job.

        Args:
            jobs: the configuration of each job.
        """

    def places(self, jobs: Sequence[DictConfig]) -> list[Place] | None:
        """As many places as jobs are to run at once; None where the engine takes any number and decides itself.

        Args:
            jobs: the configuration of each job.
        """

    def start(self, commands: Sequence[Command]) -> Sequence[Process]:
        """Start jobs, all or none.

        Raises:
            UserError: the engine refuses them.
        """

    def close(self) -> None:
        """Give back what the executor holds; no job of it is running then, unless it outlives this process."""


def make_executor(launcher: Mapping[str, Any]) -> Executor:
    """The executor that the group ``launcher`` describes: ``EXECUTOR`` of the module ``busi_lab.sweep.executors.NAME``.

    Raises:
        UserError: there is none, an unknown key, or a setting that it refuses.
    """
    name = str(launcher.get("name"))
    names = [item.name for item in pkgutil.iter_modules([str(Path(__file__).parent)]) if item.name != "protocol"]
    if name not in names:
        raise UserError(one_of(f"launcher={name}: no such executor", name, names, "choices"))
    found: Any = importlib.import_module(f"{__package__}.{name}").EXECUTOR
    own = {key: value for key, value in launcher.items() if key != "name"}
    executor: Executor = found(checked(found.settings, own, "launcher", f"known keys of {name}"))
    return executor
