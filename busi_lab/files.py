"""Files as this project writes and reads them: whole or not at all, by one process at a time, as CSV and JSON."""

import contextlib
import csv
import errno
import json
import math
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import IO, Any

from busi_lab.errors import UserError, one_line


def write_atomically(path: Path, content: str | bytes, sync: bool = True) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never a part.

    Args:
        path: of the file; its folder is made where it is missing.
        content: text becomes UTF-8.
        sync: wait until the disk has it, so that not even a power cut leaves a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes ``destination`` if the block ends well, and vanishes if not.

    It lies in the nearest existing folder above ``destination``, so that the rename stays in one file system;
    folders between the two are made at the end.

    Raises:
        UserError: ``destination`` is a file or holds files, or the file system refuses.
    """
    target = destination.absolute()
    try:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise UserError(f"{destination} is in the way: expected no such path or an empty folder")
        if target.is_dir() and any(target.iterdir()):
            raise UserError(f"{destination} is not empty; expected a new or an empty folder: choose another")
        above = next(folder for folder in target.parents if folder.exists())
        # Two levels: mkdtemp's folder is closed to other users, the one inside gets the usual rights.
        temporary = Path(tempfile.mkdtemp(dir=above, prefix=f".{target.name}.", suffix=".partial"))
    except OSError as error:
        raise UserError(f"{destination} cannot be written: {one_line(error)}") from None
    try:
        folder = temporary / "complete"
        folder.mkdir()
        yield folder
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    except OSError as error:
        raise UserError(f"{destination} cannot be written: {one_line(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory for this process, as long as the block lasts or the process lives.

    The kernel's lock is used; where the file system has none, a file that names its owner.

    Raises:
        UserError: another process holds it, or it cannot be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / ".lock").open("w") as file:
            if _lock(file):
                yield
            else:
                with _named_lock(directory / ".lock.owner"):
                    yield
    except BlockingIOError as error:
        owner = f" ({error.strerror})" if error.strerror and "owner" in error.strerror else ""
        raise UserError(
            f"{directory} is in use by another process{owner}; wait for it or choose another folder"
        ) from None


def is_held(directory: Path) -> bool:
    """Whether another process holds a directory by :func:`locked`, as far as this machine can tell."""
    if (directory / ".lock.owner").exists():
        return True
    try:
        with (directory / ".lock").open("r+") as file:
            _lock(file)  # given back at once
    except BlockingIOError:
        return True
    except OSError:  # nobody has ever held it
        return False
    return False


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


_LOOK = 0.1  # seconds after which nobody can just be looking at a lock, as is_held does


@contextmanager
def _named_lock(path: Path) -> Iterator[None]:
    """Hold a file that only one process can make. That of a dead process of this host is taken over.

    Raises:
        BlockingIOError: another process holds it.
    """
    ours = f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}"
    for _ in range(2):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(ours)
            break
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                host, _, process = path.read_text(encoding="utf-8").partition(" ")
                number, _, started = process.partition(" ")
                if host != socket.gethostname() or not number.isdigit() or _started(int(number)) == started:
                    reason = f"owner: process {number or '?'} of host {host or '?'}; remove {path} if that is dead"
                    raise BlockingIOError(errno.EWOULDBLOCK, reason) from None
                path.unlink()
    else:
        raise BlockingIOError(errno.EWOULDBLOCK, f"owner: another process; see {path}")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _started(process: int) -> str:
    """When a process of this host started, in a form of the kernel's; empty where it is dead or cannot be told."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` atomically as JSON, NaN as null."""
    write_atomically(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """``value`` with NaN and infinities, which JSON lacks, as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


PROBABILITY_DIGITS = 9
"""Digits that tell any two numbers of float32 apart: with fewer, ties among probabilities change an AUROC."""


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], columns: Iterable[str], digits: int = 7) -> None:
    """Write rows as CSV, atomically, floats with so many significant digits."""
    lines = [list(columns)]
    lines.extend([_cell(row.get(column), digits) for column in lines[0]] for row in rows)
    buffer = StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    write_atomically(path, buffer.getvalue())


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else no_formula(str(value))


_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def no_formula(text: str) -> str:
    """A cell that no spreadsheet takes for a formula, whoever named the image: quoted, but for numbers."""
    if not _FORMULA.match(text):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _as_it_was(cell: str) -> str:
    """A cell as it was before :func:`no_formula`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file as dictionaries of strings; no file, no rows."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets begin their files with a mark
        return [
            {name: _as_it_was(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
            for row in csv.DictReader(file)
        ]
