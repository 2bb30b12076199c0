"""``report.html``: a report as one file for reading on a phone, on a screen or on paper, that fetches nothing."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from busi_lab.report.figures.shapes import Panel
from busi_lab.report.sections.section import Cell, Section
from busi_lab.report.words import MISSING


@dataclass(frozen=True)
class Numbered:
    """A section with the identifier by which the page links to it."""

    anchor: str
    section: Section
    parts: tuple["Numbered", ...]


def render_html(sections: Sequence[Section]) -> str:
    """The whole page; draws every figure, so it takes seconds."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = count()
    environment.globals.update(
        svg=lambda panel: _svg(panel, f"p{next(drawn)}-"), breakable=_breakable, value_of=_value_of, missing=MISSING
    )
    return environment.get_template("template.html").render(sections=list(_numbered(sections, count(1))))


def _numbered(sections: Sequence[Section], numbers: Iterator[int]) -> Iterator[Numbered]:
    for section in sections:
        anchor = f"s{next(numbers)}"
        yield Numbered(anchor, section, tuple(_numbered(section.parts, numbers)))


def _svg(panel: Panel, prefix: str) -> Markup:
    """Matplotlib has escaped the words in its drawing, so the template must not."""
    from busi_lab.report.figures.svg import inline_svg  # matplotlib costs a second: only where something is drawn

    return Markup(inline_svg(panel, prefix))


def _breakable(name: str) -> Markup:
    """``name`` escaped, with leave to break a line after a slash or underscore that is not near the end."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_])(?=.{4})", name))


def _value_of(cell: Cell) -> str:
    """What a column is sorted by; empty for a missing value."""
    return "" if cell.value is None else str(cell.value)
