"""The ranked runs of each test set: their figures, what they cost, curves, clinical figures and examples."""

from collections.abc import Sequence
from pathlib import Path

from busi_lab.report import words
from busi_lab.report.figures import curves, quality
from busi_lab.report.figures.shapes import Group
from busi_lab.report.figures.title import headline
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.metrics import test_metrics, without_doubles
from busi_lab.report.results.tables import Row, Table
from busi_lab.report.sections.basis import leaked
from busi_lab.report.sections.clinical import clinical_parts
from busi_lab.report.sections.examples import examples
from busi_lab.report.sections.section import Cell, Grid, Section, count, figure, without_empty, word

SHOWN = 20
"""Runs in one figure at most, best first; more are no longer readable."""

PANELS_SHOWN = 8
"""Runs at most in a figure that gives each run a panel of its own, best first; they cost most of the time."""

TABLES_DRAWN = 8
"""Tables with picture files at most; the page has the figures of all."""


def ranking(analysis: Analysis) -> list[Section]:
    """A section for each table."""
    drawn = [table.number for table in analysis.tables if table.number not in analysis.fold_tables]
    return [_section(analysis, table, drawn) for table in analysis.tables]


def _section(analysis: Analysis, table: Table, drawn: Sequence[int]) -> Section:
    fold = table.number in analysis.fold_tables
    parts: list[Section] = []
    groups: tuple[Group, ...] = ()
    sentences = [order_of(table)]
    if fold:
        sentences.append("One of several folds, so without figures of its own.")
    else:
        few = min(len(drawn), TABLES_DRAWN)  # the more tables, the fewer runs of each: the time stays within seconds
        shown = min(SHOWN, max(6, 2 * SHOWN // few))
        panels = min(PANELS_SHOWN, max(4, 3 * PANELS_SHOWN // few))
        groups = _groups(table, shown, panels, with_files=table.number in drawn[:TABLES_DRAWN])
        if table.number == drawn[0] and len(drawn) > TABLES_DRAWN:
            sentences.append(
                f"Picture files are drawn for the first {TABLES_DRAWN} tables; compare fewer runs to have all."
            )
        parts += clinical_parts(analysis.clinical[table.number], "run", len(table.rows))
        parts.append(examples(analysis, table))
    cost = _cost(table)
    if cost.titles != ("run",):
        parts.insert(0, Section("Cost and origin of the runs", grids=(cost,), terminal=True, folded=True))
    digests = f"Test set {table.test_digest or 'unknown'}, data {table.data_digest or 'unknown'}."
    title = f"{headline(table)} (test set {(table.test_digest or 'unknown')[:12]})"
    quality_grid = _quality(table)
    return Section(
        *(title, (*sentences, digests), (), (quality_grid,), groups),
        parts=tuple(parts),
        terminal=not fold,  # what the folds say together stands before
        folded=fold,
    )


def _groups(table: Table, shown: int, panels: int, with_files: bool) -> tuple[Group, ...]:
    from dataclasses import replace

    groups = (
        quality.bars(table, shown),
        curves.matrices(table, panels),
        quality.dice(table),
        curves.roc(table, shown),
        curves.learning(table, panels),
        quality.costs(table, shown),
    )
    return tuple(group if with_files else replace(group, file="") for group in groups if group.panels)


def order_of(table: Table) -> str:
    """The sentence that says by what the rows are ordered, and how many test images leaked."""
    direction = "lower" if table.mode == "min" else "higher"
    ranked = f"Ranked by {table.metric} ({direction} is better)"
    if table.evaluated:
        ranked = f"Ranked by {table.metric}, which each run has from its own validation images and not from these"
    if len(table.rows) == 1:
        ranked = "One run, so nothing is ranked"
    untested = sum(not row.run.summary.tested for row in table.rows)
    if untested == len(table.rows):
        return f"{ranked}; no run was tested (test=false), busi-eval run=RUN tests the one that you choose."
    some = f"; {untested} of {len(table.rows)} runs were not tested (test=false)" if untested else ""
    return f"{ranked}; the other figures are from the test set{some}; leaked test images {leaked(table)}."


def _quality(table: Table) -> Grid:
    """Best first, the paper's figure below ours, no column without a value."""
    held = [
        {name for name in test_metrics([row.classes]) if row.metric(f"test/{name}") is not None} for row in table.rows
    ]
    names = without_doubles(test_metrics(row.classes for row in table.rows), held)
    titles = ["run", table.metric, *names]
    lines = []
    for row in table.rows:
        own = None if row.evaluated else row.objective
        lines.append([word(row.label), figure(own, 4), *(_beside_the_paper(row, name) for name in names)])
    if len(table.rows) > 1:  # one run has nothing to beat
        titles.insert(0, "rank")
        lines = [[count(row.rank), *line] for row, line in zip(table.rows, lines, strict=True)]
    grid = without_empty(titles, lines, kept=("rank", "run"))
    return Grid(grid.titles, grid.lines, grid.titles.index("run"), sortable=True)


def _beside_the_paper(row: Row, name: str) -> Cell:
    paper = row.published.get(name)
    second = () if paper is None else (f"paper {words.published(paper)}",)
    return figure(row.metric(f"test/{name}"), words.digits_of(name), second)


def _cost(table: Table) -> Grid:
    """What the runs cost and where they come from; of an evaluation, nothing of the training."""
    titles = (
        *("run", "parameters (M)", "epochs", "best epoch", "images/s", "fit s", "inference ms", "seed", "weights"),
        "folder",
    )
    return without_empty(titles, [_cost_line(row) for row in table.rows], kept=("run",))


def _cost_line(row: Row) -> list[Cell]:
    summary, trained = row.run.summary, not row.evaluated
    parameters, best = words.number(summary.parameters), words.epoch(summary.best_epoch)
    of = f" of {summary.epochs}" if summary.epochs else ""
    return [
        word(row.label),
        figure(None if parameters is None else parameters / 1e6, 2),
        count(summary.epochs if trained else None),
        Cell(words.MISSING) if best is None or not trained else Cell(f"{best}{of}", best),
        figure(words.number(summary.images_per_second) if trained else None, 1),
        figure(words.number(summary.seconds.get("fit")) if trained else None, 0),
        figure(words.number(summary.inference_milliseconds), 1),
        count(summary.seed),
        word(summary.weights and Path(str(summary.weights)).name),
        word(row.folder),
    ]
