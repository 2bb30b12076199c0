"""One encoder or two: a network for both tasks beside a classifier and a segmenter."""

import math
from collections.abc import Sequence

from busi_lab.report import words
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.joint import Pair, pairs
from busi_lab.report.sections.section import Cell, Grid, Section, figure, word


def joint(analysis: Analysis) -> list[Section]:
    """A section for each multitask table that has such a pair beside it."""
    found = pairs(analysis)
    return [_section(pair, several=len(found) > 1) for pair in found]


def _section(pair: Pair, several: bool) -> Section:
    rows = (pair.joint, pair.classifier, pair.segmenter)
    summaries = [row.run.summary for row in rows]
    both = (pair.joint.metric, pair.classifier.metric, pair.segmenter.metric)
    nothing = Cell("", "")
    lines = [
        (word("run"), *(word(row.label) for row in rows), nothing, nothing),
        (word("model"), *(word(summary.model) for summary in summaries), nothing, nothing),
        _quality("accuracy", both[0]("test/accuracy"), both[1]("test/accuracy"), None),
        _quality("macro F1", both[0]("test/f1"), both[1]("test/f1"), None),
        _quality("Dice", both[0]("test/dice"), None, both[2]("test/dice")),
        _cost("parameters (M)", [_millions(summary.parameters) for summary in summaries], 2),
        _cost("training time (s)", [words.number(summary.seconds.get("fit")) for summary in summaries], 0),
        _cost("inference of a scan (ms)", [words.number(summary.inference_milliseconds) for summary in summaries], 1),
    ]
    titles = ("", "one encoder", "classifier", "segmenter", "both networks", "one encoder against both")
    title = "One encoder or two" + (f" (Table {pair.multitask.number})" if several else "")
    return Section(title, tuple(_sentences(pair)), grids=(Grid(titles, tuple(lines)),))


def _sentences(pair: Pair) -> list[str]:
    images = "the same" if pair.multitask.test_images is None else f"the same {pair.multitask.test_images}"
    same = f" with the same encoder ({pair.encoder}, as their configurations say)" if pair.encoder else ""
    sentences = [
        f"{pair.joint.label} does both tasks with one encoder; {pair.classifier.label} and {pair.segmenter.label} do "
        f"one each. They are the best runs by validation{same}; all figures come from {images} test images."
    ]
    if not pair.known:
        sentences.append("Their configurations do not say which encoders they have, so nothing is claimed of encoders.")
    elif pair.encoder is None:
        sentences.append("No such pair has the joint model's encoder, so encoders differ as well as tasks.")
    summaries = [row.run.summary for row in (pair.joint, pair.classifier, pair.segmenter)]
    if len({summary.split.digest for summary in summaries}) > 1:
        sentences.append("Their training or validation images differ.")
    if len({(summary.device, summary.precision) for summary in summaries}) > 1:
        sentences.append("They ran on different devices or in different precision, so their times do not compare.")
    return sentences


def _millions(parameters: int | None) -> float | None:
    known = words.number(parameters)
    return None if known is None else known / 1e6


def _quality(name: str, one: float | None, classifier: float | None, segmenter: float | None) -> tuple[Cell, ...]:
    """A line with a difference at its end; one of ``classifier`` and ``segmenter`` has the figure at most."""
    pair = segmenter if classifier is None else classifier
    gap = None if one is None or pair is None else one - pair
    against = Cell(words.MISSING) if gap is None else Cell(words.signed(gap), gap)
    return (word(name), *map(figure, (one, classifier, segmenter, pair)), against)


def _cost(name: str, values: Sequence[float | None], digits: int) -> tuple[Cell, ...]:
    """A line with the pair's sum and a ratio at its end; ``values`` are of the joint model, classifier, segmenter."""
    one, *parts = values
    known = [value for value in parts if value is not None]
    total = math.fsum(known) if len(known) == len(parts) else None
    ratio = None if one is None or not total else one / total
    times = Cell(words.MISSING) if ratio is None else Cell(f"{words.figure(ratio, 2)} times", ratio)
    return (word(name), *(figure(value, digits) for value in (one, *parts, total)), times)
