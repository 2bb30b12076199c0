"""Panels of calibration and of agreement in lesion area for the best run of a table."""

from busi_lab.report.clinical import areas, subjects_of
from busi_lab.report.statistics import ECE_BINS, bland_altman, expected_calibration_error, reliability
from busi_lab.report.subjects import Subject
from busi_lab.report.svg import LINES, MUTED, WIDTH, Group, Panel, inline_svg, new_figure
from busi_lab.report.tables import Table
from busi_lab.report.uncertainty import Floats

_MARKERS = ("o", "^", "s")


def draw_clinical(table: Table) -> Group:
    """The panels of the best run of ``table``."""
    return draw_subject(subjects_of(table)[0], "Best run by validation.")


def draw_subject(subject: Subject, which: str) -> Group:
    """Reliability before and after temperature scaling, and a Bland-Altman plot; empty without predictions."""
    panels = [panel for panel in (_reliability(subject), _agreement(subject)) if panel is not None]
    caption = (
        f"{which} Reliability: accuracy against mean confidence in {ECE_BINS} bins of equal width, a "
        "mark's area grows with its images; on the diagonal, confidence is right. Agreement: a mark is an image with a "
        "lesion; lines are the bias and the limits that hold 95 % of normal differences."
    )
    return Group("Calibration and agreement", caption, tuple(panels))


def _reliability(subject: Subject) -> Panel | None:
    found = subject.calibration
    if found is None:
        return None
    figure, ax = new_figure(WIDTH, 0.5, 0.45)
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, dashes=(2, 3))
    legend = []
    kinds: tuple[tuple[str, Floats | None], ...] = (("as predicted", found.probabilities), ("scaled", found.scaled))
    for i, (words, probabilities) in enumerate(kinds):
        if probabilities is None:
            continue
        _, confidence, accuracy, count = reliability(probabilities, found.cases.actual)
        colour, dash = LINES[i]
        ax.plot(confidence, accuracy, color=colour, linestyle=dash, linewidth=1.4)
        ax.scatter(confidence, accuracy, 8 + 140 * count / count.sum(), color=colour, marker=_MARKERS[i], alpha=0.75)
        error = expected_calibration_error(probabilities, found.cases.actual)
        scaled = f" with temperature {found.temperatures[0]:.2f}" if i and len(found.temperatures) == 1 else ""
        legend.append((i, f"{words}{scaled}: ECE {error:.3f}"))
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.03, 1.03), xlabel="confidence (largest probability)", ylabel="accuracy")
    alt = f"Reliability diagram of {subject.label}. {'; '.join(words for _, words in legend)}"
    return Panel(f"{subject.label}: reliability", inline_svg(figure), alt, tuple(legend))


def _agreement(subject: Subject) -> Panel | None:
    known = areas(subject.cases) if subject.cases else None
    if known is None:
        return None
    measured, true = known
    bias, low, high = bland_altman(measured, true)
    figure, ax = new_figure(2.6, 0.55, 0.45)
    ax.plot((measured + true) / 2, measured - true, "o", color=LINES[0][0], markersize=4, markeredgecolor="white")
    for value, dash in ((bias, "-"), (low, "--"), (high, "--")):
        ax.axhline(value, color="black", linewidth=1.1, linestyle=dash)
    ax.set(xlabel="mean of predicted and true area (%)", ylabel="predicted - true (points)")
    alt = (
        f"Bland-Altman plot of lesion area, {subject.label}: bias {bias:+.2f} percentage points, "
        f"limits of agreement {low:+.2f} to {high:+.2f}, {len(true)} images"
    )
    return Panel(f"{subject.label}: agreement of lesion area", inline_svg(figure), alt)
