"""Tests between models and between protocols, in words."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from busi_lab.report.blocks import Block
from busi_lab.report.experiments import FACTS, Scope, facts, figure_cells, where
from busi_lab.report.pairwise import MEASURES, MODELS_TESTED, Difference, outcome
from busi_lab.report.repeats import Experiment
from busi_lab.report.tables import MISSING, text
from busi_lab.report.uncertainty import FEW_GROUPS, RESAMPLES, SWAPS

_PROTOCOLS = ("published", "holdout", "grouped_holdout", "grouped_kfold", "curated")


def tests_block(scope: Scope, items: Sequence[Experiment], tests: Sequence[Difference]) -> Block:
    """What can be told apart among the models of a scope."""
    lines = tuple(
        (
            f"{outcome(test)} in {MEASURES[test.measure]}",
            str(test.images),
            str(test.difference.groups),
            *(f"{value:.3f}" for value in test.values),
            _signed(test),
            _p(test.p),
            _p(test.corrected),
        )
        for test in tests
    )
    told = sum(test.told_apart for test in tests)
    few = sum(test.difference.few for test in tests)
    sentences = [
        f"Two models are told apart where p, corrected after Holm for all pairs of a measure, is below 0.05: {told} of "
        f"{len(tests)} {'pair' if len(tests) == 1 else 'pairs'}. For p, whole groups (near-copies, or one patient) "
        f"swap the results of both models {SWAPS:,} times. The interval of the difference is that of {RESAMPLES:,} "
        "paired resamples of whole groups; it is not corrected, and near 0.05 the two may disagree: p decides.",
    ]
    if few:
        pairs = "One pair has" if few == 1 else f"{few} pairs have"
        sentences.append(f"{pairs} fewer than {FEW_GROUPS} groups: nothing is claimed there.")
    tested = {id(item): item for test in tests for item in (test.first, test.second)}.values()
    if any(len(item.repeats) > 1 for item in tested):
        sentences.append(
            "An image counts with the mean over the runs of an experiment: several seeds are a typical run here, not "
            "an ensemble."
        )
    single = [item.label for item in tested if len(item.repeats) == 1]
    if single:
        sentences.append(
            f"Trained with one seed alone, so that the test speaks of these runs, not of their recipe: "
            f"{', '.join(single)}."
        )
    for measure, words in MEASURES.items():
        count = sum(measure in item.estimates for item in items)
        if count > MODELS_TESTED:
            sentences.append(f"In {words} the best {MODELS_TESTED} of {count} experiments by validation are tested.")
    cut = [item.label for item in items if not item.whole]
    if cut:
        sentences.append(f"Predictions are missing or damaged, so nothing is claimed of: {', '.join(cut)}.")
    titles = ("what the test says", "images", "groups", "first", "second", "difference", "p", "p (Holm)")
    return Block(f"Which models differ: {where(scope)}", tuple(sentences), titles, lines)


def _signed(test: Difference) -> str:
    estimate = test.difference
    return f"{estimate.value:+.3f}\n{estimate.ends(sign='+')}"


def _p(value: float) -> str:
    if value != value:  # NaN: not tested
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def several_protocols(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Experiments under more than one protocol, each with all of them."""
    groups: dict[tuple[str | None, ...], list[Experiment]] = defaultdict(list)
    for item in experiments:
        summary = item.rows[0].run.summary
        if summary.source:  # an evaluation was not trained under the protocol that it is tested under
            continue
        names = (item.rows[0].run.name, summary.task, summary.model, summary.weights, item.table.dataset)
        settings = {name: value for name, value in (item.settings or {}).items() if not name.startswith("split.")}
        key = (*map(str, names), str(settings))
        groups[key].append(item)
    several = [items for items in groups.values() if len({item.protocol for item in items}) > 1]
    return [sorted(items, key=lambda item: _place(item.protocol)) for items in several]


