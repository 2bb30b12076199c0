"""What evaluations of finished runs say: the drop on other data, strata, stress, shortcuts and explanations."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from busi_lab.files import read_rows
from busi_lab.report.blocks import Block
from busi_lab.report.cases import Cases, read_cases, read_test_cases
from busi_lab.report.clinical import interval
from busi_lab.report.estimates import Estimate, difference_of, estimate
from busi_lab.report.pairwise import joint_weights
from busi_lab.report.tables import MISSING, Comparison, leak_words, number, text
from busi_lab.report.uncertainty import FEW_GROUPS, RESAMPLES, Bools, Floats
from busi_lab.run_directory import CLASSES, FEW_IMAGES, FLAGS, SHORTCUTS, STRESS, Run
from busi_lab.summary import Source, SplitRecord

_FIGURES = (
    *("accuracy", "accuracy_without_normal", "f1", "f1_present", "auroc", "auroc_malignant", "auroc_benign_malignant"),
    *("dice", "dice_pooled", "hd95", "hd95_pixels", "hd95_mm"),
)
_DIGITS = {"hd95": 1, "hd95_pixels": 1, "hd95_mm": 2}
_STRATA = ("accuracy", "auroc_malignant", "dice")
_NORMAL = CLASSES.index("normal")

Rows = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, told apart from others by its ``label``."""

    label: str
    run: Run

    @cached_property
    def cases(self) -> Cases | None:
        """The images that were tested."""
        return read_test_cases(self.run)

    @property
    def elsewhere(self) -> bool:
        """Whether the images are not the run's own test images."""
        summary, source = self.run.summary, self.run.summary.source or Source()
        data, test = source.data_digest, self.split.test_digest
        return (data, test) != (summary.data.digest, summary.split.test_digest)

    @property
    def split(self) -> SplitRecord:
        """What the run says of the split that it was trained under."""
        source = self.run.summary.source
        return source.split if source and source.split else SplitRecord()

    def rows(self, name: str) -> Rows:
        """Rows of one of the evaluation's tables; none where it is missing or damaged, as when it was cut."""
        try:
            rows = read_rows(self.run.path / name)
        except (OSError, ValueError, csv.Error):
            return []
        return [] if any(None in row or None in row.values() for row in rows) else rows


def evaluations(comparison: Comparison) -> list[Evaluation]:
    """All evaluations in a comparison, in its order."""
    found = [(row.folder, row.run) for table in comparison.tables for row in table.rows if row.run.summary.source]
    found += comparison.again
    names = [f"{text(run.name)} on {text(run.summary.data.name)}" for _, run in found]
    return [
        Evaluation(name if names.count(name) == 1 else f"{name} ({folder})", run)
        for (folder, run), name in zip(found, names, strict=True)
    ]


def evaluation_blocks(comparison: Comparison) -> tuple[Block, ...]:
    """Every evaluation in sentences and tables."""
    blocks = []
    for item in evaluations(comparison):
        kinds = (_drop(item), _strata(item), _stress(item), _shortcuts(item), _explanations(item))
        blocks += [block for block in kinds if block is not None]
    return tuple(blocks)


