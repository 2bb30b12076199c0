"""What clinicians ask of the best runs of a table: operating points, calibration, agreement of lesion areas."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from busi_lab.report.blocks import Block
from busi_lab.report.cases import Cases, read_test_cases, read_validation_cases
from busi_lab.report.estimates import Estimate, estimate
from busi_lab.report.statistics import (
    ECE_BINS,
    TEMPERATURES,
    area_under,
    bland_altman,
    brier_score,
    counts_at,
    expected_calibration_error,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
    threshold_for_specificity,
    weighted_mean,
    weighted_roc,
    youden_threshold,
)
from busi_lab.report.subjects import Subject
from busi_lab.report.tables import MISSING, Table
from busi_lab.report.uncertainty import (
    FEW_GROUPS,
    RESAMPLES,
    Bools,
    Floats,
    cluster_weights,
    effective_groups,
    share_interval,
)
from busi_lab.run_directory import CLASSES, VALIDATION

RUNS_SHOWN = 3
"""Runs of a table at most, best by validation first."""

Counts = tuple[int, int, int, int]
"""True positives, positives, true negatives, negatives."""

_MALIGNANT = CLASSES.index("malignant")
_LEVELS = (0.90, 0.95)
_SPECIFICITY = 0.90  # of the operating point that is chosen on validation
_NO_VALIDATION = (
    f"No operating point and no temperature without a readable {VALIDATION}, which older versions did not write, "
    "and both classes in it:"
)


def subjects_of(table: Table) -> list[Subject]:
    """The best runs of a table."""
    return [Subject(row.label, ((row.run,),)) for row in table.rows[:RUNS_SHOWN]]


def clinical_blocks(subjects: Sequence[Subject], pooled: bool = False) -> tuple[Block, ...]:
    """All that is known for ``subjects``; nothing where none has readable predictions.

    Args:
        subjects: runs, or experiments.
        pooled: they are experiments, which needs words on how their runs are joined.
    """
    blocks = (
        _malignant(subjects),
        _operating_points(subjects, pooled),
        _calibration(subjects, pooled),
        _areas(subjects),
    )
    return tuple(block for block in blocks if block is not None)


def positive_and_score(cases: Cases) -> tuple[Bools, Floats] | None:
    """Malignant or not, and its probability, ``[N]`` each; None where one side is missing."""
    if cases.probabilities is None:
        return None
    positive = cases.actual == _MALIGNANT
    return None if positive.all() or not positive.any() else (positive, cases.probabilities[:, _MALIGNANT])


def _curve_figures(cases: Cases, weights: Floats) -> dict[str, Floats]:
    """Figures of the weighted ROC curve by their titles, ``[B]`` each; none where one side is missing."""
    known = positive_and_score(cases)
    if known is None:
        return {}
    false_rate, true_rate, _ = weighted_roc(*known, weights)
    curve = (false_rate, true_rate)
    return {
        "auroc_malignant": area_under(*curve),
        **{f"sensitivity at {x:.0%} specificity": sensitivity_at_specificity(*curve, x) for x in _LEVELS},
        **{f"specificity at {x:.0%} sensitivity": specificity_at_sensitivity(*curve, x) for x in _LEVELS},
    }


def _malignant(subjects: Sequence[Subject]) -> Block | None:
    lines = []
    titles: list[str] = []
    few = []
    for subject in subjects:
        known = positive_and_score(subject.cases) if subject.cases else None
        if known is None:
            continue
        estimates = estimate(subject.parts, _curve_figures)
        lines.append(
            (subject.label, str(int(known[0].sum())), str(int((~known[0]).sum())), *map(interval, estimates.values()))
        )
        titles = list(estimates)
        few += [subject.label] if any(each.few for each in estimates.values()) else []
    if not lines:
        return None
    sentences = [
        "From the ROC curve on the test images: the best that any threshold reaches there, so a bound and no promise; "
        f"below it the 95 % interval of {RESAMPLES:,} cluster resamples."
    ]
    if any(len(subject.parts) > 1 for subject in subjects):
        sentences.append("Each run has a curve of its own, and the figures are means over the runs.")
    if few:
        sentences.append(f"Fewer than {FEW_GROUPS} groups on a side, so no interval to be trusted: {_list(few)}.")
    return Block("Malignant against the rest", tuple(sentences), ("run", "malignant", "rest", *titles), tuple(lines))


def _rules(positive: Bools, score: Floats) -> dict[str, float]:
    """The thresholds that validation images choose, by the rule's words."""
    return {
        f"specificity of {_SPECIFICITY:.0%} or more": threshold_for_specificity(positive, score, _SPECIFICITY),
        "Youden": youden_threshold(positive, score),
    }


