"""What a report consists of: sections with sentences, tables of cells, and figures; every writer walks them alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from busi_lab.report import words
from busi_lab.report.figures.shapes import Group
from busi_lab.report.results.estimates import Estimate

if TYPE_CHECKING:
    from busi_lab.report.figures.gallery import Picture  # brings OpenCV


@dataclass(frozen=True)
class Cell:
    """What a cell shows, the value behind it by which a table is sorted, and smaller lines below."""

    text: str
    value: float | str | None = None
    second: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """A table; the column ``names`` (by number) holds the names of its lines. ``sortable``: readers may reorder it.

    In the terminal, which it is too wide for, a ``wide`` one has its cells one below the other.
    """

    titles: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]
    names: int = 0
    sortable: bool = False
    wide: bool = False

    def of_words(self, column: int) -> bool:
        """Whether a column holds words, which are read from their beginning, and no numbers."""
        return column in self._of_words

    @cached_property
    def _of_words(self) -> frozenset[int]:
        found = {i for line in self.lines for i, cell in enumerate(line) if isinstance(cell.value, str)}
        return frozenset(found - {self.names})


@dataclass(frozen=True)
class Gallery:
    """Pictures with the words below each, and sentences about them."""

    sentences: tuple[str, ...]
    pictures: tuple[tuple["Picture", str], ...] = ()


@dataclass(frozen=True)
class Section:
    """One thing that a report says.

    Attributes:
        title: its heading; parts have smaller ones.
        sentences: paragraphs.
        notes: what a reader must know before believing the rest; they are set off.
        grids: tables.
        groups: figures.
        code: what can be typed.
        gallery: makes pictures, which the page alone shows, because they take time.
        parts: sections below it.
        terminal: whether the terminal shows it; the files hold every section.
        folded: whether the page shows its title alone until it is opened.
    """

    title: str
    sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    groups: tuple[Group, ...] = ()
    code: str = ""
    gallery: Callable[[], Gallery] | None = None
    parts: tuple["Section", ...] = ()
    terminal: bool = False
    folded: bool = False


LINES_SHOWN = 100
"""Lines of a table for people at most, and parts of a section; the CSV files have all."""


def shortened(section: Section) -> Section:
    """A section whose tables and parts are short enough to be read, and which says so where it was not."""
    grids = tuple(replace(grid, lines=grid.lines[:LINES_SHOWN]) for grid in section.grids)
    parts = tuple(shortened(part) for part in section.parts[:LINES_SHOWN])
    longest = max([len(section.parts), *(len(grid.lines) for grid in section.grids)])
    if longest <= LINES_SHOWN:
        return replace(section, parts=parts)
    told = f"Shown are the first {LINES_SHOWN} of {longest:,}; the CSV files have all."
    return replace(section, sentences=(*section.sentences, told), grids=grids, parts=parts)


def word(value: Any) -> Cell:
    """A cell of words; a dash where there are none."""
    shown = words.text(value)
    return Cell(shown or words.MISSING, shown)


def figure(value: float | None, digits: int = 3, second: Sequence[str] = ()) -> Cell:
    """A cell of a number; a dash where it is missing."""
    return Cell(words.figure(value, digits), words.number(value), tuple(second))


def count(value: Any) -> Cell:
    """A cell of a whole number."""
    known = words.number(value)
    return Cell(words.MISSING if known is None else f"{known:g}", known)


def interval(found: Estimate | None, digits: int = 3) -> Cell:
    """A figure with its interval below it."""
    if found is None:
        return Cell(words.MISSING)
    return figure(found.value, digits, [words.ends(found.low, found.high, digits)])


def difference(found: Estimate | None, digits: int = 3) -> Cell:
    """A difference with its interval below it, both with their signs."""
    if found is None:
        return Cell(words.MISSING)
    ends = words.ends(found.low, found.high, digits, "+")
    return Cell(words.signed(found.value, digits), found.value, (ends,))


def without_empty(titles: Sequence[str], lines: Sequence[Sequence[Cell]], kept: Sequence[str] = ()) -> Grid:
    """A grid without the columns that have no value, but for those that are ``kept``."""

    def holds(i: int) -> bool:
        return titles[i] in kept or any(line[i].value is not None or line[i].second for line in lines)

    columns = [i for i in range(len(titles)) if holds(i)]
    return Grid(
        tuple(titles[i] for i in columns), tuple(tuple(line[i] for i in columns) for line in lines), sortable=True
    )
