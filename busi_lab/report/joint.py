"""One encoder or two: a network for both tasks against a classifier and a segmenter on the same images."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from busi_lab.report.tables import MISSING, Comparison, Row, Table, number, text


@dataclass(frozen=True)
class Pair:
    """A joint network beside a pair of networks, in words and as cells of a table."""

    title: str
    sentences: list[str]
    titles: list[str]
    lines: list[list[str]]


def pairs(comparison: Comparison) -> list[Pair]:
    """One comparison for each multitask table, where both tasks have a ranked run on the same data and test images.

    Folds that are pooled are left out; the tests between models have their images together.
    """
    held = {
        (table.task, table.data_digest, table.test_digest): table
        for table in comparison.tables
        if table.rows[0].rank is not None
        and table.data_digest
        and table.test_digest
        and table.number not in comparison.analysis.fold_tables
    }
    found = []
    for (task, data, test), table in held.items():
        classification, segmentation = (held.get((other, data, test)) for other in ("classification", "segmentation"))
        if task == "multitask" and classification and segmentation:
            found.append((table, classification, segmentation))
    return [_pair(*tables, several=len(found) > 1) for tables in found]


def encoder_family(model: str | None) -> str | None:
    """What a model's name says about its encoder: ``mobilenet`` of ``Unet-tu-mobilenetv1_100``; None where nothing.

    It is the first word of three letters or more after the architecture and its dash, without a version's ``v``.
    """
    encoder = (model or "").lower().partition("-")[2] or (model or "").lower()
    words = [word.removesuffix("v") for word in re.findall("[a-z]+", encoder)]
    return next((word for word in words if len(word) > 2 and word != "timm"), None)


def _choose(table: Table, family: str | None) -> Row | None:
    """The best run by validation with an encoder of ``family``; of any where ``family`` is None."""
    ranked = (row for row in table.rows if row.rank is not None)
    return next((row for row in ranked if family in (None, encoder_family(row.run.summary.model))), None)


def _pair(multitask: Table, classification: Table, segmentation: Table, several: bool) -> Pair:
    joint = multitask.rows[0]
    family = encoder_family(joint.run.summary.model)
    classifier, segmenter = _choose(classification, family), _choose(segmentation, family)
    if classifier is None or segmenter is None:
        family, classifier, segmenter = None, classification.rows[0], segmentation.rows[0]
    images = "the same" if multitask.test_images is None else f"the same {multitask.test_images}"
    of_family = f" with an encoder of the same family ({family}, as the models' names say)" if family else ""
    sentences = [
        f"{joint.label} does both tasks with one encoder; {classifier.label} and {segmenter.label} do one each. "
        f"They are the best runs by validation{of_family}; all figures come from {images} test images."
    ]
    if family is None:
        sentences.append("No such pair has the joint model's kind of encoder, so encoders differ as well as tasks.")
    summaries = [row.run.summary for row in (joint, classifier, segmenter)]
    if len({summary.split.digest for summary in summaries}) > 1:
        sentences.append("Their training or validation images differ.")
    if len({(summary.device, summary.precision) for summary in summaries}) > 1:
        sentences.append("They ran on different devices or in different precision, so their times do not compare.")
    title = "One encoder or two" + (f" (Table {multitask.number})" if several else "")
    titles = ["", "one encoder", "classifier", "segmenter", "both networks", "one encoder against both"]
    lines = [["run", joint.label, classifier.label, segmenter.label, "", ""]]
    lines += [["model", *(text(summary.model) or MISSING for summary in summaries), "", ""]]
    lines += [
        _quality("accuracy", joint.metric("test/accuracy"), classifier.metric("test/accuracy"), None),
        _quality("macro F1", joint.metric("test/f1"), classifier.metric("test/f1"), None),
        _quality("Dice", joint.metric("test/dice"), None, segmenter.metric("test/dice")),
        _cost("parameters (M)", [_millions(summary.parameters) for summary in summaries], 2),
        _cost("training time (s)", [number(summary.seconds.get("fit")) for summary in summaries], 0),
        _cost("inference of a scan (ms)", [number(summary.inference_milliseconds) for summary in summaries], 1),
    ]
    return Pair(title, sentences, titles, lines)


def _millions(parameters: int | None) -> float | None:
    count = number(parameters)
    return None if count is None else count / 1e6


def _cell(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def _quality(name: str, joint: float | None, classifier: float | None, segmenter: float | None) -> list[str]:
    """A line with a difference at its end; one of ``classifier`` and ``segmenter`` has the figure at most."""
    pair = segmenter if classifier is None else classifier
    against = MISSING if joint is None or pair is None else f"{joint - pair:+.3f}"
    return [name, *(_cell(value, 3) for value in (joint, classifier, segmenter, pair)), against]


def _cost(name: str, values: Sequence[float | None], digits: int) -> list[str]:
    """A line with the pair's sum and a ratio at its end; ``values`` are of the joint model, classifier, segmenter."""
    joint, *parts = values
    known = [value for value in parts if value is not None]
    total = math.fsum(known) if len(known) == len(parts) else None
    ratio = MISSING if joint is None or not total else f"{joint / total:.2f} times"
    return [name, *(_cell(value, digits) for value in (joint, *parts, total)), ratio]
