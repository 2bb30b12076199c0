"""What an evaluation's probes hold: stress, shortcuts and explanations."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from busi_lab.report.results.cases import read_cases
from busi_lab.report.results.estimates import Estimate, estimate
from busi_lab.report.results.evaluations import Evaluation
from busi_lab.report.words import number
from busi_lab.run_directory import SHORTCUTS, STRESS

BLANKED = "lesion blanked"


def main_figure(item: Evaluation) -> str:
    """The figure that stress is judged by."""
    return "dice" if item.run.summary.task == "segmentation" else "accuracy"


def ladders_of(item: Evaluation, name: str) -> dict[str, list[float]]:
    """Ladder -> the figure at severity 0 and up, of whole ladders."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    try:
        for row in item.rows(STRESS):
            found[row["ladder"]][int(row["severity"])] = float(row[name])
    except (KeyError, ValueError):
        return {}
    clean = found.pop("none", {}).get(0)
    steps = {severity for at in found.values() for severity in at}
    if clean is None or not all(np.isfinite([clean, *(value for at in found.values() for value in at.values())])):
        return {}
    whole = {ladder: at for ladder, at in found.items() if at.keys() == steps}
    return {ladder: [clean, *(at[severity] for severity in sorted(steps))] for ladder, at in whole.items()}


def robustness(ladders: Mapping[str, Sequence[float]]) -> float:
    """Mean over ladders and severities of a figure under stress, as a share of the figure of the scans as they are."""
    return float(np.mean([np.mean(values[1:]) / values[0] for values in ladders.values()]))


def most_frequent(item: Evaluation) -> float | None:
    """The accuracy of always naming the most frequent class; None without images."""
    cases = item.cases
    return None if cases is None else float(np.unique(cases.actual, return_counts=True)[1].max() / len(cases))


@dataclass(frozen=True)
class Condition:
    """Figures of scans of which a part is hidden: of lesions alone, by metric name."""

    name: str
    images: int
    figures: Mapping[str, Estimate]


@dataclass(frozen=True)
class Shortcuts:
    """What a run sees without the lesion; ``share`` is the accuracy of naming the more frequent class."""

    conditions: tuple[Condition, ...]
    accuracy: Estimate
    area: Estimate
    share: float


def shortcuts(item: Evaluation) -> Shortcuts | None:
    """What a run sees with the lesion blanked, and in other conditions; None without such predictions."""
    classes = item.run.summary.data.roles
    accuracy, area = classes.accuracy_lesions or "accuracy", classes.auroc_positive
    rows_of: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in item.rows(SHORTCUTS):
        rows_of[row.get("condition", "")].append(row)
    found, share = [], 0.0
    for name, rows in rows_of.items():
        cases = read_cases(lambda rows=rows: rows, classes)  # type: ignore[misc]
        estimates = {} if cases is None else estimate([cases])
        if cases is None or area is None or not {accuracy, area} <= estimates.keys():
            continue
        found.append(Condition(name, len(cases), {accuracy: estimates[accuracy], area: estimates[area]}))
        if name == BLANKED:
            counts = np.bincount(cases.actual, minlength=len(classes.names))
            share = max(counts[classes.number(lesion)] for lesion in classes.lesions) / len(cases)
    blanked = next((condition for condition in found if condition.name == BLANKED), None)
    if blanked is None or area is None:
        return None
    return Shortcuts(tuple(found), blanked.figures[accuracy], blanked.figures[area], share)


@dataclass(frozen=True)
class Explained:
    """How often the highest point of a method's maps lies in the lesion, which share of their sum, and chance."""

    method: str
    pointing: float
    energy: float
    chance: float


def explained(item: Evaluation) -> list[Explained]:
    """Figures of each method that the evaluation has run."""
    metrics = item.run.summary.metrics
    share, found = number(metrics.get("test/lesion_share")), []
    for method in ("gradcam", "occlusion"):
        hit, energy = (number(metrics.get(f"test/{method}_{name}")) for name in ("pointing", "energy"))
        if hit is not None and energy is not None and share is not None:
            found.append(Explained(method, hit, energy, share))
    return found
