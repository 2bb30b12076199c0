"""Directories that one process holds at a time, also across machines; whoever has lost its hold writes no more."""

import contextlib
import errno
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from busi_lab.errors import UserError
from busi_lab.slurm import SlurmError, cluster, job_state, own_job

log = logging.getLogger(__name__)

LOCK = ".lock"
OWNER = ".lock.owner"

_LOOK = 0.1  # seconds after which nobody can just be looking at a lock, as is_held does
_WAIT = 0.5  # seconds between two tries


@dataclass(frozen=True)
class Owner:
    """The process that holds a directory, as its file names it.

    Attributes:
        host: name of its machine.
        process: its number there.
        started: when it started, in a form of the kernel's.
        space: of process numbers, which a container has for itself.
        cluster: name of the SLURM cluster, and
        job: number of the SLURM job that it belongs to; empty outside SLURM.
        restarts: how often that job had been requeued.
        token: drawn for this hold alone.
    """

    host: str
    process: int
    started: str = ""
    space: str = ""
    cluster: str = ""
    job: str = ""
    restarts: int = 0
    token: str = ""

    @classmethod
    def this_process(cls, environment: Mapping[str, str] = os.environ) -> "Owner":
        """This process, with a new token."""
        process = os.getpid()
        return cls(
            socket.gethostname(),
            process,
            _started(process),
            _space(),
            environment.get("SLURM_CLUSTER_NAME", ""),
            own_job(environment),
            int(environment.get("SLURM_RESTART_COUNT", "0")),
            secrets.token_hex(8),
        )

    def is_dead(self, here: "Owner") -> bool:
        """Whether it has surely ended: a process of this host, or of a SLURM job that ended or was requeued since.

        Args:
            here: this process.
        """
        if self.host == here.host and self.space == here.space and self.started:
            return _started(self.process) != self.started
        if not self.job:
            return False
        if (self.cluster, self.job) == (here.cluster, here.job):
            return self.restarts < here.restarts
        try:
            if self.cluster != (here.cluster or cluster()):
                return False
            job = job_state(self.job)
        except SlurmError:
            return False
        return job is None or job.ended or job.restarts > self.restarts

    def __str__(self) -> str:
        job = f", SLURM job {self.job}" if self.job else ""
        return f"process {self.process or '?'} of host {self.host or '?'}{job}"


@dataclass(frozen=True)
class _Hold:
    """A directory that this process holds; ``kernel`` says whether the file system has locks."""

    owner: Owner
    kernel: bool


_holds: dict[Path, _Hold] = {}


@contextmanager
def locked(directory: Path, wait: str = "") -> Iterator[None]:
    """Hold a directory for this process, as long as the block lasts or the process lives.

    The kernel's lock is used, and a file names its owner. Where the file system has no locks, that file is the lock:
    it is taken over from a process that has surely ended, never because it is old.

    Args:
        directory: made where it is missing.
        wait: what is said once before waiting for another process; empty to wait for none.

    Raises:
        UserError: another process holds it.
    """
    with contextlib.ExitStack() as stack:
        told = False
        while True:
            try:
                stack.enter_context(_hold(directory))
                break
            except BlockingIOError as error:
                if not wait:
                    owner = f" ({error.strerror})" if error.strerror and "owner" in error.strerror else ""
                    raise UserError(
                        f"{directory} is in use by another process{owner}; wait for it or choose another folder"
                    ) from None
                if not told:
                    log.info("%s", wait)
                told = True
                time.sleep(_WAIT)
        yield


def refuse_lost(path: Path) -> None:
    """Refuse to write below a directory that this process has held, and another has taken over since.

    Raises:
        UserError: saying who has it now.
    """
    if not _holds:
        return
    above = path.absolute().parents
    for directory, hold in list(_holds.items()):
        if directory in above and not _is_ours(directory, hold):
            now = _read(directory / OWNER) or "nobody"
            raise UserError(f"{directory} was taken over by another process ({now}); this one writes no more")


def _is_ours(directory: Path, hold: _Hold) -> bool:
    found = _read(directory / OWNER)
    if found is None:
        return hold.kernel or (directory / OWNER).exists()  # somebody has removed the file; or it cannot be read now
    return found.token == hold.owner.token


def is_held(directory: Path) -> bool:
    """Whether another process holds a directory by :func:`locked`, as far as this machine can tell."""
    try:
        with (directory / LOCK).open("r+") as file:
            if _lock(file):  # given back at once
                return False
    except BlockingIOError:
        return True
    except OSError:  # nobody has ever held it
        return False
    owner = _read(directory / OWNER)
    return (directory / OWNER).exists() if owner is None else not owner.is_dead(Owner.this_process())


@contextmanager
def _hold(directory: Path) -> Iterator[None]:
    """Hold a directory.

    Raises:
        BlockingIOError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("w") as file:
        hold = _Hold(Owner.this_process(), _lock(file))
        path, place = directory / OWNER, directory.absolute()
        if hold.kernel:
            path.write_text(_text(hold.owner), encoding="utf-8")
        else:
            _claim(path, hold.owner)
        _holds[place] = hold
        try:
            yield
        finally:
            del _holds[place]
            if (now := _read(path)) is not None and now.token == hold.owner.token:
                path.unlink(missing_ok=True)


def _lock(file: IO[str]) -> bool:
    """Take the kernel's lock of an open file; False where there is none.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # no such locks outside Unix
        return False
    end = time.monotonic() + _LOOK
    while (taken := _take(file, fcntl)) is False:
        if time.monotonic() > end:
            raise BlockingIOError(errno.EWOULDBLOCK, "held by another process")
        time.sleep(0.02)
    return bool(taken)


def _take(file: IO[str], fcntl: Any) -> bool | None:
    """Take the kernel's lock of an open file; False where another process holds it, None where there is none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, as some on networks
        return None
    return True


def _claim(path: Path, ours: Owner) -> None:
    """Make the file that only one process can make; that of a process that has ended is moved away first.

    Raises:
        BlockingIOError: another process holds it.
    """
    if _made(path, ours):
        return
    found = _read(path)
    if found is not None and found.is_dead(ours):
        _move_away(path, found, ours)
        if _made(path, ours):
            return
        found = None
    reason = f"owner: {found or 'another process'}; remove {path} if that is dead"
    raise BlockingIOError(errno.EWOULDBLOCK, reason)


def _made(path: Path, ours: Owner) -> bool:
    """Whether this process has made the file of an owner."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_text(ours))
    except FileExistsError:
        return False
    return True


def _move_away(path: Path, dead: Owner, ours: Owner) -> None:
    """Remove the file of a dead owner, unless another process was faster and the file is that one's by now."""
    aside = path.with_name(f"{path.name}.{ours.token}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if (moved := _read(aside)) is not None and moved.token != dead.token:
            with contextlib.suppress(OSError):
                os.link(aside, path)
        aside.unlink()


def _text(owner: Owner) -> str:
    return json.dumps(asdict(owner)) + "\n"


def _read(path: Path) -> Owner | None:
    """The owner that a file names; None where there is no such file, or one of another form."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _started(process: int) -> str:
    """When a process of this host started, in a form of the kernel's; empty where it is dead or cannot be told."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
