"""``table.md``: a report as GitHub-flavoured Markdown."""

from collections.abc import Collection, Iterable, Sequence

from busi_lab.report.sections.section import Cell, Grid, Section


def render_markdown(
    sections: Iterable[Section], pictures: Collection[str] = (), title: str = "Comparison of runs"
) -> str:
    """All sections below a title, with links to those of their figures that are among the files ``pictures``."""
    parts = [f"# {_escape(title)}", *(part for section in sections for part in _section(section, 2, pictures))]
    return "\n\n".join(parts) + "\n"


def _section(section: Section, level: int, pictures: Collection[str]) -> list[str]:
    notes = [f"> {_escape(note)}" for note in section.notes]
    found = [f"{'#' * level} {_escape(section.title)}", *notes, *map(_escape, section.sentences)]
    if section.code:
        found.append(f"```\n{section.code.replace('```', '')}\n```")
    found += [_grid(grid) for grid in section.grids]
    for group in section.groups:
        name = f"{group.file}.png"
        if name in pictures:
            found.append(f"![{_escape(group.headline)}: {_escape(group.title)}]({name})")
    return found + [part for below in section.parts for part in _section(below, level + 1, pictures)]


def _grid(grid: Grid) -> str:
    lines = [[_cell(cell) for cell in line] for line in grid.lines]
    return "\n".join(map(_line, [list(map(_escape, grid.titles)), ["---"] * len(grid.titles), *lines]))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    return "<br>".join(map(_escape, (cell.text, *cell.second)))


def _escape(words: str) -> str:
    return words.replace("|", "\\|").replace("<", "&lt;")
