"""What clinicians ask: operating points, calibration, agreement of lesion areas; parts of other sections."""

from busi_lab.report import words
from busi_lab.report.figures.agreement import calibration
from busi_lab.report.results.clinical import SPECIFICITY, Clinical
from busi_lab.report.results.statistics import ECE_BINS
from busi_lab.report.results.uncertainty import FEW_GROUPS, RESAMPLES
from busi_lab.report.sections.abstention import abstention_part
from busi_lab.report.sections.section import Cell, Grid, Section, count, figure, interval, word
from busi_lab.run_directory import VALIDATION

_RULES = {"specificity": f"specificity of {SPECIFICITY:.0%} or more"}
_NO_VALIDATION = (
    f"No operating point and no temperature without a readable {VALIDATION}, which older versions did not write, "
    "and both classes in it:"
)


def clinical_parts(found: Clinical, which: str, whole: int, pooled: bool = False) -> tuple[Section, ...]:
    """All that is known.

    Args:
        found: the figures.
        which: run or experiment, for words.
        whole: how many there are, of which the best are shown.
        pooled: they are experiments, which needs words on how their runs are joined.
    """
    shown = len(found.subjects)
    few = f"Shown are the best {shown} of {words.counted(whole, which)} by validation." if whole > shown else ""
    sets = abstention_part(found.subjects, "" if pooled else _whose(found, False), pooled)
    parts = (_curves(found), _points(found, pooled), _calibration(found, pooled), sets, _agreement(found))
    known = [part for part in parts if part is not None]
    return tuple(
        Section(part.title, (*part.sentences, *([few] if few else ())), grids=part.grids, groups=part.groups)
        for part in known
    )


def _curves(found: Clinical) -> Section | None:
    if not found.curves:
        return None
    lines = tuple(
        (word(c.label), count(c.positives), count(c.negatives), *map(interval, c.estimates.values()))
        for c in found.curves
    )
    sentences = [
        "From the ROC curve on the test images: the best that any threshold reaches there, so a bound and no promise; "
        f"below it the 95 % interval of {RESAMPLES:,} cluster resamples."
    ]
    if found.joined:
        sentences.append("Each run has a curve of its own, and the figures are means over the runs.")
    if few := [curve.label for curve in found.curves if curve.few]:
        sentences.append(
            f"Fewer than {FEW_GROUPS} groups on a side, so no interval to be trusted: {words.listed(few)}."
        )
    titles = ("run", found.positive, "rest", *found.curves[0].estimates)
    return Section(f"{found.positive.capitalize()} against the rest", tuple(sentences), grids=(Grid(titles, lines),))


def _points(found: Clinical, pooled: bool) -> Section | None:
    if not found.points and not found.lacking:
        return None
    lines = []
    for point in found.points:
        hits, positives, spared, negatives = point.validation
        lines.append(
            (
                word(point.label),
                word(_RULES.get(point.rule, point.rule)),
                Cell(words.spanned(point.thresholds, 4, f"none is {found.positive}"), min(point.thresholds)),
                figure(hits / positives, second=[f"{hits} of {positives}"]),
                figure(spared / negatives, second=[f"{spared} of {negatives}"]),
                interval(point.sensitivity),
                interval(point.specificity),
            )
        )
    sentences = [
        f"A scan is called {found.positive} from the threshold upwards. The threshold is chosen on the validation "
        f"images, the lowest with a specificity of {SPECIFICITY:.0%} or more there or the one with the largest Youden "
        "index; the test images then judge it, with Wilson 95 % intervals for images in groups. The same validation "
        "images chose the best epoch."
    ]
    if pooled:
        sentences.append(
            "Each fold has the threshold that its own validation images choose, and the counts of the folds of the "
            "first pair of seeds are added up."
        )
    if found.lacking:
        sentences = [*(sentences if lines else ()), f"{_NO_VALIDATION} {words.listed(found.lacking)}."]
    titles = ("run", "rule on validation", "threshold", "validation sensitivity", "validation specificity")
    grid = Grid((*titles, "test sensitivity", "test specificity"), tuple(lines))
    return Section("Operating points", tuple(sentences), grids=(grid,) if lines else ())


def _calibration(found: Clinical, pooled: bool) -> Section | None:
    groups = (calibration(found.subjects[0], _whose(found, pooled)),) if found.subjects else ()
    shown = tuple(group for group in groups if group.panels)
    if not found.calibrated:
        return None
    lines = tuple(
        (
            word(each.label),
            Cell(words.spanned(each.temperatures, 2), min(each.temperatures)) if each.temperatures else word(None),
            *map(figure, (*each.errors, *each.brier)),
        )
        for each in found.calibrated
    )
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
    if ends := [each.label for each in found.calibrated if each.at_the_end]:
        sentences.append(
            f"The temperature of {words.listed(ends)} is at the end of its range: read it as no optimum found."
        )
    titles = ("run", "temperature", "ECE before", "ECE after", "Brier before", "Brier after")
    return Section("Calibration", tuple(sentences), grids=(Grid(titles, lines),), groups=shown)


def _whose(found: Clinical, pooled: bool) -> str:
    if pooled:
        return f"All folds of {found.subjects[0].label}. "
    return "Best run by validation. " if len(found.subjects) > 1 else ""


def _agreement(found: Clinical) -> Section | None:
    if not found.agreements:
        return None
    lines = tuple(
        (
            word(each.label),
            count(each.images),
            Cell(words.signed(each.bias, 2), each.bias),
            Cell(words.ends(each.low, each.high, 2, "+"), each.low),
        )
        for each in found.agreements
    )
    sentence = (
        "Predicted minus true area in percentage points of the image (Bland and Altman), over the images with a "
        "lesion; the limits of agreement are the bias with 1.96 standard deviations to either side."
    )
    titles = ("run", "images with a lesion", "bias (points)", "limits of agreement (points)")
    groups = () if found.calibrated else (calibration(found.subjects[0], _whose(found, False)),)
    shown = tuple(group for group in groups if group.panels)
    return Section("Agreement of lesion area", (sentence,), grids=(Grid(titles, lines),), groups=shown)
