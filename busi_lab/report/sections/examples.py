"""Scans that the best run of a table got wrong or right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from busi_lab.report import words
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.cases import read_test_cases
from busi_lab.report.results.examples import Example, dice_examples, false_alarms, join, wrong_classes
from busi_lab.report.results.tables import Table
from busi_lab.report.sections.section import Gallery, Section
from busi_lab.run_directory import Run

if TYPE_CHECKING:
    from busi_lab.report.figures.gallery import Picture

MISTAKES_SHOWN = 8
WORST_SHOWN = 4
MIDDLE_SHOWN = BEST_SHOWN = FALSE_ALARMS_SHOWN = 2


def examples(analysis: Analysis, table: Table) -> Section:
    """What the best run got most wrong; where it predicts masks alone, also what is usual and what is best."""
    best = table.rows[0]
    several = len(table.rows) > 1
    who = f"{best.label}, the best run by validation" if several else best.label
    subject = f"{who}," if several else who
    cases = read_test_cases(best.run)
    if cases is None:
        return Section("Mistakes", (f"{subject} has no readable predictions.csv.",))
    classes, masks = cases.probabilities is not None, bool(cases.masks)
    title = "Examples" if masks and not classes else "Mistakes"
    chosen: list[Example] = []
    kinds = []
    if classes:
        chosen += wrong_classes(cases, MISTAKES_SHOWN)
        kinds.append("the wrong predictions with the highest probability" if chosen else "no image has a wrong class")
    overlaps = masks and bool(np.isfinite(cases.masks["dice"]).any())
    if classes and overlaps:
        chosen = join(chosen, dice_examples(cases, WORST_SHOWN))
        kinds.append("the lowest Dice coefficients")
    elif masks and not classes:
        if overlaps:
            chosen += dice_examples(cases, WORST_SHOWN, MIDDLE_SHOWN, BEST_SHOWN)
            kinds.append("the lowest, the median and the highest Dice coefficients")
        if alarms := false_alarms(cases, FALSE_ALARMS_SHOWN):
            chosen += alarms
            kinds.append(f"the {cases.classes.without_lesion} scans with the largest predicted lesion")
    if not chosen:
        return Section(title, (f"{subject} got every test image right.",))
    again = [run for _, run in analysis.again]
    of_it = [run for run in again if run.summary.source and run.summary.source.directory == str(best.run.path)]
    explained = [best.run, *of_it]
    lead = (f"{who}: {', then '.join(kinds)}.",)
    return Section(title, lead, gallery=lambda: hang(best.run, chosen, masks, explained))


def hang(run: Run, chosen: Sequence[Example], with_masks: bool, explained: Sequence[Run]) -> Gallery:
    """The pictures with their words."""
    from busi_lab.report.figures.gallery import dataset_of, pictures_of  # brings OpenCV

    pictures = pictures_of(run, chosen, explained)
    legend = _legend(dataset_of(run) is not None, with_masks, pictures)
    return Gallery((legend,), tuple((picture, verdict(picture.example)) for picture in pictures))


def verdict(example: Example) -> str:
    """What the run made of an image."""
    parts = []
    if example.predicted is not None:
        parts.append(f"predicted {example.predicted}, probability {words.figure(example.probability)}")
    if example.dice is not None:
        parts.append(f"Dice {words.figure(example.dice)} ({example.kind})")
    if example.area is not None:
        parts.append(f"{words.short(100 * example.area, 2)} % of the scan marked as lesion")
    return ", ".join(parts)


def _legend(found: bool, with_masks: bool, pictures: "Sequence[Picture]") -> str:
    """What the lines mean, or why there are none."""
    if not found:
        return "Their scans are not shown, because the dataset's folder is not recorded or no longer there."
    if not any(picture.uri for picture in pictures):
        return "Their scans cannot be read."
    told = "The solid orange line is the lesion's outline from the mask files"
    if with_masks and any(picture.predicted for picture in pictures):
        told += ", the dashed blue line the predicted one"
    elif with_masks:
        told += "; the run has no files of predicted masks"
    methods = dict.fromkeys(method for picture in pictures for method, _ in picture.maps)
    maps = f" The bright parts of a map ({', '.join(methods)}) speak for the predicted class." if methods else ""
    return f"{told}.{maps}"
