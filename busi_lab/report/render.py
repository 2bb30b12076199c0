"""A comparison as rows of CSV, as plain text for the terminal and as GitHub-flavoured Markdown."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from busi_lab.report.blocks import Block
from busi_lab.report.joint import pairs
from busi_lab.report.published import PAPER_DATASET, PUBLISHED, RELATED_WORK
from busi_lab.report.tables import MISSING, TEST_METRICS, Comparison, Table, leak_words, number, text
from busi_lab.summary import Summary

BEST_EPOCH = "best epoch (from 0)"

_DIGITS = {"hd95": 1, "hd95_pixels": 1, "hd95_mm": 2}
"""Decimals of a metric that is no fraction of 1."""


def figure(value: float) -> str:
    """A published figure as printed: two decimals, more where it has more."""
    return f"{value:.2f}" if value == round(value, 2) else f"{value:.4g}"


def display(table: Table) -> tuple[list[str], list[list[str]]]:
    """Titles and cells for people: best first, the paper's figure in brackets, no column without a value."""

    def cell(value: Any, digits: int | None = None) -> str:
        if digits is None:
            return text(value) or MISSING
        known = number(value)
        return MISSING if known is None else f"{known:.{digits}f}" if abs(known) < 1e6 else f"{known:.3g}"

    rows = table.rows
    summaries = [row.run.summary for row in rows]
    columns = [("rank", [cell(row.rank) for row in rows])] if len(rows) > 1 else []  # one run has nothing to beat
    columns.append(("run", [cell(row.label) for row in rows]))
    columns.append((table.metric, [cell(row.objective, 4) for row in rows]))
    for name in TEST_METRICS:
        with_paper = any(name in row.published for row in rows)
        figures = [cell(row.metric(f"test/{name}"), _DIGITS.get(name, 3)) for row in rows]
        paper = [f" ({figure(row.published[name])})" if name in row.published else "" for row in rows]
        cells = [ours + published for ours, published in zip(figures, paper, strict=True)]
        columns.append((f"{name} (paper)" if with_paper else name, cells))
    columns += [
        ("parameters (M)", [cell((number(s.parameters) or math.nan) / 1e6, 2) for s in summaries]),
        ("epochs", [cell(summary.epochs) for summary in summaries]),
        (BEST_EPOCH, [cell(summary.best_epoch) for summary in summaries]),
        ("images/s", [cell(summary.images_per_second, 1) for summary in summaries]),
        ("fit s", [cell(summary.seconds.get("fit"), 0) for summary in summaries]),
        ("inference ms", [cell(summary.inference_milliseconds, 1) for summary in summaries]),
        ("seed", [cell(summary.seed) for summary in summaries]),
        ("weights", [cell(summary.weights and Path(summary.weights).name) for summary in summaries]),
        ("folder", [row.folder for row in rows]),
    ]
    kept = [(title, cells) for title, cells in columns if title in ("rank", "run") or set(cells) != {MISSING}]
    lines = zip(*(cells for _, cells in kept), strict=True)
    return [title for title, _ in kept], [list(line) for line in lines]