def _drop(item: Evaluation) -> Block | None:
    """The figures here beside those on the run's own test images."""
    here, own = item.cases, read_cases(lambda: item.run.source_predictions)
    if not item.elsewhere or here is None or own is None:
        return None
    summary, source = item.run.summary, item.run.summary.source or Source()
    leaked = number(summary.split.leaked)
    others = source.data_digest != summary.data.digest
    sentences = [
        f"Trained on {text(source.data)} under the {text(item.split.protocol)} protocol, tested there on "
        f"{len(own)} images and here on {len(here)} of {text(summary.data.name)} "
        f"({text(summary.split.protocol)} protocol), of which "
        + (
            "an unknown number have"
            if leaked is None
            else f"{'at least ' if leaked else ''}{leak_words([int(leaked)], len(here))} "
            + ("has" if leaked == 1 else "have")
        )
        + (" a near-copy" if others else " a near-copy or the same patient")
        + " among the images that were learnt from."
    ]
    sentences += _class_sentences(own, here)
    normal = [(cases.actual == _NORMAL).any() for cases in (own, here)]
    if normal[0] != normal[1] and own.probabilities is not None and here.probabilities is not None:
        own, here = (cases.take(np.flatnonzero(cases.actual != _NORMAL)) for cases in (own, here))
        if not len(own) or not len(here):
            return None
        sentences.append(
            f"Only one of both has normal scans, so that both are taken without: {len(own)} of the run's own test "
            f"images and {len(here)} here. auroc_malignant then compares malignant with benign by the probability of "
            "malignant alone."
        )
    alike = set(own.actual.tolist()) == set(here.actual.tolist()) or own.probabilities is None
    if not alike:
        sentences.append(
            "Only one of both has benign, or malignant, scans: figures that mix the classes are not compared."
        )
    rest = _without_near_copies(item, here)
    if others:
        own = replace(own, images=_prefixed(own.images), clusters=_prefixed(own.clusters))
    _, own_weights, here_weights, relation = joint_weights(own, here)
    values = [cases.figures(np.ones((1, len(cases)))) for cases in (own, here)]
    estimates = [estimate([cases]) for cases in (own, here)]
    resampled = [cases.figures(weights) for cases, weights in ((own, own_weights), (here, here_weights))]
    lines, told = [], []
    for name in _FIGURES:
        if not all(name in each and np.isfinite(each[name][0]) for each in values):
            continue
        if name.startswith(("accuracy", "f1", "auroc")) and not alike:
            continue
        digits = _DIGITS.get(name, 3)
        pair = [found[name] for found in estimates]
        change = resampled[1][name] - resampled[0][name]
        gap = difference_of(own, here, name, pair[1].value - pair[0].value, change)
        apart = () if rest is None else (interval(rest[name], digits) if name in rest else MISSING,)
        lines.append((name, *(interval(each, digits) for each in pair), *apart, _signed(gap, digits)))
        if name in ("accuracy", "auroc_malignant", "auroc_benign_malignant", "dice"):
            way = "lower" if gap.value < 0 else "higher"
            sure = f"{way} here by {abs(gap.value):.3f}" if gap.low > 0 or gap.high < 0 else "not told apart"
            if gap.few:
                sure = f"not compared, with {gap.groups} groups where {FEW_GROUPS} are needed"
            told.append(f"{name} is {sure} ({gap.value:+.3f}, 95 % {gap.ends(sign='+')})")
    sentences.append(f"{'; '.join(told).capitalize()}." if told else "No main figure is defined on both.")
    how = "Of different datasets, the two sets of images are resampled apart" if others else relation
    sentences.append(f"{how}; intervals are those of {RESAMPLES:,} resamples of whole groups.")
    if rest is not None:
        sentences.append(
            "The figures of the images here without those near-copies, which predictions.csv names as near_copy_of, "
            "stand beside; the difference is that of all images."
        )
    apart = () if rest is None else ("here without near-copies",)
    titles = ("figure", "own test images", "here", *apart, "difference")
    return Block(f"{item.label}: against its own test images", tuple(sentences), titles, tuple(lines))


def _class_sentences(own: Cases, here: Cases) -> list[str]:
    """How many images of each class both sides have, and what the figures of benign and malignant ones are."""
    if own.probabilities is None or here.probabilities is None:
        return []
    told, few = [], []
    for side, cases in (("own test images", own), ("here", here)):
        counts = dict(zip(CLASSES, np.bincount(cases.actual, minlength=len(CLASSES)).tolist(), strict=True))
        told.append(f"{side} {', '.join(f'{count} {name}' for name, count in counts.items())}")
        few += [f"{count} {name} {side}" for name, count in counts.items() if 0 < count < FEW_IMAGES]
    sentences = [f"Images of each class: {'; '.join(told)}."]
    if few:
        sentences.append(f"Fewer than {FEW_IMAGES} images of a class say little of it: {', '.join(few)}.")
    sentences.append(
        "accuracy_without_normal and auroc_benign_malignant are of benign and malignant images alone, on both sides: "
        "the more probable one of both, and the share of malignant in the probability of both."
    )
    return sentences


