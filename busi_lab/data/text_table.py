"""A table that a person or a spreadsheet saved as text -> its heading and its rows."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from busi_lab.errors import one_line

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_NOTHING = {"", "nan", "na", "n/a", "<na>", "none", "null", "nat"}  # as pandas, R and databases write no value


class TableError(Exception):
    """A file that is no such table; the message says why."""


@dataclass(frozen=True)
class TextTable:
    """Cells without the spaces around them.

    Attributes:
        heading: of the first line.
        rows: number of the line in the file, and its cells, for each further line that is not empty.
        separator: what stands between cells, in words.
    """

    heading: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    separator: str


def read_table(path: Path) -> TextTable:
    """Read a table whose cells are separated by commas, semicolons or tabs, as its first line is.

    Raises:
        TableError: the file cannot be read, is a spreadsheet, or is no table of text in UTF-8 or UTF-16.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_SPREADSHEETS):
            raise TableError("the file is a spreadsheet; save it as CSV in UTF-8")
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise TableError("the text is not UTF-8; save the table as CSV in UTF-8") from None
    except OSError as error:
        raise TableError(f"the table cannot be read ({one_line(error)}); restore it") from None
    file = io.StringIO(text, newline="")
    first, skipped = file.readline(), 0
    if named := re.fullmatch(r'"?sep=(.)"?\s*', first):  # a line that Excel writes and reads
        delimiter, skipped = named[1], 1
    else:
        delimiter = _delimiter(first)
        file.seek(0)
    try:
        table = csv.reader(file, delimiter=delimiter, strict=True)
        heading = tuple(name.strip() for name in next(table, []))
        rows = [(table.line_num + skipped, tuple(cell.strip() for cell in row)) for row in table]
    except csv.Error as error:
        raise TableError(f"the table cannot be read ({one_line(error)}); restore it") from None
    return TextTable(heading, tuple(row for row in rows if any(row[1])), _DELIMITERS.get(delimiter, repr(delimiter)))


def _delimiter(line: str) -> str:
    """What separates the cells of a heading: what parts it into most cells, in doubt a comma."""
    try:
        return max(_DELIMITERS, key=lambda delimiter: len(next(csv.reader([line], delimiter=delimiter), [])))
    except csv.Error:
        return ","


def known(cell: str) -> str:
    """A cell, or nothing where it says that there is no value, such as ``nan``."""
    return "" if cell.casefold() in _NOTHING else cell
