"""Lesions found without masks: classifiers judged by their class activation maps, beside networks that learn masks."""

from collections.abc import Sequence

from busi_lab.report.results.analysis import Analysis, Scope
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.metrics import LOCALIZATION_METRICS
from busi_lab.report.sections.section import Cell, Section, count, figure, interval, without_empty, word

LEARNT = {"localization": "labels alone", "segmentation": "masks", "multitask": "labels and masks"}
"""What a task's networks learn of a scan."""


def localization(analysis: Analysis) -> list[Section]:
    """A section for each set of experiments that were judged alike, one of them by its maps."""
    found = []
    for scope in analysis.scopes:
        items = [item for item in scope.experiments if item.table.task in LEARNT]
        if any(item.table.task == "localization" for item in items):
            found.append(_section(scope, items))
    return found


def _section(scope: Scope, items: Sequence[Experiment]) -> Section:
    titles = ["experiment", "learns", "test images", "dice", "iou", "missed_lesions", *LOCALIZATION_METRICS]
    ordered = sorted(items, key=lambda item: -item.estimates["dice"].value if "dice" in item.estimates else 1.0)
    grid = without_empty(titles, [_line(item) for item in ordered], kept=("experiment", "learns"))
    sentences = [
        "Masks of networks that learn labels alone are class activation maps, cut at a fixed share; "
        "no mask was seen in training or chosen by. Dice, IoU and their 95 % intervals are over the images with a "
        "lesion, and the other figures are means over the runs."
    ]
    if not any(item.table.task != "localization" for item in items):
        sentences.append("No network that learns masks was tested on these images.")
    title = f"Lesions found without masks ({scope.dataset}, {scope.protocol})"
    return Section(title, tuple(sentences), grids=(grid,), terminal=True)


def _line(item: Experiment) -> list[Cell]:
    cases = item.cases
    shown = [interval(item.estimates.get(name)) for name in ("dice", "iou")]
    rest = [figure(_mean(item, name)) for name in ("missed_lesions", *LOCALIZATION_METRICS)]
    images = count(None if cases is None else len(cases))
    return [word(item.label), word(LEARNT[item.table.task]), images, *shown, *rest]


def _mean(item: Experiment, name: str) -> float | None:
    values = [value for row in item.rows if (value := row.metric(f"test/{name}")) is not None]
    return sum(values) / len(values) if values else None