def _without_near_copies(item: Evaluation, here: Cases) -> dict[str, Estimate] | None:
    """Figures of the images that are no near-copies of what was learnt; None where there are none of either."""
    known = {row["image"] for row in item.run.predictions if row.get("near_copy_of")}
    kept = np.flatnonzero(~np.isin(here.images, sorted(known)))
    return estimate([here.take(kept)]) if 0 < len(kept) < len(here) else None


def _prefixed(
    names: "np.ndarray[tuple[int, ...], np.dtype[np.str_]]",
) -> "np.ndarray[tuple[int, ...], np.dtype[np.str_]]":
    """Names that no other dataset has."""
    return np.array([f"own test {name}" for name in names.tolist()])


def _signed(gap: Estimate, digits: int = 3) -> str:
    return f"{gap.value:+.{digits}f}\n{gap.ends(digits, '+')}"


def _strata(item: Evaluation) -> Block | None:
    """Figures of the images with and without each flag."""
    cases, flags = item.cases, defaultdict(set)
    known = set() if cases is None else set(cases.images.tolist())
    for row in item.rows(FLAGS):
        if row.get("image") in known and (flag := text(row.get("flag"))):
            flags[flag].add(row["image"])
    if cases is None or not flags:
        return None
    names = [name for name in _STRATA if name in cases.figures(np.ones((1, len(cases))))]
    lines, few = [], []
    for flag in sorted(flags, key=lambda flag: (-len(flags[flag]), flag)):
        held = np.isin(cases.images, sorted(flags[flag]))
        parts = [_figures_of(cases, part, names) for part in (held, ~held)]
        line = [flag, f"{int(held.sum())}", f"{int((~held).sum())}"]
        for name in names:
            line += [interval(part[name][0]) if name in part else MISSING for part in parts]
            if any(name not in part or part[name][0].few for part in parts):
                line.append(MISSING)
                few.append(flag)
                continue
            (first, draws), (second, other) = (part[name] for part in parts)
            marked, unmarked = (cases.take(np.flatnonzero(side)) for side in (held, ~held))
            line.append(_signed(difference_of(marked, unmarked, name, first.value - second.value, draws - other)))
        lines.append(tuple(line))
    titles = ["flag", "images with", "images without"]
    titles += [f"{name} {word}" for name in names for word in ("with", "without", "difference")]
    sentences = [
        "Each image with a flag against all without it; an interval of the difference that holds 0 says that the two "
        f"are not told apart. Intervals are those of {RESAMPLES:,} resamples of whole groups, not corrected for the "
        "number of flags. Flags go along with classes and with each other, so a difference need not come from the "
        "flag itself."
    ]
    if few:
        sentences.append(
            f"Fewer than {FEW_GROUPS} groups on one side of a figure, so without its difference: "
            f"{', '.join(dict.fromkeys(few))}."
        )
    return Block(f"{item.label}: strata", tuple(sentences), tuple(titles), tuple(lines))


def _figures_of(cases: Cases, held: Bools, names: Sequence[str]) -> dict[str, tuple[Estimate, Floats]]:
    """Figures of some of the images with their resamples ``[B]``; those that they do not define are left out."""
    part, weights = cases.take(np.flatnonzero(held)), cases.weights()[:, held]
    found, resampled = estimate([part]), part.figures(weights)
    return {name: (found[name], resampled[name]) for name in names if name in found}


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


