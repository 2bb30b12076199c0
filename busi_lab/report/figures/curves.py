"""Curves of runs: confusion matrices, ROC and precision-recall, learning, stress."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from busi_lab.report import words
from busi_lab.report.figures.shapes import GRAY, Axis, Group, Matrix, Panel, Plot, Series
from busi_lab.report.figures.title import headline, selection
from busi_lab.report.results.cases import Cases, read_test_cases
from busi_lab.report.results.statistics import Roc, precision_recall
from busi_lab.report.results.tables import Row, Table

COLOURED = 5
"""Curves in colours of their own in one plot; further ones are gray."""


def matrix_panel(title: str, names: tuple[str, ...], counts: Sequence[Sequence[float]]) -> Panel:
    """One confusion matrix."""
    told = "; ".join(
        f"actual {name}: " + ", ".join(f"{count:g} {called}" for called, count in zip(names, line, strict=True))
        for name, line in zip(names, counts, strict=True)
    )
    return Panel(title, (Matrix(names, counts),), f"Confusion matrix of {title}. {told}")


def matrices(table: Table, shown: int) -> Group:
    """Confusion matrices of the best runs."""
    known = [(row, counts) for row in table.rows if (counts := row.confusion()) is not None][:shown]
    panels = tuple(matrix_panel(row.label, row.classes.names, counts) for row, counts in known)
    caption = (
        f"{selection(table, shown)}Rows are the actual class, columns the predicted one: images, and their share of "
        "the actual class."
    )
    return Group("Confusion matrices", caption, panels, (), f"table{table.number}_confusion", headline(table))


def roc_panel(title: str, curves: Iterable[tuple[str, Roc | None]], coloured: int = COLOURED) -> Panel | None:
    """The first ``coloured`` curves in colours of their own, further ones in gray; None without a curve."""
    known = [(label, curve) for label, curve in curves if curve is not None]
    if not known:
        return None
    series = tuple(
        Series(
            curve.false_positive_rate.tolist(),
            curve.true_positive_rate.tolist(),
            i if i < coloured else GRAY,
            thin=i >= coloured,
        )
        for i, (_, curve) in enumerate(known)
    )
    legend = [(i, f"{label}: AUROC {words.figure(curve.auc)}") for i, (label, curve) in enumerate(known[:coloured])]
    if others := [curve.auc for _, curve in known[coloured:]]:
        legend.append((GRAY, f"{len(others)} more in gray: AUROC {words.spanned(others, 3)}"))
    plot = Plot(
        series, Axis("false positive rate", -0.01, 1.01), Axis("true positive rate", -0.01, 1.01), diagonal=True
    )
    return Panel(title, (plot,), f"ROC curves. {'; '.join(told for _, told in legend)}", tuple(legend))


def class_curves(cases: Cases) -> dict[str, Panel]:
    """``roc`` and ``pr``: each class against the rest."""
    names = cases.classes.names
    found = {"roc": roc_panel("ROC, each class against the rest", ((name, cases.roc(name)) for name in names))}
    series: list[Series] = []
    legend: list[tuple[int, str]] = []
    for name, points in pr_points(cases).items():
        series.append(Series(*points, style=len(series)))
        legend.append((len(legend), name))
    plot = Plot(tuple(series), Axis("recall", -0.01, 1.01), Axis("precision", -0.01, 1.01))
    found["pr"] = Panel("Precision over recall, each class", (plot,), "Precision over recall", tuple(legend))
    return {key: panel for key, panel in found.items() if panel is not None and panel.legend}


def pr_points(cases: Cases) -> dict[str, tuple[list[float], list[float]]]:
    """Recall and precision of each class that has images."""
    assert cases.probabilities is not None
    found = {}
    for column, name in enumerate(cases.classes.names):
        points = precision_recall(cases.actual == column, cases.probabilities[:, column])
        if points is not None:
            found[name] = (points[0].tolist(), points[1].tolist())
    return found


def roc(table: Table, shown: int) -> Group:
    """One against rest for the best run that has predictions; the positive class against the rest for all."""
    cases = ((row, read_test_cases(row.run)) for row in table.rows[:shown])
    found = [(row, known) for row, known in cases if known is not None and known.probabilities is not None]
    panels = []
    if found:
        row, best = found[0]
        curves = [(name, best.roc(name)) for name in best.classes.names]
        panels.append(roc_panel(f"{row.label}: each class against the rest", curves))
    positive = table.classes.positive
    if len(found) > 1 and positive:  # runs that are evaluated together may know other classes
        curves = [(row.label, known.roc(positive)) for row, known in found if positive in known.classes.names]
        panels.append(roc_panel(f"All runs: {positive} against the rest", curves))
    caption = (
        "From the probabilities in predictions.csv; AUROC is the area under the curve: 0.5 is chance, 1 is perfect."
    )
    return Group("ROC curves", caption, tuple(panel for panel in panels if panel))


def learning(table: Table, shown: int) -> Group:
    """A panel a run: the objective above the losses, by epoch from 1, one scale for all."""
    objective = [table.metric] if table.metric != "val/loss" else []
    losses = ["train/loss", "val/loss"]
    rows = [row for row in table.rows if not row.evaluated][:shown]
    curves = [(row, {name: row.curve(name) for name in [*objective, *losses]}) for row in rows]
    curves = [(row, lines) for row, lines in curves if any(epochs for epochs, _ in lines.values())]
    scales = {
        names[0]: _scale([value for _, lines in curves for name in names for value in lines[name][1]])
        for names in (objective, losses)
        if names
    }
    panels = tuple(_learning_panel(row, lines, [objective, losses], scales) for row, lines in curves)
    caption = f"{selection(table, shown)}One scale for all; the dotted upright line is the best epoch."
    legend = [*((2, name) for name in objective), (0, "training loss"), (1, "validation loss")]
    return Group("Learning curves", caption, panels, tuple(legend), f"table{table.number}_curves", headline(table))


def _learning_panel(
    row: Row,
    lines: Mapping[str, tuple[list[float], list[float]]],
    groups: Sequence[Sequence[str]],
    scales: Mapping[str, Axis],
) -> Panel:
    best, last = words.epoch(row.run.summary.best_epoch), max(max(x, default=0.0) for x, _ in lines.values()) + 1
    shapes = []
    for names in groups:
        if not any(lines[name][0] for name in names):
            continue
        of_losses = len(names) > 1
        series = tuple(
            Series([x + 1 for x in lines[name][0]], lines[name][1], i if of_losses else 2)
            for i, name in enumerate(names)
        )
        epochs = Axis("epoch" if of_losses else "", 0.5 - 0.03 * last, 1.03 * last + 0.5, whole=True)
        title = "loss" if of_losses else names[0]
        uprights = () if best is None else (float(best),)
        shapes.append(Plot(series, epochs, scales[names[0]], 1.9 if of_losses else 1.5, uprights, title=title))
    count = max(len(x) for x, _ in lines.values())
    told = "not recorded" if best is None else f"{best}"
    return Panel(row.label, tuple(shapes), f"Learning curves of {row.label} over {count} epochs; best epoch {told}")


def _scale(values: Sequence[float]) -> Axis:
    """Lowest and highest value with a margin; a logarithmic scale where a diverged run dwarfs the rest."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low > 0 and high > 20 * statistics.median(values):
        return Axis("", low / 1.3, high * 1.3, log=True)
    margin = 0.05 * (high - low) or 0.05
    return Axis("", low - margin, high + margin)


def ladders(figures: Mapping[str, Mapping[str, Sequence[float]]]) -> Group:
    """A panel for each ladder of an evaluation under stress.

    Args:
        figures: metric -> ladder -> figure at severity 0 and up; the ladders of the first metric are drawn.
    """
    panels = []
    for ladder in next(iter(figures.values())):
        held = {name: found[ladder] for name, found in figures.items() if ladder in found}
        series = tuple(
            Series(list(range(len(values))), values, i, marker="os"[i % 2]) for i, values in enumerate(held.values())
        )
        told = ", ".join(
            f"{name} from {words.figure(values[0])} to {words.figure(values[-1])}" for name, values in held.items()
        )
        plot = Plot(series, Axis("severity", whole=True), Axis("", 0, 1.02), 1.9)
        panels.append(Panel(ladder, (plot,), f"{ladder}: {told}"))
    caption = "Severity 0 is the scan as it is; 5 is extreme, but met in practice. One scale for all."
    return Group("Curves", caption, tuple(panels), tuple((i, name) for i, name in enumerate(figures) if figures[name]))
