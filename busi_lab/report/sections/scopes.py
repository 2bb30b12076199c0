"""Words that several sections need: titles of scopes, and the cells of an experiment."""

from collections.abc import Sequence

from busi_lab.report import words
from busi_lab.report.results.analysis import Analysis, Scope
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.metrics import shown_metrics, without_doubles
from busi_lab.report.sections.section import Cell, interval

FACTS = ("runs", "test images", "leaked test images")


def where(scope: Scope) -> str:
    """Data, protocol and test set."""
    test_set = f", test set {scope.digest[:12]}" if scope.digest else ""
    return f"{scope.dataset}, {scope.protocol} protocol{test_set}"


def facts(item: Experiment) -> list[Cell]:
    """Cells under ``FACTS``."""
    second = []
    if item.expected_folds is not None:
        second.append(f"{item.folds} of {item.expected_folds} folds")
    if len(item.repeats) > 1:
        second.append(f"{len(item.repeats)} seeds")
    cases = item.cases
    groups = (words.counted(cases.groups, "group"),) if cases is not None and cases.grouped else ()
    images = Cell(words.MISSING) if cases is None else Cell(str(len(cases)), len(cases), groups)
    return [Cell(str(len(item.rows)), len(item.rows), tuple(second)), images, _leaked(item)]


def _leaked(item: Experiment) -> Cell:
    if item.leaked is None:
        return Cell(words.MISSING, None, ("not looked for",) if item.unsearched else ())
    counts, images = item.leaked
    return Cell(words.leak_counts(counts), max(counts), (words.leak_share(counts, images),) if images else ())


def leaked_words(item: Experiment) -> str | None:
    """``9 of 60 (15 %)``; None where not all runs know."""
    return None if item.leaked is None else words.leaks(*item.leaked)


def figure_names(analysis: Analysis, items: Sequence[Experiment]) -> list[str]:
    """The metrics that any of ``items`` has, as far as their tables show them."""
    of_lesions = {table.classes.accuracy_lesions for table in analysis.tables}
    names = [name for name in shown_metrics(item.classes for item in items) if name not in of_lesions]
    held = [{*item.estimates} or {*item.recorded} for item in items]
    return without_doubles([name for name in names if any(name in own for own in held)], held)


def figure_cells(item: Experiment, names: Sequence[str]) -> list[Cell]:
    """A cell a metric: figure, interval, spread, ensemble."""
    cells = []
    for name in names:
        digits = words.digits_of(name)
        found, recorded = item.estimates.get(name), None if item.estimates else item.recorded.get(name)
        cell = interval(found, digits) if found else Cell(words.figure(recorded, digits), recorded)
        second = list(cell.second)
        if spread := item.spread.get(name):
            kinds = {"folds": spread.folds, "seeds": spread.seeds, "splits": spread.splits}
            second += [words.deviation(value, digits, kind) for kind, value in kinds.items() if value is not None]
        if name in item.ensemble:
            second.append(f"ensemble {words.figure(item.ensemble[name], digits)}")
        cells.append(Cell(cell.text, cell.value, tuple(second)))
    return cells
