"""Tables of foreign datasets, CSV or Excel -> rows that say where they stand."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from busi_lab.data.importers.source import Source, busi_label, plain_text, shown
from busi_lab.data.names import folded
from busi_lab.data.text_table import TableError, known, read_table
from busi_lab.errors import UserError, one_line

_TEXT = (".csv", ".tsv")
_EXCEL = (".xlsx", ".xlsm")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        place: ``TABLE, line N``.
        cells: name of the column in small letters -> its cell, empty for ``nan`` and the like.
    """

    place: str
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")

    def further(self, *without: str) -> dict[str, str]:
        """All columns but these."""
        return {name: cell for name, cell in self.cells.items() if name not in without}

    def label(self, source: Source, column: str) -> str:
        """The class that a cell names; what is none of BUSI's is noted and taken for none."""
        label = busi_label(self[column])
        if label is None:
            source.leave(self.place, f"label '{shown(self[column])}' is none of benign, malignant, normal: left empty")
        return label or ""


@dataclass(frozen=True)
class Table:
    """A table: the file, and its rows."""

    name: str
    rows: tuple[Row, ...]


def find_table(source: Source, columns: Sequence[str], names: Sequence[str] = ()) -> Table:
    """The only table of a folder with some columns; capitals do not matter.

    Args:
        source: the folder.
        columns: in small letters.
        names: of the file, in small letters; any by default.

    Raises:
        UserError: there is none, or several, or it cannot be read.
    """
    found, complaints = [], []
    for name in source.ending(*_TEXT, *_EXCEL):
        if names and name.lower().rsplit("/", 1)[-1] not in names:
            continue
        try:
            for table in _read(source, name):
                if set(columns) <= set(table[0][1]):
                    found.append((name, table))
                    break
            else:
                complaints.append(f"{name} has no columns {', '.join(columns)}")
        except TableError as error:
            complaints.append(f"{name}: {error}")
    if len(found) == 1:
        name, lines = found[0]
        source.use(name, "table")
        return Table(name, tuple(_rows(source, name, lines)))
    if found:
        both = " and ".join(name for name, _ in found)
        raise UserError(f"{source.root}: {both} are both such tables; move one away")
    if complaints:
        raise UserError(f"{source.root}: expected {source.kind}; {complaints[0]}")
    raise source.refuse(f"a table {' or '.join(names) or 'with the columns ' + ', '.join(columns)}")


def has_table(source: Source, names: Sequence[str]) -> bool:
    """Whether a folder has a table of one of these names, in small letters."""
    return any(name.lower().rsplit("/", 1)[-1] in names for name in source.ending(*_TEXT, *_EXCEL))


def unique(source: Source, table: Table, column: str) -> list[Row]:
    """The rows of a table, those left out that say the same again, and all that contradict each other."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in table.rows:
        if row[column]:
            groups[folded(row[column])].append(row)
        else:
            source.leave(row.place, f"{column} is empty")
    kept = []
    for first, *others in groups.values():
        if all(row.cells == first.cells for row in others):
            kept.append(first)
            for row in others:
                source.leave(row.place, f"says the same as {first.place}")
            continue
        for row in (first, *others):
            source.leave(
                row.place, f"{len(others) + 1} rows say different things of '{shown(row[column])}': none is taken"
            )
    return kept


Lines = list[tuple[int, tuple[str, ...]]]
"""Number and cells of each line; the first is the heading, in small letters."""


def _read(source: Source, name: str) -> Iterator[Lines]:
    """The tables of a file: one of a text file, one for each sheet of Excel.

    Raises:
        TableError: it cannot be read.
        UserError: the package for it is missing.
    """
    if name.lower().endswith(_TEXT):
        text = read_table(source.path(name))
        yield [(1, tuple(map(_column, text.heading))), *text.rows]
        return
    try:
        import openpyxl
    except ImportError:
        raise UserError(
            f"{source.path(name)}: reading Excel needs openpyxl: pip install 'busi-lab[import]', or save it as CSV"
        ) from None
    try:
        book = openpyxl.load_workbook(source.path(name), read_only=True, data_only=True)
        sheets = [list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets]
        book.close()
    except Exception as error:  # whatever a damaged file makes the parser raise
        raise TableError(f"the table cannot be read ({one_line(error)[:200]}); restore it") from None
    for rows in sheets:
        if rows:
            heading = tuple(_column(_text(name)) for name in rows[0])
            width = len(heading)
            cells = [tuple(map(_text, row)) + ("",) * (width - len(row)) for row in rows]  # empty ones may lack
            yield [(1, heading), *((number, row) for number, row in enumerate(cells[1:], start=2) if any(row))]


def _rows(source: Source, name: str, lines: Lines) -> Iterator[Row]:
    (_, heading), *rest = lines
    for number, cells in rest:
        place = f"{name}, line {number}"
        if len(cells) != len(heading):
            source.leave(place, f"{len(cells)} cells, but the first line has {len(heading)}")
            continue
        yield Row(
            place, {column: plain_text(known(cell)) for column, cell in zip(heading, cells, strict=True) if column}
        )


def _column(name: str) -> str:
    """The name of a column in small letters, of letters, digits and ``_`` alone."""
    return re.sub(r"\W+", "_", shown(name).casefold()).strip("_")


def _text(value: Any) -> str:
    """A cell of Excel as text; whole numbers without a fraction."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
