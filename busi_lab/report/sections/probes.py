"""What an evaluation's probes say: stress, shortcuts and explanations."""

from busi_lab.report import words
from busi_lab.report.figures.curves import ladders as ladder_curves
from busi_lab.report.results import probes as results
from busi_lab.report.results.evaluations import Evaluation
from busi_lab.report.results.probes import Shortcuts
from busi_lab.report.results.uncertainty import FEW_GROUPS
from busi_lab.report.sections.section import Grid, Section, count, figure, interval, word


def stress(item: Evaluation) -> Section | None:
    """The main figure as scans get worse, with its curves."""
    name = results.main_figure(item)
    ladders = results.ladders_of(item, name)
    if not ladders or not next(iter(ladders.values()))[0]:
        return None
    worst = min(ladders, key=lambda ladder: ladders[ladder][-1])
    sentences = [
        f"Robustness {words.figure(results.robustness(ladders))}: {name} under stress as a share of the "
        f"{words.figure(ladders[worst][0])} on the scans as they are, the mean over all ladders and severities. "
        f"The lowest at the highest severity is {worst}, {words.figure(ladders[worst][-1])}."
    ]
    share = results.most_frequent(item)
    if name == "accuracy" and share is not None:
        sentences.append(f"Always naming the most frequent class would have an accuracy of {words.figure(share)}.")
    steps = max(len(values) for values in ladders.values())
    titles = ("ladder", *(f"severity {i}" if i else "as it is" for i in range(steps)))
    lines = tuple((word(ladder), *map(figure, values)) for ladder, values in ladders.items())
    positive = item.cases.classes.auroc_positive if item.cases else None
    other = positive if name == "accuracy" else "iou"
    known = {name: ladders} | ({other: found} if other and (found := results.ladders_of(item, other)) else {})
    title = f"{item.label}: under stress ({name})"
    grid = Grid(titles, lines)
    return Section(title, tuple(sentences), grids=(grid,), groups=(ladder_curves(known),), terminal=True)


def shortcuts(item: Evaluation) -> Section | None:
    """What a run sees without the lesion."""
    found = results.shortcuts(item)
    if found is None:
        return None
    names = list(found.conditions[0].figures)
    lines = tuple(
        (word(each.name), count(each.images), *(interval(each.figures[name]) for name in names))
        for each in found.conditions
    )
    classes = item.cases.classes if item.cases else None
    sentences = (
        "Scans with a lesion alone. Blanked: a box round the lesion, a tenth larger, is filled with the gray level "
        "round it. Alone: everything but the lesion is gray. The network has not learnt from such scans, so that a "
        "part of any loss is their strangeness.",
        _verdict(
            found, (classes.positive if classes else None) or "positive", (classes and classes.negative) or "rest"
        ),
    )
    grid = Grid(("scans", "images", *names), lines)
    return Section(f"{item.label}: shortcuts", sentences, grids=(grid,), terminal=True)


def _verdict(found: Shortcuts, positive: str, negative: str) -> str:
    area, accuracy = found.area, found.accuracy
    told = f"AUROC {words.figure(area.value)}, 95 % {words.ends(area.low, area.high)}, where chance is 0.5; accuracy"
    told += f" {words.figure(accuracy.value)}, where always naming the more frequent class has"
    told += f" {words.figure(found.share)}"
    if area.few or accuracy.few:
        return (
            f"Fewer than {FEW_GROUPS} groups of a class are too few to say what the run sees without the lesion "
            f"({told})."
        )
    if area.low > 0.5 or accuracy.low > found.share:
        what = "Accuracy survives" if accuracy.low > found.share else "The ranking, not the accuracy, survives in part"
        return (
            f"{what} without the lesion: the run still tells {positive} from {negative} ({told}). It reads what lies "
            "beside the lesion, such as shadows, calipers or the choice of the section, or the size of the blanked box."
        )
    return f"Without the lesion the run does not tell {positive} from {negative} ({told})."


def explanations(item: Evaluation) -> Section | None:
    """Where maps of what speaks for a class have their weight."""
    found = results.explained(item)
    if not found:
        return None
    sentence = (
        "Maps of what speaks for the predicted class, over the scans with a lesion: how often their highest point lies "
        "in the lesion (pointing game), and which share of their sum does. A map that knows nothing of the scan would "
        "have the lesion's share of the scan in both."
    )
    titles = ("method", "highest point in the lesion", "sum in the lesion", "lesion's share of the scan")
    lines = tuple((word(each.method), *map(figure, (each.pointing, each.energy, each.chance))) for each in found)
    return Section(f"{item.label}: explanations", (sentence,), grids=(Grid(titles, lines),), terminal=True)
