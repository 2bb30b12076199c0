"""What was found: the best model in words that a clinician reads, and which models differ."""

import math
from collections.abc import Sequence
from dataclasses import replace

from busi_lab.report import words
from busi_lab.report.figures import quality
from busi_lab.report.figures.shapes import Group
from busi_lab.report.results.analysis import Analysis, Scope
from busi_lab.report.results.estimates import Estimate
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.headline import Headline, Share, headline
from busi_lab.report.results.metrics import without_doubles
from busi_lab.report.results.pairwise import MEASURES, Difference
from busi_lab.report.results.uncertainty import FEW_GROUPS
from busi_lab.report.sections.scopes import where
from busi_lab.report.sections.section import Section

PHANTOMS = "These are synthetic phantoms: the figures say that the program works, nothing about patients."
_SHOWN = 10  # scopes with findings, and experiments in a figure, at most
_PICTURED = 20  # images of a class, from which a share is told as one pictures it
_PAPER_METRICS = {
    "classification": {"accuracy": "accuracy"},
    "segmentation": {"dice": "Dice", "pixel_accuracy": "pixel accuracy"},
}
_RECORDED = {
    "accuracy": "accuracy {}",
    "f1": "macro F1 {}",
    "f1_present": "F1 {} as the mean over the classes that have images",
    "dice": "mean Dice {} over the images with a lesion",
    "dice_pooled": "Dice {} over all pixels together",
    "pixel_accuracy": "pixel accuracy {}",
}


def findings(analysis: Analysis) -> list[Section]:
    """One section; a part for each task and test set where there are several."""
    kinds = [
        (scope, task, tuple(item for item in scope.experiments if item.table.task == task))
        for scope in analysis.scopes
        for task in dict.fromkeys(item.table.task for item in scope.experiments)
    ]
    kinds.sort(key=lambda kind: kind[2][0].table.evaluated)  # what runs found on their own test images comes first
    told = [_of_scope(number, *kind) for number, kind in enumerate(kinds[:_SHOWN], start=1)]
    if len(told) == 1:
        return [replace(told[0], title="What was found", notes=(words.NOT_A_DEVICE, *told[0].notes))]
    more = len(kinds) - len(told)
    sentences = (
        (f"{words.counted(more, 'further test set')} {'stands' if more == 1 else 'stand'} in the tables alone.",)
        if more
        else ()
    )
    return [Section("What was found", sentences, (words.NOT_A_DEVICE,), parts=tuple(told), terminal=True)]


def _of_scope(number: int, scope: Scope, task: str, items: Sequence[Experiment]) -> Section:
    title = f"{task} on {where(scope)}"
    notes = (PHANTOMS,) if items[0].table.phantoms else ()
    groups = tuple(replace(group, file=f"findings{number}", headline=title) for group in _figures(items))
    return Section(title, tuple(of_experiments(scope, items)), notes, groups=groups, terminal=True)


def of_experiments(scope: Scope, items: Sequence[Experiment]) -> list[str]:
    """What the best of ``items`` by validation found, what tests say of it, and the paper's figures."""
    best = items[0]
    if best.rank == float("inf"):
        none = f"No run recorded {best.table.metric}, so there is no best one."
        return [none, *_recorded_sentences(best)] if len(items) == 1 else [none]
    found = headline(best)
    sentences = [_who(items), *_clinical_sentences(found), *_main_figures(found)]
    if not best.estimates:
        sentences += _recorded_sentences(best)
    sentences += _told_apart(scope.tests, items)
    return [*sentences, *(_beside_the_paper(items) if _has_paper(best) else ())]


def _who(items: Sequence[Experiment]) -> str:
    best, table = items[0], items[0].table
    first = best.rows[0]
    by = "its own validation images" if first.evaluated else "validation"
    values = [row.objective for row in best.rows if row.objective is not None]
    mean = sum(values) / len(values) if values else None
    score = f"{table.metric} {words.figure(mean)}{' as the mean over its runs' if len(values) > 1 else ''}"
    if len(items) == 1:
        return f"{best.label} is the one model here ({score} on {by})."
    others = [item.label for item in items[1:] if item.rank == best.rank]
    level = f", level with {words.listed(others)} and first by name alone" if others else ""
    return f"Best of {len(items)} models on {by} is {best.label} ({score}){level}."


def _clinical_sentences(found: Headline) -> list[str]:
    """Images found, false alarms and masks: first as one pictures them, then as they were counted."""
    positive = found.experiment.classes.positive or ""
    short, counted = [], []
    whose = ", with its first seeds" if found.one_of_several else ""
    if found.found:
        short.append(f"finds {_about(found.found)} {positive} images")
        counted.append(f"{_share(found.found)} {positive} images found")
        calls = [f"{_about(share)} {name}" for name, share in found.alarms]
        short += [f"calls {words.listed(calls)} images {positive}"] if calls else []
        counted += [f"{_share(share)} {name} images called {positive}" for name, share in found.alarms]
    if found.right:
        counted.append(f"{_share(found.right)} images given their class")
    if found.missed:
        counted.append(f"{_share(found.missed)} lesions left out by the masks")
    if found.marked:
        without = found.experiment.classes.without_lesion or "other"
        counted.append(f"{_share(found.marked)} {without} scans with a lesion marked")
    sentences = [f"On the test images it {words.listed(short)}."] if short else []
    sentences += [f"Counted{whose}: {'; '.join(counted)}."] if counted else []
    shares = [found.found, found.right, found.missed, found.marked, *(share for _, share in found.alarms)]
    if any(share.few for share in shares if share):
        sentences.append(f"Of fewer than {FEW_GROUPS} groups of images an interval cannot be trusted.")
    return sentences