def records(comparison: Comparison) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of ``table.csv``: every run with all its scalars, unrounded; failures last."""
    found: list[dict[str, Any]] = []
    for table in comparison.tables:
        place = {"table": table.number, "objective": table.metric, "objective_mode": table.mode}
        for row in table.rows:
            paper = {f"paper/{name}": value for name, value in row.published.items()}
            rank = {"rank": row.rank, "objective_value": row.objective}
            found.append({"run": row.folder, **place, **rank, **_record(row.run.summary), **paper})
    for failure in comparison.failures:
        known = _record(failure.run.summary) if failure.run else {}
        found.append({"run": failure.folder, **known, "status": failure.status, "error": failure.reason})
    held = {key for record in found for key in record}
    test = [f"test/{name}" for name in TEST_METRICS]
    test += sorted(key for key in held if key.startswith("test/") and key not in test)
    paper_columns = [f"paper/{name}" for name in TEST_METRICS]
    columns = [*_FIRST, *test, *paper_columns, *sorted(key for key in held if key.startswith("val/")), *_LAST]
    return [column for column in columns if column in held], found


_FIRST = (
    *("run", "status", "table", "rank", "objective", "objective_mode", "objective_value"),
    *(
        "task",
        "experiment",
        "model",
        "weights",
        "seed",
        "data",
        "data_digest",
        "protocol",
        "split_seed",
        "fold",
    ),
    *("split_digest", "test_digest", "train_images", "val_images", "test_images", "leaked_test_images"),
)
_LAST = (
    *("parameters", "epochs", "best_epoch", "images_per_second", "fit_seconds", "test_seconds"),
    *("total_seconds", "inference_milliseconds", "device", "precision", "git", "error"),
)
_SAME = (
    *("status", "task", "experiment", "model", "weights", "seed", "parameters", "epochs", "best_epoch"),
    *("images_per_second", "inference_milliseconds", "device", "precision", "git", "error"),
)


def _record(summary: Summary) -> dict[str, Any]:
    split, data = summary.split, summary.data
    record = {name: getattr(summary, name) for name in _SAME}
    record |= {"protocol": split.protocol, "split_seed": split.seed, "fold": split.fold}
    record |= {"leaked_test_images": number(split.leaked)}
    record |= {"split_digest": split.digest, "test_digest": split.test_digest}
    record |= {"data": data.name, "data_digest": data.digest}
    learnt = summary.source or data  # an evaluation tests on data that the run has not learnt from
    record |= {f"{part}_images": getattr(learnt, part) for part in ("train", "val")} | {"test_images": data.test}
    record |= {f"{part}_seconds": summary.seconds.get(part) for part in ("fit", "test", "total")}
    record = {key: text(value) if isinstance(value, str) else value for key, value in record.items()}
    scalars = {name: number(value) for name, value in summary.metrics.items() if not isinstance(value, list)}
    return record | {name: value for name, value in scalars.items() if name.startswith(("test/", "val/"))}


def render_text(comparison: Comparison) -> str:
    """The ranking as aligned plain text, then the failures with their reasons."""
    parts = []
    for table in comparison.tables:
        titles, cells = display(table)
        widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
        figures = [all(map(_is_figure, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, figures, strict=True)
            ).rstrip()
            for line in (titles, *cells)
        ]
        notes = [f"Note: {note}" for note in table.notes]
        parts.append("\n".join([heading(table), ranking(table), "", *lines, *notes]))
    analysis = comparison.analysis
    if analysis.protocols or any(record["runs"] > 1 for record in analysis.repeat_records):
        parts += [_plain_block(block) for block in (*analysis.protocols, *analysis.repeats, *analysis.tests)]
    parts += [_plain_block(block) for block in analysis.evaluations]
    if comparison.failures:
        failures = [f"  {item.folder}  {item.status}: {item.reason}" for item in comparison.failures]
        parts.append("\n".join([f"{len(failures)} without a result", *failures]))
    return "\n\n".join(parts) + "\n"


def _plain_block(block: Block) -> str:
    """A block as plain text; the second line of a cell in its first."""
    lines = [[cell.replace("\n", "; ") for cell in line] for line in block.lines]
    widths = [max(map(len, column)) for column in zip(block.titles, *lines, strict=True)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (block.titles, *lines)
    ]
    return "\n".join([block.title, *block.sentences, "", *table])


def _is_figure(cell: str) -> bool:
    return cell == MISSING or re.fullmatch(r"-?[\d.]+(e[+-]\d+)?", cell) is not None


def ranking(table: Table) -> str:
    """The sentence that says by what the rows are ordered, and how many test images leaked."""
    direction = "lower" if table.mode == "min" else "higher"
    ranked = f"Ranked by {table.metric} ({direction} is better)"
    if any(row.run.summary.source for row in table.rows):
        ranked += ", which each run has from its own validation images"
    if len(table.rows) == 1:
        ranked = "One run, so nothing is ranked"
    untested = sum(not row.run.summary.tested for row in table.rows)
    if untested == len(table.rows):
        return f"{ranked}; no run was tested (test=false), busi-eval run=RUN tests the one that you choose."
    leaked = leak_words(table.leaked, table.test_images) if table.leaked else "not recorded"
    some = f"; {untested} of {len(table.rows)} runs were not tested (test=false)" if untested else ""
    return f"{ranked}; the other figures are from the test set{some}; leaked test images {leaked}."


def render_markdown(comparison: Comparison, plots: Mapping[int, Sequence[Path]]) -> str:
    """``table.md``: a section for each table with its ``plots`` (by table number), failures, the paper."""
    finished, failed = sum(len(table.rows) for table in comparison.tables), len(comparison.failures)
    parts = ["# Comparison of runs", f"Finished runs: {finished}. Without a result: {failed}."]
    folds = comparison.analysis.fold_tables
    if plots and folds:
        parts.append("Tables of single folds have no plots.")
    if plots and len(plots) < len(comparison.tables) - len(folds):
        parts.append(f"PNG plots are drawn for the first {len(plots)} tables; compare fewer runs to have all.")
    for block in (*comparison.analysis.protocols, *comparison.analysis.evaluations):
        parts += _markdown_block(block, "##")
    for table in comparison.tables:
        parts += [f"## {_escape(heading(table))}", _escape(opening(table)), *table.notes, _markdown(*display(table))]
        for block in comparison.analysis.clinical.get(table.number, ()):
            parts += _markdown_block(block, "###")
        parts += [f"![{_escape(table.title)}: {plot.stem}]({plot.name})" for plot in plots.get(table.number, ())]
    for block in (*comparison.analysis.repeats, *comparison.analysis.tests):
        parts += _markdown_block(block, "##")
    for pooled in comparison.analysis.pooled:
        parts.append(f"## {_escape(pooled.title)}")
        for block in pooled.blocks:
            parts += _markdown_block(block, "###")
    for pair in pairs(comparison):
        parts += [f"## {_escape(pair.title)}", *pair.sentences, _markdown(pair.titles, pair.lines)]
    if comparison.failures:
        lines = [[item.folder, item.name, item.status, item.reason] for item in comparison.failures]
        parts += ["## Runs without a result", _markdown(["folder", "run", "status", "reason"], lines)]
    titles, lines = published_rows(comparison)
    if lines:
        parts += ["## Published figures", "Each on its own test images, so no ranking across the lines."]
        parts.append(_markdown(titles, lines))
    return "\n\n".join(parts) + "\n"


def published_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of the published figures for the tasks that are compared."""
    tasks = {table.task for table in comparison.tables if table.dataset == PAPER_DATASET}
    if "multitask" in tasks:  # a network for both tasks has no row of its own in the paper
        tasks |= {"classification", "segmentation"}
    shown = {result.name: result for result in PUBLISHED.values() if result.task in tasks}
    published = [*shown.values(), *(result for result in RELATED_WORK if result.task in tasks)]
    metrics = [name for name in TEST_METRICS if any(name in result.metrics for result in published)]
    lines = [
        [r.name, *(figure(r.metrics[m]) if m in r.metrics else MISSING for m in metrics), r.source] for r in published
    ]
    return ["model", *metrics, "source"], lines


def heading(table: Table) -> str:
    """A table's title with the start of its test set's digest."""
    return f"{table.title} (test set {(table.test_digest or 'unknown')[:12]})"


def opening(table: Table) -> str:
    """The sentences above a table: what is compared on which images."""
    runs = f"{table.task} run" if len(table.rows) == 1 else f"{table.task} runs"
    digests = f"test set `{table.test_digest or 'unknown'}`, data `{table.data_digest or 'unknown'}`"
    return (
        f"Compares {len(table.rows)} {runs} on {table.dataset} under the {table.protocol} "
        f"by the same {table.test_images or ''} test images ({digests}). {ranking(table)}"
    )


def _markdown(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [titles, ["---"] * len(titles), *lines]
    return "\n".join("| " + " | ".join(map(_escape, row)) + " |" for row in rows)


def _markdown_block(block: Block, level: str) -> list[str]:
    sentences = [_escape(sentence) for sentence in block.sentences]
    table = [_markdown(block.titles, block.lines)] if block.lines else []
    return [f"{level} {_escape(block.title)}", *sentences, *table]


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", "<br>")
