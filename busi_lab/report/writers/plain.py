"""A report as plain text for the terminal: the sections that are meant for it."""

from collections.abc import Iterable, Sequence

from busi_lab.report.sections.section import Cell, Grid, Section
from busi_lab.report.words import MISSING


def render_text(sections: Iterable[Section]) -> str:
    """Headings, sentences and aligned tables."""
    return "\n\n".join(part for section in sections for part in _section(section)) + "\n"


def _section(section: Section) -> list[str]:
    if not section.terminal:
        return []
    notes = [f"Note: {note}" for note in section.notes]
    tables = [line for grid in section.grids for line in ("", *_grid(grid))]
    own = "\n".join([section.title, *notes, *section.sentences, *tables])
    return [own, *(part for below in section.parts for part in _section(below))]


def cell_text(cell: Cell) -> str:
    """A cell on one line, its second lines in brackets."""
    return f"{cell.text} ({'; '.join(cell.second)})" if cell.second else cell.text


def _grid(grid: Grid) -> list[str]:
    if grid.wide:
        return [text for line in grid.lines for text in _block(grid, line)]
    cells = [[cell_text(cell) for cell in line] for line in grid.lines]
    columns = list(zip(grid.titles, *cells, strict=True))
    right = [all(_is_number(line[i]) for line in grid.lines) for i in range(len(grid.titles))]
    widths = [max(map(len, column)) for column in columns]
    return [_aligned(line, widths, right) for line in (grid.titles, *cells)]


def _block(grid: Grid, line: Sequence[Cell]) -> list[str]:
    """The cells of a line below its name, without those that are empty."""
    width = max(map(len, grid.titles))
    known = [(title, cell_text(cell)) for title, cell in zip(grid.titles, line, strict=True) if cell is not line[0]]
    told = [f"  {title.ljust(width)}  {text}" for title, text in known if text != MISSING]
    return [cell_text(line[0]), *told]


def _is_number(cell: Cell) -> bool:
    return not cell.second and (isinstance(cell.value, int | float) or cell.text == MISSING)


def _aligned(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = zip(line, widths, right, strict=True)
    return "  ".join(cell.rjust(width) if to else cell.ljust(width) for cell, width, to in cells).rstrip()
