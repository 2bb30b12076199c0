"""Calibration, and agreement in lesion area, of one run or of an experiment's folds."""

from busi_lab.report import words
from busi_lab.report.figures.reliability import reliability_panel
from busi_lab.report.figures.shapes import Axis, Group, Panel, Plot, Series
from busi_lab.report.results.clinical import areas
from busi_lab.report.results.statistics import ECE_BINS, bland_altman, calibration_error, surest
from busi_lab.report.results.subjects import Subject
from busi_lab.report.results.uncertainty import Bools, Floats


def calibration(subject: Subject, which: str) -> Group:
    """Reliability before and after temperature scaling, and a Bland-Altman plot; empty without predictions."""
    panels = [panel for panel in (_reliability(subject), _agreement(subject)) if panel is not None]
    caption = (
        f"{which}Reliability: accuracy against mean confidence in {ECE_BINS} bins of equal width, a "
        "mark's area grows with its images; on the diagonal, confidence is right. Agreement: a mark is an image with a "
        "lesion; lines are the bias and the limits that hold 95 % of normal differences."
    )
    return Group("Calibration and agreement", caption, tuple(panels))


def _reliability(subject: Subject) -> Panel | None:
    found = subject.calibration
    if found is None:
        return None
    curves: list[tuple[str, Floats, Bools]] = []
    kinds: tuple[tuple[str, Floats | None], ...] = (("as predicted", found.probabilities), ("scaled", found.scaled))
    for told, probabilities in kinds:
        if probabilities is None:
            continue
        confidence, right = surest(probabilities, found.cases.actual)
        error = words.figure(calibration_error(confidence, right))
        one = curves and len(found.temperatures) == 1
        scaled = f" with temperature {words.figure(found.temperatures[0], 2)}" if one else ""
        curves.append((f"{told}{scaled}: ECE {error}", confidence, right))
    return reliability_panel(subject.label, curves, ("confidence (largest probability)", "accuracy"))


def _agreement(subject: Subject) -> Panel | None:
    known = areas(subject.cases) if subject.cases else None
    if known is None:
        return None
    measured, true = known
    bias, low, high = bland_altman(measured, true)
    points = Series(((measured + true) / 2).tolist(), (measured - true).tolist(), 0, False, "o")
    x, y = Axis("mean of predicted and true area (%)"), Axis("predicted - true (points)")
    limits = words.ends(low, high, 2, "+")
    alt = (
        f"Bland-Altman plot of lesion area, {subject.label}: bias {words.signed(bias, 2)} percentage points, "
        f"limits of agreement {limits}, {len(true)} images"
    )
    plot = Plot((points,), x, y, 2.6, levels=(bias, low, high))
    return Panel(f"{subject.label}: agreement of lesion area", (plot,), alt)
