"""Files as this project writes and reads them: whole or not at all, as CSV and JSON."""

import csv
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from busi_lab.errors import UserError, one_line
from busi_lab.locks import refuse_lost


def write_atomically(path: Path, content: str | bytes, sync: bool = True) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never a part.

    Args:
        path: of the file; its folder is made where it is missing.
        content: text becomes UTF-8.
        sync: wait until the disk has it, so that not even a power cut leaves a part.

    Raises:
        UserError: it lies in a directory that another process has taken over from this one.
    """
    refuse_lost(path)
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
