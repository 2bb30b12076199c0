"""What prediction sets and abstention give; a part of other sections."""

from collections.abc import Sequence

from busi_lab.report import words
from busi_lab.report.figures.abstention import abstention
from busi_lab.report.results.abstention import JudgedSets, abstain, judge_sets
from busi_lab.report.results.conformal import COVERAGE
from busi_lab.report.results.subjects import Subject
from busi_lab.report.sections.section import Cell, Grid, Section, figure, interval, word
from busi_lab.run_directory import VALIDATION


def abstention_part(subjects: Sequence[Subject], which: str, pooled: bool) -> Section | None:
    """The sets and the curves of runs, or of experiments over folds; None without classes.

    Args:
        subjects: best by validation first.
        which: how they were chosen, for the figure.
        pooled: they are experiments over folds.
    """
    curves = [curve for subject in subjects if (curve := abstain(subject)) is not None]
    if not curves:
        return None
    sets = [found for subject in subjects if (found := judge_sets(subject)) is not None]
    lacking = sorted({curve.label for curve in curves} - {found.label for found in sets})
    sentences = _sentences(sets, pooled) if sets else []
    if lacking:
        sentences.append(
            f"No prediction sets without a readable {VALIDATION}, which older versions did not write: "
            f"{words.listed(lacking)}."
        )
    group = abstention(curves, which)
    return Section(
        "Prediction sets and abstention", tuple(sentences), grids=(_grid(sets),) if sets else (), groups=(group,)
    )


def _sentences(sets: Sequence[JudgedSets], pooled: bool) -> list[str]:
    sentences = [
        f"A set holds each class that is as probable as in the surest {COVERAGE:.0%} of the validation images of that "
        "class, with the correction for their number (split conformal prediction by class), so that the true class is "
        f"in it for {COVERAGE:.0%} or more of the scans of each class. Coverage is the share of test images whose set "
        "holds their class, with Wilson 95 % intervals for images in groups; smaller sets say more.",
        "What weakens the guarantee: the validation images have also chosen the best epoch, and where a split is "
        "random, near-copies and images of one patient stand in training and validation as well, so that validation is "
        "easier than new patients are.",
    ]
    if pooled:
        sentences.append(
            "Each fold has the thresholds of its own validation images, and no image is tested by a network or a "
            "threshold that has seen it; the sets of the folds of the first pair of seeds are counted together."
        )
    sentences += [
        f"{found.label}: {words.listed(found.always)} {'is' if len(found.always) == 1 else 'are'} in every set"
        f"{' of a fold' if pooled else ''}, because too few validation images allow no threshold."
        for found in sets
        if found.always
    ]
    return sentences


def _grid(sets: Sequence[JudgedSets]) -> Grid:
    names = list(dict.fromkeys(name for found in sets for name in found.by_class))
    lines = tuple(
        (
            word(found.label),
            interval(found.coverage),
            *(interval(found.by_class.get(name)) for name in names),
            figure(found.size, 2),
            Cell(words.percent(found.single), found.single),
            Cell(words.percent(found.empty), found.empty),
        )
        for found in sets
    )
    titles = ("run", f"coverage (stated {COVERAGE:.2f})", *(f"coverage {name}" for name in names))
    return Grid((*titles, "classes in a set", "sets of one class", "empty sets"), lines)
