"""What evaluations of finished runs say: the drop on other data, and strata; probes are in :mod:`.probes`."""

from collections.abc import Mapping, Sequence

from busi_lab.report import words
from busi_lab.report.results import evaluations as results
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.evaluations import Drop, Evaluation
from busi_lab.report.results.metrics import without_doubles
from busi_lab.report.results.uncertainty import FEW_GROUPS, RESAMPLES
from busi_lab.report.sections import probes
from busi_lab.report.sections.section import Grid, Section, count, difference, interval, word
from busi_lab.run_directory import FEW_IMAGES
from busi_lab.summary import Source


def evaluations(analysis: Analysis) -> list[Section]:
    """Every evaluation in sentences and tables."""
    found = []
    for item in results.evaluations(analysis.comparison):
        kinds = (_drop(item), _strata(item), probes.stress(item), probes.shortcuts(item), probes.explanations(item))
        found += [section for section in kinds if section is not None]
    return found


def _drop(item: Evaluation) -> Section | None:
    """The figures here beside those on the run's own test images."""
    found = results.drop(item)
    if found is None:
        return None
    names = without_doubles([c.name for c in found.changes], [{c.name for c in found.changes}])
    changes = [change for change in found.changes if change.name in names]
    lines = []
    for change in changes:
        digits = words.digits_of(change.name)
        rest = [interval(change.rest, digits)] if found.has_rest else []
        pair = (interval(change.own, digits), interval(change.here, digits))
        lines.append((word(change.name), *pair, *rest, difference(change.gap, digits)))
    apart = ["here without near-copies"] if found.has_rest else []
    titles = ("figure", "own test images", "here", *apart, "difference")
    title = f"{item.label}: against its own test images"
    return Section(
        title, tuple(_drop_sentences(item, found)), grids=(Grid(titles, tuple(lines)),) if lines else (), terminal=True
    )


def _drop_sentences(item: Evaluation, found: Drop) -> list[str]:
    sentences = [_where_from(item, found), *_class_sentences(item, found.counts)]
    classes = item.cases.classes if item.cases else None
    without, positive = (classes.without_lesion, classes.positive) if classes else (None, None)
    if found.kept:
        told = (
            f"Only one of both has {without} scans, so that both are taken without: {found.kept[0]} of the run's own "
            f"test images and {found.kept[1]} here."
        )
        if positive:
            told += (
                f" auroc_{positive} then compares {positive} with the other lesions by the probability of {positive} "
                "alone."
            )
        sentences.append(told)
    if not found.alike:
        lesions = words.listed(classes.lesions if classes else ("a class",)).replace(" and ", ", or ")
        sentences.append(f"Only one of both has {lesions}, scans: figures that mix the classes are not compared.")
    sentences.append(_what_moved(item, found))
    how = "Of different datasets, the two sets of images are resampled apart" if item.other_data else found.relation
    sentences.append(f"{how}; intervals are those of {RESAMPLES:,} resamples of whole groups.")
    if found.has_rest:
        sentences.append(
            "The figures of the images here without those near-copies, which predictions.csv names as near_copy_of, "
            "stand beside; the difference is that of all images."
        )
    return sentences


def _where_from(item: Evaluation, found: Drop) -> str:
    summary, source = item.run.summary, item.run.summary.source or Source()
    own, here = found.images
    if item.leaked is None:
        leaked = "an unknown number have"
    else:
        least = "at least " if item.leaked else ""
        leaked = f"{least}{words.leaks([item.leaked], here)} {'has' if item.leaked == 1 else 'have'}"
    what = "a near-copy" if item.other_data else "a near-copy or the same patient"
    return (
        f"Trained on {words.text(source.data)} under the {words.text(item.split.protocol)} protocol, "
        f"tested there on {own} images and here on {here} of {words.text(summary.data.name)} "
        f"({words.text(summary.split.protocol)} protocol), of which {leaked} {what} among the images that were "
        "learnt from."
    )


def _class_sentences(item: Evaluation, counts: tuple[Mapping[str, int], Mapping[str, int]] | None) -> list[str]:
    """How many images of each class both sides have, and what the figures of lesions alone are."""
    if counts is None or item.cases is None:
        return []
    told, few, classes = [], [], item.cases.classes
    for side, held in zip(("own test images", "here"), counts, strict=True):
        told.append(f"{side} {', '.join(f'{images} {name}' for name, images in held.items())}")
        few += [f"{images} {name} {side}" for name, images in held.items() if 0 < images < FEW_IMAGES]
    sentences = [f"Images of each class: {'; '.join(told)}."]
    if few:
        sentences.append(f"Fewer than {FEW_IMAGES} images of a class say little of it: {', '.join(few)}.")
    names = [name for name in (classes.accuracy_lesions, classes.auroc_lesions) if name]
    if len(names) == 2:
        sentences.append(
            f"{words.listed(names)} are of {words.listed(classes.lesions)} images alone, on both sides: "
            f"the more probable one of both, and the share of {classes.positive} in the probability of both."
        )
    return sentences


def _what_moved(item: Evaluation, found: Drop) -> str:
    classes = item.cases.classes if item.cases else None
    sides = (classes.auroc_positive, classes.auroc_lesions) if classes else ()
    told = []
    for change in found.changes:
        if change.name not in ("accuracy", *sides, "dice"):
            continue
        gap = change.gap
        way = "lower" if gap.value < 0 else "higher"
        sure = f"{way} here by {words.figure(abs(gap.value))}" if change.told_apart else "no significant difference"
        if gap.few:
            sure = f"not compared, with {words.counted(gap.groups, 'group')} where {FEW_GROUPS} are needed"
        ends = words.ends(gap.low, gap.high, sign="+")
        told.append(f"{change.name} is {sure} ({words.signed(gap.value)}, 95 % {ends})")
    return f"{'; '.join(told).capitalize()}." if told else "No main figure is defined on both."


def _strata(item: Evaluation) -> Section | None:
    """Figures of the images with and without each flag."""
    found = results.strata(item)
    if not found:
        return None
    names = list(found[0].figures)
    lines = []
    for stratum in found:
        line = [word(stratum.flag), *map(count, stratum.images)]
        for name in names:
            first, second, gap = stratum.figures[name]
            line += [interval(first), interval(second), difference(gap)]
        lines.append(tuple(line))
    titles = ["flag", "images with", "images without"]
    titles += [f"{name} {side}" for name in names for side in ("with", "without", "difference")]
    few = [stratum.flag for stratum in found if stratum.few]
    grid = Grid(tuple(titles), tuple(lines))
    return Section(f"{item.label}: strata", tuple(_strata_sentences(few)), grids=(grid,), terminal=True)


def _strata_sentences(few: Sequence[str]) -> list[str]:
    sentences = [
        "Each image with a flag against all without it; an interval of the difference that holds 0 says that the "
        f"two do not differ significantly. Intervals are those of {RESAMPLES:,} resamples of whole groups, not "
        "corrected for the number of flags. Flags go along with classes and with each other, so a difference need not "
        "come from the flag itself."
    ]
    if few:
        sentences.append(
            f"Fewer than {FEW_GROUPS} groups on one side of a figure, so without its difference: {', '.join(few)}."
        )
    return sentences
