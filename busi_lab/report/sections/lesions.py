"""How far to believe an outline: whether outlined lesions are right as often as their confidence says."""

from itertools import islice

from busi_lab.report import words
from busi_lab.report.figures.reliability import lesion_reliability
from busi_lab.report.results.analysis import Analysis, Scope
from busi_lab.report.results.lesions import FEWEST, RIGHT_IOU, JudgedLesions, judge_lesions
from busi_lab.report.results.statistics import ECE_BINS
from busi_lab.report.results.uncertainty import FEW_GROUPS
from busi_lab.report.sections.scopes import where
from busi_lab.report.sections.section import Cell, Grid, Section, count, figure, interval, word

EXPERIMENTS_SHOWN = 30
"""Experiments of a table at most, best by validation first: thousands of runs have a file each."""


def lesions(analysis: Analysis) -> list[Section]:
    """A section for each scope with runs that have recorded the lesions that they outlined."""
    found = []
    for scope in analysis.scopes:
        judged = (each for item in scope.experiments if (each := judge_lesions(item)) is not None)
        if shown := list(islice(judged, EXPERIMENTS_SHOWN)):
            found.append(_section(scope, shown))
    return found


def _section(scope: Scope, shown: list[JudgedLesions]) -> Section:
    titles = ("experiment", "outlined lesions", "right", "mean confidence", "AUROC of confidence")
    scores = ("Brier before", "Brier after", "ECE before", "ECE after")
    grid = Grid((*titles, *scores), tuple(_line(found) for found in shown), sortable=True)
    which = "Best experiment by validation. " if len(shown) > 1 else ""
    group = lesion_reliability(shown[0], which)
    return Section(f"How far to believe an outline: {where(scope)}", tuple(_sentences(shown)), (), (grid,), (group,))


def _line(found: JudgedLesions) -> tuple[Cell, ...]:
    of, confidence = found.lesions, float(found.lesions.confidence.mean())
    hits = f"{int(of.right.sum())} of {len(of.right)}"
    right = interval(found.right)
    right = Cell(right.text, right.value, (*right.second, hits))
    return (
        word(found.label),
        count(len(of.right)),
        right,
        figure(confidence),
        figure(found.auroc),
        *map(figure, (*found.brier, *found.errors)),
    )


def _sentences(shown: list[JudgedLesions]) -> list[str]:
    sentences = [
        "Each connected part of a predicted mask is an outlined lesion, small ones too. It is right when its IoU with "
        f"the true lesions that it touches is {RIGHT_IOU} or more. Lesions that nothing outlines do not count here. "
        "Behind the share that is right stands Wilson's 95 % interval for images in groups.",
        "Confidence is the mean lesion probability of the outline. Its AUROC is the chance that a right outline has "
        "more of it than a wrong one. The Brier score is the mean squared error of that "
        f"as the chance to be right, from 0 to 1; ECE is over {ECE_BINS} bins of equal width; less is better. After: "
        "with the logistic curve that each run has fitted to the lesions it outlined on its validation images, which "
        "busi-predict applies as well. The same validation images have chosen the best epoch.",
    ]
    if lacking := [found.label for found in shown if found.lesions.calibrated is None]:
        sentences.append(
            f"No curve where a run has outlined fewer than {FEWEST} lesions on validation, or all or none of them "
            f"right: {words.some(lacking)}."
        )
    if few := [found.label for found in shown if found.right.few]:
        sentences.append(f"Fewer than {FEW_GROUPS} groups, so no interval to be trusted: {words.some(few)}.")
    if any(found.runs > 1 for found in shown):
        sentences.append(
            "The lesions of the folds of the first pair of seeds are counted together; each fold has its own curve."
        )
    return sentences