def _stress(item: Evaluation) -> Block | None:
    name = main_figure(item)
    ladders = ladders_of(item, name)
    if not ladders or not next(iter(ladders.values()))[0]:
        return None
    worst = min(ladders, key=lambda ladder: ladders[ladder][-1])
    clean = ladders[worst][0]
    sentences = [
        f"Robustness {robustness(ladders):.3f}: {name} under stress as a share of the {clean:.3f} on the scans as they "
        "are, the mean over all ladders and severities. "
        f"The lowest at the highest severity is {worst}, {ladders[worst][-1]:.3f}."
    ]
    if name == "accuracy" and item.cases is not None:
        share = np.bincount(item.cases.actual, minlength=len(CLASSES)).max() / len(item.cases)
        sentences.append(f"Always naming the most frequent class would have an accuracy of {share:.3f}.")
    steps = max(len(values) for values in ladders.values())
    titles = ("ladder", *(f"severity {i}" if i else "as it is" for i in range(steps)))
    lines = tuple((ladder, *(f"{value:.3f}" for value in values)) for ladder, values in ladders.items())
    return Block(stress_title(item), tuple(sentences), titles, lines)


def _shortcuts(item: Evaluation) -> Block | None:
    conditions: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in item.rows(SHORTCUTS):
        conditions[row.get("condition", "")].append(row)
    names = ("accuracy_without_normal", "auroc_malignant")
    lines, found = [], {}
    for condition, rows in conditions.items():
        cases = read_cases(lambda rows=rows: rows)  # type: ignore[misc]
        estimates = {} if cases is None else estimate([cases])
        if cases is None or not all(name in estimates for name in names):
            continue
        found[condition] = cases, estimates
        lines.append((condition, str(len(cases)), *(interval(estimates[name]) for name in names)))
    if "lesion blanked" not in found:
        return None
    cases, estimates = found["lesion blanked"]
    counts = np.bincount(cases.actual, minlength=len(CLASSES))[
        [CLASSES.index(name) for name in ("benign", "malignant")]
    ]
    share = counts.max() / len(cases)
    area, accuracy = estimates["auroc_malignant"], estimates["accuracy_without_normal"]
    words = f"AUROC {area.value:.3f}, 95 % {area.low:.3f} to {area.high:.3f}, where chance is 0.5; accuracy"
    words += f" {accuracy.value:.3f}, where always naming the more frequent class has {share:.3f}"
    if area.few or accuracy.few:
        verdict = (
            f"Fewer than {FEW_GROUPS} groups of a class are too few to say what the run sees without the lesion "
            f"({words})."
        )
    elif area.low > 0.5 or accuracy.low > share:
        what = "Accuracy survives" if accuracy.low > share else "The ranking, not the accuracy, survives in part"
        verdict = (
            f"{what} without the lesion: the run still tells malignant from benign ({words}). It reads what lies "
            "beside the lesion, such as shadows, calipers or the choice of the section, or the size of the blanked box."
        )
    else:
        verdict = f"Without the lesion the run does not tell malignant from benign ({words})."
    sentences = (
        "Scans with a lesion alone. Blanked: a box round the lesion, a tenth larger, is filled with the gray level "
        "round it. Alone: everything but the lesion is gray. The network has not learnt from such scans, so that a "
        "part of any loss is their strangeness.",
        verdict,
    )
    return Block(f"{item.label}: shortcuts", sentences, ("scans", "images", *names), tuple(lines))


def _explanations(item: Evaluation) -> Block | None:
    metrics = item.run.summary.metrics
    share = number(metrics.get("test/lesion_share"))
    lines = []
    for method in ("gradcam", "occlusion"):
        hit, energy = (number(metrics.get(f"test/{method}_{name}")) for name in ("pointing", "energy"))
        if hit is not None and energy is not None and share is not None:
            lines.append((method, f"{hit:.3f}", f"{energy:.3f}", f"{share:.3f}"))
    if not lines:
        return None
    sentence = (
        "Maps of what speaks for the predicted class, over the scans with a lesion: how often their highest point lies "
        "in the lesion (pointing game), and which share of their sum does. A map that knows nothing of the scan would "
        "have the lesion's share of the scan in both."
    )
    titles = ("method", "highest point in the lesion", "sum in the lesion", "lesion's share of the scan")
    return Block(f"{item.label}: explanations", (sentence,), titles, tuple(lines))


def stress_title(item: Evaluation) -> str:
    """The title of the block of an evaluation under stress."""
    return f"{item.label}: under stress ({main_figure(item)})"
