"""``report.html``: a comparison as one file for reading on a phone, on a screen or on paper, that fetches nothing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from busi_lab.report.blocks import Block
from busi_lab.report.evaluation_plots import draw_evaluations
from busi_lab.report.findings import findings
from busi_lab.report.gallery import Gallery, hang_gallery
from busi_lab.report.joint import pairs
from busi_lab.report.panels import draw_groups, draw_pooled
from busi_lab.report.plots import SHOWN
from busi_lab.report.render import BEST_EPOCH, display, published_rows, ranking
from busi_lab.report.svg import Group, Panel
from busi_lab.report.tables import MISSING, Comparison, Row, Table, number, text
from busi_lab.run_directory import CLASSES

_PAPER = " (paper)"

_TOLD_LATER = ("images/s", "seed", "weights", "folder")
"""Columns of the ranked table that the page leaves to its last section, so that the table fits a screen."""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix for people: per actual class the counts, and their shares of the class in percent."""

    label: str
    lines: list[tuple[str, list[tuple[int, int]]]]


@dataclass(frozen=True)
class Section:
    """All that the page shows of one table; ``cells`` are pairs of a figure and a small second line, maybe empty."""

    table: Table
    ranking: str
    notes: list[str]
    titles: list[str]
    cells: list[list[tuple[str, str]]]
    groups: list[Group]
    matrices: list[Matrix]
    gallery: Gallery | None
    clinical: tuple[Block, ...]


def render_html(comparison: Comparison) -> str:
    """The whole page; draws every figure, so it takes seconds."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(classes=CLASSES, missing=MISSING, svg=_trusted, breakable=_breakable)
    folds = comparison.analysis.fold_tables
    published_titles, published = published_rows(comparison)
    return environment.get_template("template.html").render(
        findings=[(table, findings(table)) for table in comparison.tables if table.number not in folds],
        folds=len(folds),
        caveats=_caveats(comparison),
        finished=sum(len(table.rows) for table in comparison.tables),
        failures=comparison.failures,
        sections=[_section(table, comparison) for table in comparison.tables],
        analysis=comparison.analysis,
        pooled=[(pooled, draw_pooled(pooled, i)) for i, pooled in enumerate(comparison.analysis.pooled, start=1)],
        curves=draw_evaluations(comparison),
        pairs=pairs(comparison),
        published_titles=published_titles,
        published=published,
        runs=[_origin(row) for table in comparison.tables for row in table.rows],
        versions=_versions(comparison),
    )


def _trusted(panel: Panel) -> Markup:
    """Matplotlib has escaped the words in its drawing, so the template must not."""
    return Markup(panel.svg)


def _breakable(name: str) -> Markup:
    """``name`` escaped, with leave to break a line after a slash or underscore that is not near the end."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_])(?=.{4})", name))


def _caveats(comparison: Comparison) -> list[str]:
    """The tables' notes, each once, with the tables that it is about where there are several."""
    found: dict[str, list[int]] = {}
    for table in comparison.tables:
        for note in table.notes:
            found.setdefault(_plain(note), []).append(table.number)
    if len(comparison.tables) == 1:
        return list(found)
    word = {note: "Table" if len(numbers) == 1 else "Tables" for note, numbers in found.items()}
    return [f"{word[note]} {', '.join(map(str, numbers))}: {note}" for note, numbers in found.items()]


def _section(table: Table, comparison: Comparison) -> Section:
    """What the page shows of ``table``; its notes only where it is one of several, else they stand above.

    A fold that is pooled with others has its ranked table alone.
    """
    fold = table.number in comparison.analysis.fold_tables
    titles, cells = _cells(table)
    matrices = [_matrix(row, matrix) for row in table.rows if (matrix := row.confusion()) is not None]
    return Section(
        table,
        ranking(table),
        [_plain(note) for note in table.notes] if len(comparison.tables) > 1 else [],
        titles,
        cells,
        [] if fold else draw_groups(table),
        [] if fold else matrices[:SHOWN],
        None if fold else hang_gallery(table, [run for _, run in comparison.again]),
        comparison.analysis.clinical.get(table.number, ()),
    )


def _cells(table: Table) -> tuple[list[str], list[list[tuple[str, str]]]]:
    """The ranked table, narrowed: paper's figures and best epochs on second lines, ``_TOLD_LATER`` left out."""
    titles, lines = display(table)
    columns = dict(zip(titles, zip(*lines, strict=True), strict=True))
    columns["run"] = tuple(row.label for row in table.rows)  # the name by which the figures call it
    best = columns.pop(BEST_EPOCH, None)
    for title in _TOLD_LATER:
        columns.pop(title, None)
    cells: dict[str, list[tuple[str, str]]] = {}
    for title, column in columns.items():
        shown = [_split(cell) if title.endswith(_PAPER) else (cell, "") for cell in column]
        if title == "epochs" and best:
            shown = [(cell, f"best {epoch}") for cell, epoch in zip(column, best, strict=True)]
        cells[title.removesuffix(_PAPER)] = shown
    return list(cells), [list(line) for line in zip(*cells.values(), strict=True)]


def _plain(note: str) -> str:
    """A note of the Markdown tables in the words of this page."""
    return note.replace("`", "").replace(" (in brackets)", "")


def _split(cell: str) -> tuple[str, str]:
    """``0.955 (0.98)`` as ours and a line with the paper's."""
    ours, _, paper = cell.partition(" (")
    return ours, f"paper {paper.rstrip(')')}" if paper else ""


def _matrix(row: Row, matrix: Sequence[Sequence[float]]) -> Matrix:
    lines = [
        (name, [(int(count), round(100 * count / (sum(line) or 1))) for count in line])
        for name, line in zip(CLASSES, matrix, strict=True)
    ]
    return Matrix(row.label, lines)


def _origin(row: Row) -> dict[str, Any]:
    """What it takes to get a run again."""
    summary = row.run.summary
    speed = number(summary.images_per_second)
    known = {
        "folder": row.folder,
        "model": summary.model,
        "weights": summary.weights and Path(str(summary.weights)).name,
        "seed": summary.seed,
        "split": summary.split.digest,
        "test set": summary.split.test_digest,
        "data": summary.data.digest,
        "device": summary.device,
        "precision": summary.precision,
        "images/s": None if speed is None else f"{speed:.1f}",
        "git": summary.git,
    }
    facts = {key: text(value) or MISSING for key, value in known.items()}
    return {"label": row.label, "folder": row.folder, "command": text(summary.command), "facts": facts}


def _versions(comparison: Comparison) -> list[tuple[str, str]]:
    """Library versions, each set once with the runs that used it."""
    found: dict[str, list[str]] = {}
    for row in (row for table in comparison.tables for row in table.rows):
        versions = row.run.summary.versions
        if isinstance(versions, dict) and versions:
            words = ", ".join(f"{text(name)} {text(version)}" for name, version in versions.items())
            found.setdefault(words, []).append(row.label)
    everyone = sum(len(table.rows) for table in comparison.tables)
    return [("All runs" if len(runs) == everyone else ", ".join(runs), words) for words, runs in found.items()]