def _operating_points(subjects: Sequence[Subject], pooled: bool) -> Block | None:
    lines: list[tuple[str, ...]] = []
    lacking = []
    for subject in subjects:
        if subject.cases is None or positive_and_score(subject.cases) is None:
            continue
        found: dict[str, list[tuple[float, Counts, Cases]]] = defaultdict(list)
        runs = subject.repeats[0]
        for run in runs:
            test, validation = read_test_cases(run), read_validation_cases(run)
            chosen = positive_and_score(validation) if validation else None
            if chosen and test and test.probabilities is not None:
                for rule, threshold in _rules(*chosen).items():
                    found[rule].append((threshold, counts_at(*chosen, threshold), test))
        if any(len(points) < len(runs) for points in found.values()) or not found:
            lacking.append(subject.label)
            continue
        for rule, points in found.items():
            thresholds, validated, judged = zip(*points, strict=True)
            here = [sum(column) for column in zip(*validated, strict=True)]
            on_validation = [f"{here[i] / here[i + 1]:.3f}\n{here[i]} of {here[i + 1]}" for i in (0, 2)]
            on_test = [interval(each) for each in _judged(thresholds, judged)]
            lines.append((subject.label, rule, _range(thresholds, 4), *on_validation, *on_test))
    if not lines and not lacking:
        return None
    sentences = [
        "A scan is called malignant from the threshold upwards. The threshold is chosen on the validation images, the "
        f"lowest with a specificity of {_SPECIFICITY:.0%} or more there or the one with the largest Youden index; the "
        "test images then judge it, with Wilson 95 % intervals for images in groups. The same validation "
        "images chose the best epoch."
    ]
    if pooled:
        sentences.append(
            "Each fold has the threshold that its own validation images choose, and the counts of the folds of the "
            "first pair of seeds are added up."
        )
    if lacking:
        sentences = [*(sentences if lines else ()), f"{_NO_VALIDATION} {_list(lacking)}."]
    titles = ["run", "rule on validation", "threshold", "validation sensitivity", "validation specificity"]
    titles += ["test sensitivity", "test specificity"]
    return Block("Operating points", tuple(sentences), tuple(titles) if lines else (), tuple(lines))


def _judged(thresholds: Sequence[float], tests: Sequence[Cases]) -> list[Estimate]:
    """Sensitivity and specificity on the test images of folds, each with its own threshold."""
    clusters = np.concatenate([cases.clusters for cases in tests])
    positive = np.concatenate([cases.actual == _MALIGNANT for cases in tests])
    called = np.concatenate(
        [cases.probabilities[:, _MALIGNANT] >= at for at, cases in zip(thresholds, tests, strict=True)]  # type: ignore[index]
    )
    weights = cluster_weights(clusters)
    found = []
    for side, right in ((positive, called), (~positive, ~called)):
        values = np.where(side, right.astype(np.float64), np.nan)
        share, groups = float(right[side].mean()), effective_groups(clusters, side)
        ends = share_interval(share, weighted_mean(values, weights), int(side.sum()), groups)
        found.append(Estimate(share, *ends, len(set(clusters[side].tolist()))))
    return found


def _range(values: Sequence[float], digits: int) -> str:
    ends = dict.fromkeys("none is malignant" if np.isinf(v) else f"{v:.{digits}f}" for v in (min(values), max(values)))
    return " to ".join(ends)


def _calibration(subjects: Sequence[Subject], pooled: bool) -> Block | None:
    lines, ends = [], []
    for subject in subjects:
        found = subject.calibration
        if found is None:
            continue
        figures = []
        for measure in (expected_calibration_error, brier_score):
            for probabilities in (found.probabilities, found.scaled):
                known = None if probabilities is None else measure(probabilities, found.cases.actual)
                figures.append(MISSING if known is None else f"{known:.3f}")
        lines.append((subject.label, _range(found.temperatures, 2) if found.temperatures else MISSING, *figures))
        if any(not 1.01 * TEMPERATURES[0] < each < 0.99 * TEMPERATURES[1] for each in found.temperatures):
            ends.append(subject.label)
    if not lines:
        return None
    sentences = [
        f"ECE is over {ECE_BINS} bins of equal width of the largest probability; the Brier score is the sum over the "
        "classes of squared errors, so from 0 to 2. Less is better. After: with the temperature that fits the "
        "validation images best (least negative log likelihood); above 1 it lowers confidence, and the predicted "
        "classes stay."
    ]
    if pooled:
        sentences.append(
            "Each fold has the temperature of its own validation images; the figures are of the first pair of seeds, "
            "because probabilities averaged over seeds are less confident than those of any run."
        )
    if ends:
        sentences.append(f"The temperature of {_list(ends)} is at the end of its range: read it as no optimum found.")
    titles = ("run", "temperature", "ECE before", "ECE after", "Brier before", "Brier after")
    return Block("Calibration", tuple(sentences), titles, tuple(lines))


def areas(cases: Cases) -> tuple[Floats, Floats] | None:
    """Predicted and true lesion area in percent of the image, of images with a lesion; None for fewer than two."""
    if not cases.masks:
        return None
    lesion, predicted, pixels = (cases.masks[name] for name in ("lesion_pixels", "predicted_pixels", "pixels"))
    known = (lesion > 0) & (pixels > 0) & np.isfinite(predicted)
    if known.sum() < 2:
        return None
    return 100 * predicted[known] / pixels[known], 100 * lesion[known] / pixels[known]


def _areas(subjects: Sequence[Subject]) -> Block | None:
    lines = []
    for subject in subjects:
        known = areas(subject.cases) if subject.cases else None
        if known is not None:
            bias, low, high = bland_altman(*known)
            lines.append((subject.label, str(len(known[0])), f"{bias:+.2f}", f"{low:+.2f} to {high:+.2f}"))
    if not lines:
        return None
    sentence = (
        "Predicted minus true area in percentage points of the image (Bland and Altman), over the images with a "
        "lesion; the limits of agreement are the bias with 1.96 standard deviations to either side."
    )
    titles = ("run", "images with a lesion", "bias (points)", "limits of agreement (points)")
    return Block("Agreement of lesion area", (sentence,), titles, tuple(lines))


def interval(found: Estimate, digits: int = 3) -> str:
    """The figure, and its interval on a second line; without two groups it has none."""
    return f"{found.value:.{digits}f}\n{found.ends(digits)}"


def _list(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
