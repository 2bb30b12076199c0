"""The published figures for the tasks that are compared on the paper's dataset; none beside phantoms."""

from busi_lab.report import words
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.published import PUBLISHED, RELATED_WORK
from busi_lab.report.sections.section import Cell, Grid, Section, word


def published(analysis: Analysis) -> list[Section]:
    """One section, or none."""
    tasks = {table.task for table in analysis.tables if table.of_the_paper}
    if "multitask" in tasks:  # a network for both tasks has no row of its own in the paper
        tasks |= {"classification", "segmentation"}
    shown = {result.name: result for result in PUBLISHED.values() if result.task in tasks}
    results = [*shown.values(), *(result for result in RELATED_WORK if result.task in tasks)]
    if not results:
        return []
    metrics = [name for name in analysis.metrics if any(name in result.metrics for result in results)]
    lines = tuple(
        (word(result.name), *(_cell(result.metrics.get(name)) for name in metrics), word(result.source))
        for result in results
    )
    sentence = "Each on its own test images, so no ranking across the lines."
    return [Section("Published figures", (sentence,), grids=(Grid(("model", *metrics, "source"), lines),), folded=True)]


def _cell(value: float | None) -> Cell:
    return Cell(words.MISSING) if value is None else Cell(words.published(value), value)
