"""One experiment under several split protocols, with what a reviewer asks in its first three sentences."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from busi_lab.report import words
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.pairwise import MEASURES, Difference
from busi_lab.report.results.uncertainty import FEW_GROUPS, RESAMPLES
from busi_lab.report.sections.basis import uncounted
from busi_lab.report.sections.repeats import gaps
from busi_lab.report.sections.scopes import FACTS, facts, figure_cells, figure_names, leaked_words
from busi_lab.report.sections.section import Grid, Section, word


def protocols(analysis: Analysis) -> list[Section]:
    """A section for each experiment that ran under several protocols."""
    return [_section(analysis, items, tests) for items, tests in analysis.protocols]


def _section(analysis: Analysis, items: Sequence[Experiment], tests: Sequence[Difference]) -> Section:
    labels = _labels(items)
    label_of = {id(item): label for item, label in zip(items, labels, strict=True)}
    names = figure_names(analysis, items)
    lines = tuple(
        (word(label), *facts(item), *figure_cells(item, names)) for label, item in zip(labels, items, strict=True)
    )
    name = words.text(items[0].name) or words.MISSING
    sentences = [*_what_is_compared(items, labels, name), _what_differs(tests, label_of)]
    sentences += _relations(tests, label_of)
    sentences += [f"{gap}, under {item.protocol}." for item in items for gap in gaps(item)]
    grid = Grid(("protocol", *FACTS, *names), lines)
    return Section(f"{name} under {len(items)} protocols", tuple(sentences), grids=(grid,), terminal=True)


def _labels(items: Sequence[Experiment]) -> list[str]:
    """Protocols, with data and settings where two are alike."""
    names = [item.protocol for item in items]
    return [
        item.protocol
        if names.count(item.protocol) == 1
        else f"{item.protocol} (data {(item.table.data_digest or 'unknown')[:12]}, {item.label})"
        for item in items
    ]


def _what_is_compared(items: Sequence[Experiment], labels: Sequence[str], name: str) -> list[str]:
    summary, table = items[0].rows[0].run.summary, items[0].table
    model = f" ({words.text(summary.model)}, weights {words.text(summary.weights)})" if summary.model else ""
    splits = []
    for label, item in zip(labels, items, strict=True):
        images = "an unknown number of" if item.cases is None else str(len(item.cases))
        folds = "" if item.expected_folds is None else f" over {item.folds} of {item.expected_folds} folds"
        leaked = leaked_words(item)
        told = f"leaks {uncounted(item)}" if leaked is None else f"leaked {leaked}"
        splits.append(f"{label} with {images} test images{folds}, {told}")
    return [
        f"Compared is {name}{model} for {table.task} on {table.dataset}, trained and tested under "
        f"{words.listed(labels)}; figures are means over the runs, with 95 % intervals "
        f"of {RESAMPLES:,} resamples of whole groups.",
        f"The splits: {'; '.join(splits)}; leaked test images have a near-copy or the same patient in training or "
        "validation.",
    ]


def _relations(tests: Sequence[Difference], label_of: Mapping[int, str]) -> list[str]:
    """How the test images of the pairs hang together, a sentence for each way."""
    pairs: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        pair = f"{label_of[id(test.first)]} and {label_of[id(test.second)]}"
        told = f"{pair} ({test.images} images)" if test.related else pair
        if told not in pairs[test.relation]:  # a multitask experiment has a test for either measure
            pairs[test.relation].append(told)
    return [f"{relation}: {'; '.join(told)}." for relation, told in pairs.items()]


def _what_differs(tests: Sequence[Difference], label_of: Mapping[int, str]) -> str:
    """The third sentence for a reviewer: the pairs of protocols that differ, each with its figures, then the others."""
    if not tests:
        return "Nothing can be tested, because fewer than two protocols have readable predictions."
    told, level, few = [], [], []
    for test in tests:
        measure, gap = MEASURES[test.measure], test.difference
        first, second = label_of[id(test.first)], label_of[id(test.second)]
        if gap.few:
            groups = words.counted(gap.groups, "group")
            few.append(f"{first} and {second} in {measure}, with {groups} where {FEW_GROUPS} are needed")
        elif test.told_apart:
            way = "higher" if gap.value > 0 else "lower"
            ends = words.ends(gap.low, gap.high, sign="+")
            numbers = f"{words.signed(gap.value)}, 95 % {ends}, p {words.p_value(test.corrected)} after Holm"
            told.append(f"{measure} is {way} under {first} than under {second} ({numbers})")
        else:
            level.append(f"{first} and {second} in {measure} ({words.signed(gap.value)})")
    said = f"Significant differences: {'; '.join(told) or 'none'}"
    said += f"; no significant difference: {'; '.join(level)}" if level else ""
    said += f"; not tested: {'; '.join(few)}" if few else ""
    return f"{said}."
