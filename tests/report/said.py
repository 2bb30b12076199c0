"""What a report says, for tests: its sections by title, at any depth."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from busi_lab.report.results.analysis import Analysis, analyse
from busi_lab.report.results.reading import build
from busi_lab.report.sections.contents import sections_of
from busi_lab.report.sections.section import Grid, Section


def said(analysis: Analysis) -> dict[str, Section]:
    """All sections by title, the first of each."""
    return {section.title: section for section in reversed(list(_walk(sections_of(analysis))))}


def read(folder: Path) -> dict[str, Section]:
    """The sections of a report on a folder."""
    return said(analyse(build([folder])))


def ending(analysis: Analysis, title: str) -> Section:
    """The section whose title ends so, or begins so."""
    found = said(analysis)
    return next(section for name, section in found.items() if name.endswith(title) or name.startswith(title))


def rows(grid: Grid) -> list[list[str]]:
    """What the cells of a table show, without their second lines."""
    return [[cell.text for cell in line] for line in grid.lines]


def _walk(sections: Iterable[Section]) -> Iterator[Section]:
    for section in sections:
        yield section
        yield from _walk(section.parts)