def _place(protocol: str) -> int:
    """Published first, then from the loosest split to the strictest."""
    return _PROTOCOLS.index(protocol) if protocol in _PROTOCOLS else len(_PROTOCOLS)


def protocols_block(items: Sequence[Experiment], tests: Sequence[Difference]) -> Block:
    """One experiment under several protocols, with what a reviewer asks in its first three sentences."""
    first, summary = items[0], items[0].rows[0].run.summary
    protocols = [item.protocol for item in items]
    labels = [
        item.protocol
        if protocols.count(item.protocol) == 1
        else f"{item.protocol} (data {(item.table.data_digest or 'unknown')[:12]}, {item.label})"
        for item in items
    ]
    label_of = {id(item): label for item, label in zip(items, labels, strict=True)}
    names, figures = figure_cells(items)
    lines = tuple((label, *facts(item), *cells) for label, item, cells in zip(labels, items, figures, strict=True))
    model = f" ({text(summary.model)}, weights {text(summary.weights)})" if summary.model else ""
    splits = []
    for label, item in zip(labels, items, strict=True):
        count = "an unknown number of" if item.cases is None else str(len(item.cases))
        folds = "" if item.expected_folds is None else f" over {item.folds} of {item.expected_folds} folds"
        leaked = "leaks not recorded" if item.leaked is None else f"leaked {item.leaked}"
        splits.append(f"{label} with {count} test images{folds}, {leaked}")
    name = text(first.rows[0].run.name) or MISSING
    sentences = [
        f"Compared is {name}{model} for {first.table.task} on {first.table.dataset}, trained and tested under "
        f"{' and '.join([', '.join(labels[:-1]), labels[-1]])}; figures are means over the runs, with 95 % intervals "
        f"of {RESAMPLES:,} resamples of whole groups.",
        f"The splits: {'; '.join(splits)}; leaked test images have a near-copy or the same patient in training or "
        "validation.",
        _what_differs(tests, label_of),
    ]
    sentences += _relations(tests, label_of)
    sentences += [f"{gap}, under {item.protocol}." for item in items for gap in item.gaps]
    titles = ("protocol", *FACTS, *names)
    return Block(f"{name} under {len(items)} protocols", tuple(sentences), titles, lines)


def _relations(tests: Sequence[Difference], label_of: Mapping[int, str]) -> list[str]:
    """How the test images of the pairs hang together, a sentence for each way."""
    pairs: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        pair = f"{label_of[id(test.first)]} and {label_of[id(test.second)]}"
        words = f"{pair} ({test.images} images)" if test.related else pair
        if words not in pairs[test.relation]:  # a multitask experiment has a test for either measure
            pairs[test.relation].append(words)
    return [f"{relation}: {'; '.join(words)}." for relation, words in pairs.items()]


def _what_differs(tests: Sequence[Difference], label_of: Mapping[int, str]) -> str:
    """The third sentence for a reviewer: the pairs of protocols that differ, each with its figures, then the others."""
    if not tests:
        return "Nothing can be told apart, because fewer than two protocols have readable predictions."
    told, level, few = [], [], []
    for test in tests:
        measure, gap = MEASURES[test.measure], test.difference
        first, second = label_of[id(test.first)], label_of[id(test.second)]
        if gap.few:
            few.append(f"{first} and {second} in {measure}, with {gap.groups} groups where {FEW_GROUPS} are needed")
        elif test.told_apart:
            way = "higher" if gap.value > 0 else "lower"
            numbers = f"{gap.value:+.3f}, 95 % {gap.ends(sign='+')}, p {_p(test.corrected)} after Holm"
            told.append(f"{measure} is {way} under {first} than under {second} ({numbers})")
        else:
            level.append(f"{first} and {second} in {measure} ({gap.value:+.3f})")
    words = f"What can be told apart: {'; '.join(told) or 'no pair'}."
    words = f"{words[:-1]}; not told apart: {'; '.join(level)}." if level else words
    return f"{words[:-1]}; not tested: {'; '.join(few)}." if few else words