def _about(share: Share) -> str:
    """The share as one pictures it, or the counts where they are small."""
    return words.about(share.value) if share.whole >= _PICTURED else f"{share.count} of {share.whole}"


def _share(share: Share) -> str:
    """``38 of 42 (90%, 95 % interval 78% to 96%)``."""
    told = words.percent(share.value, 0)
    if share.low == share.low:
        told += f", 95 % interval {words.percent(share.low, 0)} to {words.percent(share.high, 0)}"
    return f"{share.count} of {share.whole} ({told})"


def _main_figures(found: Headline) -> list[str]:
    """The area under the ROC curve, and Dice, with their intervals."""
    item, sentences = found.experiment, []
    positive = item.classes.positive
    if area := item.estimates.get(item.classes.auroc_positive or ""):
        sentences.append(
            f"It ranks {positive} images above the others with an AUROC of {_with_interval(area)}, where 0.5 is "
            "chance and 1 is perfect."
        )
    if dice := item.estimates.get("dice"):
        sentences.append(
            f"Its masks overlap the true lesions with a mean Dice of {_with_interval(dice)}, where 0 is no overlap and "
            "1 is perfect."
        )
    return sentences


def _with_interval(found: Estimate) -> str:
    few = f", of {words.counted(found.groups, 'group')}, too few to be trusted" if found.few else ""
    ends = words.ends(found.low, found.high)
    told = f"95 % interval {ends}" if math.isfinite(found.low) else ends
    return f"{words.figure(found.value)} ({told}{few})"


def _recorded_sentences(item: Experiment) -> list[str]:
    """What the runs recorded themselves, where there are no predictions to take figures from."""
    known = item.recorded
    names = without_doubles([name for name in _RECORDED if name in known], [{*known}])
    parts = [_RECORDED[name].format(words.figure(known[name])) for name in names]
    if not parts:
        return ["It recorded no test figure."]
    return [f"It recorded {words.listed(parts)} on the test images; without readable predictions there is no interval."]


def _told_apart(tests: Sequence[Difference], items: Sequence[Experiment]) -> list[str]:
    """What the tests between the best model and the others say."""
    best, others = items[0], {id(item) for item in items[1:]}
    told = []
    for measure, name in MEASURES.items():
        kinds: dict[str, list[str]] = {"better": [], "worse": [], "level": [], "few": []}
        for test in tests:
            pair = (test.first, test.second)
            other = pair[1] if pair[0] is best else pair[0]
            if test.measure == measure and best in pair and id(other) in others:
                kinds[_kind(test, pair[0] is best)].append(other.label)
        ways = {
            "better": "significantly better than",
            "worse": "significantly worse than",
            "level": "no significant difference to",
            "few": "too few groups to be tested against",
        }
        found = [f"{way} {words.listed(kinds[kind])}" for kind, way in ways.items() if kinds[kind]]
        told += [f"Tested in pairs on the same images, in {name}: {'; '.join(found)}."] if found else []
    if not told and others:
        told.append("No test compares it with the others: that needs readable predictions on the same images.")
    return told


def _kind(test: Difference, best_first: bool) -> str:
    if test.difference.few:
        return "few"
    if not test.told_apart:
        return "level"
    return "better" if (test.difference.value > 0) == best_first else "worse"


def _has_paper(item: Experiment) -> bool:
    return item.table.of_the_paper and not item.table.evaluated


def _beside_the_paper(items: Sequence[Experiment]) -> list[str]:
    """A sentence for each figure that the paper has for these experiments."""
    known = _PAPER_METRICS.get(items[0].table.task)
    metrics = known or {name: told for task in _PAPER_METRICS.values() for name, told in task.items()}
    sentences = []
    rows = [row for item in items for row in item.rows]
    for name, told in metrics.items():
        seen: dict[str, str] = {}
        for row in sorted(rows, key=lambda row: float("inf") if row.rank is None else row.rank):
            ours, paper = row.metric(f"test/{name}"), row.published.get(name)
            if ours is not None and paper is not None:
                seen.setdefault(row.run.name, f"{row.run.name} {words.figure(ours)} (paper {words.published(paper)})")
        if seen:
            best = "; ".join(seen.values())
            sentences.append(f"Test {told} beside the paper's, best run of each experiment: {best}.")
    return sentences


def _figures(items: Sequence[Experiment]) -> tuple[Group, ...]:
    """The main figures with their intervals: of each experiment, or all of a lone one."""
    classes = items[0].classes
    names = [name for name in ("accuracy", classes.auroc_positive, "dice") if name]
    known = [item for item in items if item.estimates][:_SHOWN]
    if not known:
        return ()
    if len(known) == 1:
        return (quality.own_intervals(known[0], names),)
    figures = {name: held for name in names if (held := [item for item in known if name in item.estimates])}
    few = f" The best {len(known)} of {len(items)} models." if len(known) < len(items) else ""
    return (quality.intervals("The main figures", f"With 95 % intervals; best by validation first.{few}", figures),)
