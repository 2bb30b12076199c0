"""The published figures for the tasks that are compared on the paper's dataset; none beside phantoms."""

from busi_lab.report import words
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.published import PUBLISHED, PublishedResult
from busi_lab.report.sections.section import Cell, Grid, Section, word


def published(analysis: Analysis) -> list[Section]:
    """One section, or none."""
    tasks = {table.task for table in analysis.tables if table.of_the_paper}
    if "multitask" in tasks:  # a network for both tasks stands beside those for one
        tasks |= {"classification", "segmentation"}
    if "classification" in tasks:  # classes are all that these learn
        tasks.add("localization")
    each = {id(result): result for result in PUBLISHED.values()}  # the paper has one row for two ways with VGG16
    results = [result for result in each.values() if result.task in tasks and (result.metrics or result.ranges)]
    if not results:
        return []
    held = dict.fromkeys(name for result in results for name in (*result.metrics, *result.ranges))
    names = [*(name for name in analysis.metrics if name in held), *(n for n in held if n not in analysis.metrics)]
    lines = tuple(line for result in results for line in _lines(result, names))
    sentence = "Each on its own test images, so no ranking across the lines."
    titles = ("model", *names, "source", "test images")
    return [Section("Published figures", (sentence,), grids=(Grid(titles, lines),), folded=True)]


def _lines(result: PublishedResult, names: list[str]) -> list[tuple[Cell, ...]]:
    """A line for the source itself, and one for what another source prints of it."""
    cells = [Cell(figure_of(result, name), result.metrics.get(name)) for name in names]
    source = Cell(result.source, result.source, (result.note,) if result.note else ())
    found = [(word(result.name), *cells, source, word(result.test_set))]
    if quoted := result.quoted:
        cells = [Cell(words.published(v), v) if (v := quoted.metrics.get(n)) else Cell(words.MISSING) for n in names]
        source = word(f"quoted by {quoted.source}")
        found.append((word(result.name), *cells, source, word(quoted.test_set)))
    return found


def figure_of(result: PublishedResult, name: str) -> str:
    """A published figure with its spread, or the range of several networks; a dash where none was read."""
    if name in result.ranges:
        return " to ".join(map(words.published, result.ranges[name]))
    if name not in result.metrics:
        return words.MISSING
    spread = f" ± {words.published(result.spread[name])}" if name in result.spread else ""
    return f"{words.published(result.metrics[name])}{spread}"
