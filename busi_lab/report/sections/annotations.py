"""What annotations are worth, where runs differ in the share of annotated training scans."""

from busi_lab.report import words
from busi_lab.report.figures.annotations import annotation_panels
from busi_lab.report.results.analysis import Analysis, Scope
from busi_lab.report.results.annotations import AnnotationCurve, annotation_curves
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.sections.scopes import where
from busi_lab.report.sections.section import Cell, Grid, Section, count, figure, interval, word

METRICS = ("accuracy", "f1", "auroc_malignant", "dice")
"""Test figures that are shown, where runs have them."""


def annotations(analysis: Analysis) -> list[Section]:
    """A section for each scope with such runs."""
    found = [(scope, annotation_curves(scope.experiments)) for scope in analysis.scopes]
    return [_section(number, *each) for number, each in enumerate(each for each in found if each[1])]


def _section(number: int, scope: Scope, curves: list[AnnotationCurve]) -> Section:
    metrics = [name for name in METRICS if any(curve.figures(name)[0] for curve in curves)]
    lines = tuple(
        (
            word(curve.name),
            Cell(f"{share:.0%}", share),
            count(len(item.rows)),
            _training_scans(item),
            *(
                interval(item.estimates[name]) if name in item.estimates else figure(item.recorded.get(name))
                for name in metrics
            ),
        )
        for curve in curves
        for share, item in curve.points
    )
    titles = ("experiment", "annotated", "runs", "training scans", *metrics)
    few = [share for curve in curves for share, item in curve.points if len(item.rows) == 1]
    sentences = [
        f"{words.counted(len(curves), 'experiment')} with parts of the training scans annotated, whole patients and "
        "groups of near-copies, the same for all; a smaller part lies in each larger one. The scans of the other "
        "part have neither label nor mask for the network."
    ]
    if few:
        sentences.append(
            "Single runs stand here: with another seed, and with other annotated scans, a figure would be another one; "
            "the intervals know the test images alone."
        )
    if uneven := [curve.name for curve in curves if curve.uneven]:
        sentences.append(
            f"Not every share has the same folds and seeds, so that figures differ by these as well: "
            f"{words.some(uneven)}."
        )
    group = annotation_panels(curves, metrics, f"annotations{number or ''}")
    return Section(
        f"What annotations are worth: {where(scope)}",
        tuple(sentences),
        grids=(Grid(titles, lines, sortable=True),),
        groups=(group,),
        terminal=True,
    )


def _training_scans(item: Experiment) -> Cell:
    """Their number; over folds, from the smallest to the largest."""
    counts = [number for row in item.rows if (number := row.run.summary.data.train) is not None]
    if len(set(counts)) < 2:
        return count(counts[0] if counts else None)
    return Cell(f"{min(counts):,} to {max(counts):,}", float(max(counts)))
