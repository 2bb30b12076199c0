"""``report.html``: a comparison as one file for reading on a phone, on a screen or on paper, that fetches nothing."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from busi_lab.report.gallery import Picture, hang_gallery
from busi_lab.report.panels import Group, Panel, draw_groups
from busi_lab.report.plots import SHOWN
from busi_lab.report.render import MISSING, display, figure, published_rows, ranking
from busi_lab.report.tables import Comparison, Row, Table, text
from busi_lab.run_directory import CLASSES

_PAPER = " (paper)"


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix for people: per actual class the counts, and their shares of the class in percent."""

    label: str
    lines: list[tuple[str, list[tuple[int, int]]]]


@dataclass(frozen=True)
class Section:
    """All that the page shows of one table; ``cells`` are pairs of our figure and the paper's, or an empty string."""

    table: Table
    ranking: str
    notes: list[str]
    titles: list[str]
    cells: list[list[tuple[str, str]]]
    groups: list[Group]
    matrices: list[Matrix]
    pictures: list[Picture]
    pictures_note: str


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
    published_titles, published = published_rows(comparison)
    return environment.get_template("template.html").render(
        findings=[(table, findings(table)) for table in comparison.tables],
        caveats=_caveats(comparison),
        finished=sum(len(table.rows) for table in comparison.tables),
        failures=comparison.failures,
        sections=[_section(table, several=len(comparison.tables) > 1) for table in comparison.tables],
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


def findings(table: Table) -> list[str]:
    """What came out, in sentences: the best run by validation, its test result, and the paper's figures."""
    best = table.rows[0]
    data = best.run.summary.data
    runs = "One run" if len(table.rows) == 1 else f"{len(table.rows)} runs"
    sizes = [f"{data[part]} {word}" for part, word in (("train", "training"), ("val", "validation")) if data.get(part)]
    images = f"{table.test_images if table.test_images is not None else 'an unknown number of'} test images"
    sentences = [
        f"{runs} for {table.task} on {table.dataset} under the {table.protocol}: {', '.join([*sizes, images])}."
    ]
    if best.objective is None:
        return [*sentences, f"No run recorded {table.metric}, so there is no best one."]
    sentences.append(f"Best by validation is {best.label} ({table.metric} {best.objective:.3f}). {_test_result(best)}")
    metric = "dice" if best.metric("test/accuracy") is None else "accuracy"
    seen: dict[str, str] = {}
    for row in table.rows:
        ours, paper = row.metric(f"test/{metric}"), row.published.get(metric)
        if ours is not None and paper is not None:
            seen.setdefault(row.run.name, f"{row.run.name} {ours:.3f} (paper {figure(paper)})")
    if seen:
        sentences.append(f"Test {metric} beside the paper's, best run of each experiment: {'; '.join(seen.values())}.")
    else:
        sentences.append("The paper has no figure for these experiments.")
    return sentences


def _test_result(row: Row) -> str:
    """The test figures of a run in one sentence."""
    parts, matrix = [], row.confusion()
    if matrix:
        right, total = int(sum(matrix[i][i] for i in range(len(CLASSES)))), int(sum(map(sum, matrix)))
        low, high = wilson_interval(right, total)
        parts.append(f"{right} of {total} images right (95 % interval {low:.1%} to {high:.1%})")
    for name, words in {"accuracy": "accuracy", "f1": "macro F1", "dice": "mean Dice"}.items():
        value = row.metric(f"test/{name}")
        if value is not None:
            parts.append(f"{words} {value:.3f}")
    return f"On the test images it has {', '.join(parts)}." if parts else "It recorded no test figure."


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, JASA 22, 1927); 0 to 1 where ``total`` is 0."""
    if total == 0:
        return 0.0, 1.0
    share, z = right / total, 1.959964
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


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


def _section(table: Table, several: bool) -> Section:
    """What the page shows of ``table``; its notes only where it is one of ``several``, else they stand above."""
    titles, lines = display(table)
    with_paper = [title.endswith(_PAPER) for title in titles]
    cells = [
        [_split(cell) if split else (cell, "") for cell, split in zip(line, with_paper, strict=True)] for line in lines
    ]
    for row, line in zip(table.rows, cells, strict=True):
        line[titles.index("run")] = (row.label, "")  # the name by which the figures call it
    pictures, pictures_note = hang_gallery(table)
    matrices = [_matrix(row, matrix) for row in table.rows if (matrix := row.confusion()) is not None]
    return Section(
        table,
        ranking(table),
        [_plain(note) for note in table.notes] if several else [],
        [title.removesuffix(_PAPER) for title in titles],
        cells,
        draw_groups(table),
        matrices[:SHOWN],
        pictures,
        pictures_note,
    )


def _plain(note: str) -> str:
    """A note of the Markdown tables in the words of this page."""
    return note.replace("`", "").replace(" (in brackets)", "")


def _split(cell: str) -> tuple[str, str]:
    """``0.955 (0.98)`` as ours and the paper's."""
    ours, _, paper = cell.partition(" (")
    return ours, paper.rstrip(")")


def _matrix(row: Row, matrix: Sequence[Sequence[float]]) -> Matrix:
    lines = [
        (name, [(int(count), round(100 * count / (sum(line) or 1))) for count in line])
        for name, line in zip(CLASSES, matrix, strict=True)
    ]
    return Matrix(row.label, lines)


def _origin(row: Row) -> dict[str, Any]:
    """What it takes to get a run again."""
    summary = row.run.summary
    known = {
        "seed": summary.seed,
        "split": summary.split.get("digest"),
        "test set": summary.split.get("test_digest"),
        "data": summary.data.get("digest"),
        "device": summary.device,
        "precision": summary.precision,
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
