"""A comparison's repeats, tests and clinical figures, put in words."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from busi_lab.report.blocks import Analysis, Block, Pooled
from busi_lab.report.clinical import RUNS_SHOWN, clinical_blocks, interval, subjects_of
from busi_lab.report.evaluations import evaluation_blocks
from busi_lab.report.pairwise import (
    MEASURES,
    MODELS_TESTED,
    Difference,
    compare_models,
    compare_protocols,
    outcome,
)
from busi_lab.report.repeats import Experiment, gather, refuse_single_runs
from busi_lab.report.statistics import RESAMPLES
from busi_lab.report.subjects import Subject
from busi_lab.report.tables import MISSING, TEST_METRICS, Comparison, text

EXPERIMENTS_SHOWN = 30
"""Experiments in a table for people at most, best by validation first; repeats.csv has all."""

_SHOWN = (
    *("accuracy", "f1", "f1_present", "auroc", "auroc_malignant", "auroc_benign_malignant"),
    *("dice", "dice_pooled", "hd95", "hd95_pixels", "hd95_mm"),
)
_DIGITS = {"hd95": 1, "hd95_pixels": 1, "hd95_mm": 2}
_PROTOCOLS = ("published", "holdout", "grouped_holdout", "grouped_kfold", "curated")


Scope = tuple[str, str | None, str, str | None]


def analyse(comparison: Comparison, require_repeats: bool = False) -> Comparison:
    """``comparison`` with its analysis.

    Raises:
        UserError: folds with the same seeds that cannot be pooled, or a single run where repeats are required.
    """
    experiments = gather(comparison)
    if require_repeats:
        refuse_single_runs(experiments)
    scopes = _scopes(experiments)
    folds = _fold_tables(experiments)
    tests = {scope: compare_models(items) for scope, items in scopes.items()}
    protocols = [(items, compare_protocols(items)) for items in _several_protocols(experiments)]
    return replace(
        comparison,
        analysis=Analysis(
            tuple(_side_by_side(items, found) for items, found in protocols),
            tuple(block for scope, items in scopes.items() if (block := _repeats(scope, items))),
            tuple(_tests(scope, scopes[scope], found) for scope, found in tests.items() if found),
            {
                table.number: blocks
                for table in comparison.tables
                if table.number not in folds and (blocks := clinical_blocks(subjects_of(table)))
            },
            tuple(_repeat_record(item) for item in experiments),
            tuple(_pair_record(test) for found in [*tests.values(), *(own for _, own in protocols)] for test in found),
            tuple(pooled for scope, items in scopes.items() for pooled in _pooled(scope, items)),
            folds,
            evaluation_blocks(comparison),
        ),
    )


def _fold_tables(experiments: Sequence[Experiment]) -> frozenset[int]:
    """Numbers of the tables that are one of several folds, whose images are pooled elsewhere."""
    several = [item for item in experiments if (item.folds or 0) > 1]
    return frozenset(number for item in several for number in item.tables)


def _pooled(scope: Scope, items: Sequence[Experiment]) -> list[Pooled]:
    """Clinical figures of experiments over several folds, a task at a time, best by validation first."""
    found = []
    for task in dict.fromkeys(item.table.task for item in items):
        chosen = [item for item in items if item.table.task == task and (item.folds or 0) > 1][:RUNS_SHOWN]
        subjects = [
            Subject(item.label, tuple(tuple(row.run for row in rows) for rows in item.repeats.values()))
            for item in chosen
        ]
        if blocks := clinical_blocks(subjects, pooled=True):
            found.append(Pooled(f"Folds together: {task} on {_where(scope)}", blocks, subjects[0]))
    return found


def _scopes(experiments: Sequence[Experiment]) -> dict[Scope, list[Experiment]]:
    """Experiments that were judged alike: data, protocol, and one test set where there is one; best ranks first.

    Tasks stand together, because a network for both tasks is tested against those for one.
    """
    found: dict[Scope, list[Experiment]] = defaultdict(list)
    for item in experiments:
        digests = {row.run.summary.split.get("test_digest") for row in item.rows}
        digest = item.table.test_digest if len(digests) == 1 and item.expected_folds is None else None
        found[item.table.dataset, item.table.data_digest, item.protocol, digest].append(item)
    return {scope: sorted(items, key=_rank) for scope, items in found.items()}


def _rank(item: Experiment) -> float:
    """The mean rank by validation of the experiment's runs in their tables."""
    ranks = [row.rank for row in item.rows if row.rank is not None]
    return sum(ranks) / len(ranks) if ranks else float("inf")


def _where(scope: Scope) -> str:
    dataset, _, protocol, digest = scope
    return f"{dataset}, {protocol} protocol" + (f", test set {digest[:12]}" if digest else "")


def _runs(item: Experiment) -> str:
    """How many runs, folds and pairs of seeds."""
    words = f"{len(item.rows)}"
    if item.expected_folds is not None:
        words += f"\n{item.folds} of {item.expected_folds} folds"
    return words + (f"\n{len(item.repeats)} seeds" if len(item.repeats) > 1 else "")


_FACTS = ("runs", "test images", "leaked test images")


def _facts(item: Experiment) -> tuple[str, str, str]:
    """Cells under ``_FACTS``."""
    cases = item.cases
    groups = f"\n{cases.groups} groups" if cases is not None and cases.grouped else ""
    count, *share = (item.leaked or MISSING).split(" of ")
    leaked = "\nof ".join([count, *share])
    return _runs(item), MISSING if cases is None else f"{len(cases)}{groups}", leaked


def _figure_cells(items: Sequence[Experiment], with_spread: bool) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of the shown metrics that any of ``items`` has: pooled, interval, mean and deviation."""
    names = [name for name in _SHOWN if any(name in item.estimates or name in item.spread for item in items)]
    lines = []
    for item in items:
        cells = []
        for name in names:
            digits = _DIGITS.get(name, 3)
            estimate, spread = item.estimates.get(name), item.spread.get(name)
            parts = [interval(estimate, digits)] if estimate else [MISSING]
            if with_spread and spread and spread.deviation is not None:
                parts.append(f"{spread.mean:.{digits}f} ± {spread.deviation:.{digits}f}")
            cells.append("\n".join(parts))
        lines.append(cells)
    return names, lines


def _repeats(scope: Scope, items: Sequence[Experiment]) -> Block | None:
    if not any(item.estimates or len(item.rows) > 1 for item in items):
        return None
    shown = items[:EXPERIMENTS_SHOWN]
    repeated = [item for item in items if len(item.rows) > 1]
    names, figures = _figure_cells(shown, bool(repeated))
    lines = []
    for item, cells in zip(shown, figures, strict=True):
        lines.append((item.label, *_facts(item), *cells))
    sentences = [_how_pooled(bool(repeated))]
    if repeated and len(repeated) < len(items):
        alone = [item.label for item in items if len(item.rows) == 1]
        sentences.append(f"One run alone, so without a spread over folds or seeds: {', '.join(alone)}.")
    elif not repeated:
        sentences.append("No experiment has a second run, so there is no spread over folds or seeds.")
    sentences += [f"{gap}." for item in items for gap in item.gaps]
    sentences += _about_groups(items)
    if len(shown) < len(items):
        sentences.append(f"Shown are the best {len(shown)} of {len(items)} by validation; repeats.csv has all.")
    titles = ("experiment", *_FACTS, *names)
    return Block(f"Experiments with their uncertainty: {_where(scope)}", tuple(sentences), titles, tuple(lines))


def _how_pooled(repeated: bool) -> str:
    words = f"the percentile interval of {RESAMPLES:,} resamples of whole groups (near-copies, or one patient)"
    if not repeated:
        return f"In a cell: the figure, and its 95 % interval, {words}."
    return (
        "In a cell: the figure of all test predictions pooled, each image once, the probabilities averaged over seeds "
        "(an ensemble, so it may be better than every run) "
        f"and Dice as the mean over them; its 95 % interval, {words}; and mean ± standard deviation over the runs of "
        "what each of them has on its own test images."
    )


def _about_groups(items: Sequence[Experiment]) -> list[str]:
    """What limits the intervals."""
    found = []
    loose = [item.label for item in items if item.cases is not None and not item.cases.grouped]
    if loose:
        found.append(
            f"No groups are recorded, so each image is resampled alone and intervals are too narrow: "
            f"{', '.join(loose)}."
        )
    flat = any(e.low == e.high for item in items for e in item.estimates.values())
    if flat:
        found.append("An interval of no width only says that all resamples agree, not that the figure is certain.")
    return found


def _tests(scope: Scope, items: Sequence[Experiment], tests: Sequence[Difference]) -> Block:
    lines = tuple(
        (
            f"{outcome(test)} in {MEASURES[test.measure]}",
            str(test.images),
            *(f"{value:.3f}" for value in test.values),
            _signed(test),
            test.test,
            _p(test.p),
            _p(test.corrected),
        )
        for test in tests
    )
    told = sum(test.told_apart for test in tests)
    sentences = [
        f"{told} of {len(tests)} pairs are told apart: their p, corrected after Holm for all pairs of a measure, is "
        f"below 0.05. The interval of the difference is that of {RESAMPLES:,} paired resamples of whole groups; it is "
        "not corrected. McNemar's test counts images as independent.",
    ]
    for measure, words in MEASURES.items():
        count = sum(measure in item.estimates for item in items)
        if count > MODELS_TESTED:
            sentences.append(f"In {words} the best {MODELS_TESTED} of {count} experiments by validation are tested.")
    titles = ("what the test says", "images", "first", "second", "difference", "test", "p", "p (Holm)")
    return Block(f"Which models differ: {_where(scope)}", tuple(sentences), titles, lines)


def _signed(test: Difference) -> str:
    estimate = test.difference
    return f"{estimate.value:+.3f}\n{estimate.low:+.3f} to {estimate.high:+.3f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _several_protocols(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Experiments under more than one protocol, each with all of them."""
    groups: dict[tuple[str | None, ...], list[Experiment]] = defaultdict(list)
    for item in experiments:
        summary = item.rows[0].run.summary
        if summary.source:  # an evaluation was not trained under the protocol that it is tested under
            continue
        key = (item.rows[0].run.name, summary.task, summary.model, summary.weights, item.table.dataset)
        groups[tuple(map(str, key))].append(item)
    several = [items for items in groups.values() if len({item.protocol for item in items}) > 1]
    return [sorted(items, key=lambda item: _place(item.protocol)) for items in several]


def _place(protocol: str) -> int:
    """Published first, then from the loosest split to the strictest."""
    return _PROTOCOLS.index(protocol) if protocol in _PROTOCOLS else len(_PROTOCOLS)


def _side_by_side(items: Sequence[Experiment], tests: Sequence[Difference]) -> Block:
    first, summary = items[0], items[0].rows[0].run.summary
    protocols = [item.protocol for item in items]
    labels = [
        item.protocol
        if protocols.count(item.protocol) == 1
        else f"{item.protocol} (data {(item.table.data_digest or 'unknown')[:12]}, {item.label})"
        for item in items
    ]
    label_of = {id(item): label for item, label in zip(items, labels, strict=True)}
    names, figures = _figure_cells(items, any(len(item.rows) > 1 for item in items))
    lines = tuple((label, *_facts(item), *cells) for label, item, cells in zip(labels, items, figures, strict=True))
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
        f"{' and '.join([', '.join(labels[:-1]), labels[-1]])}; figures are of the pooled test predictions, with 95 % "
        f"intervals of {RESAMPLES:,} resamples of whole groups.",
        f"The splits: {'; '.join(splits)}; leaked test images have a near-copy or the same patient in training or "
        "validation.",
        _what_differs(tests, label_of),
    ]
    sentences += _relations(tests, label_of)
    sentences += [f"{gap}, under {item.protocol}." for item in items for gap in item.gaps]
    titles = ("protocol", *_FACTS, *names)
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
    told, level = [], []
    for test in tests:
        measure, gap = MEASURES[test.measure], test.difference
        first, second = label_of[id(test.first)], label_of[id(test.second)]
        if test.told_apart:
            way = "higher" if gap.value > 0 else "lower"
            numbers = f"{gap.value:+.3f}, 95 % {gap.low:+.3f} to {gap.high:+.3f}, p {_p(test.corrected)} after Holm"
            told.append(f"{measure} is {way} under {first} than under {second} ({numbers})")
        else:
            level.append(f"{first} and {second} in {measure} ({gap.value:+.3f})")
    words = f"What can be told apart: {'; '.join(told) or 'no pair'}."
    return f"{words[:-1]}; not told apart: {'; '.join(level)}." if level else words


def _repeat_record(item: Experiment) -> dict[str, Any]:
    summary, cases = item.rows[0].run.summary, item.cases
    record: dict[str, Any] = {
        "experiment": text(item.rows[0].run.name),
        "task": text(summary.task),
        "model": text(summary.model),
        "weights": text(summary.weights),
        "data": text(item.table.dataset),
        "data_digest": text(item.table.data_digest),
        "protocol": item.protocol,
        "runs": len(item.rows),
        "seeds": len(item.repeats),
        "folds": item.folds,
        "expected_folds": item.expected_folds,
        "test_digest": item.table.test_digest if item.folds is None else None,
        "pooled_images": None if cases is None else len(cases),
        "pooled_groups": cases.groups if cases is not None and cases.grouped else None,
        "leaked": item.leaked,
        "resamples": RESAMPLES if item.estimates else None,
    }
    for name in TEST_METRICS:
        estimate, spread = item.estimates.get(name), item.spread.get(name)
        if estimate:
            record |= {f"{name}/pooled": estimate.value, f"{name}/low": estimate.low, f"{name}/high": estimate.high}
        if spread:
            record |= {f"{name}/mean": spread.mean, f"{name}/sd": spread.deviation, f"{name}/runs": spread.count}
    return record


def _pair_record(test: Difference) -> dict[str, Any]:
    return {
        "first": test.first.label,
        "second": test.second.label,
        "data": text(test.first.table.dataset),
        "protocol": test.first.protocol,
        "second_protocol": test.second.protocol,
        "images": test.images,
        "measure": test.measure,
        "test": test.test,
        "first_value": test.values[0],
        "second_value": test.values[1],
        "difference": test.difference.value,
        "low": test.difference.low,
        "high": test.difference.high,
        "p": test.p,
        "p_holm": test.corrected,
        "verdict": outcome(test),
    }


def columns_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """All keys of ``records`` in the order of their first appearance, those of metrics together."""
    held = {key for record in records for key in record}
    plain = dict.fromkeys(key for record in records for key in record if "/" not in key)
    kinds = ("pooled", "low", "high", "mean", "sd", "runs")
    return [*plain, *(key for name in TEST_METRICS for kind in kinds if (key := f"{name}/{kind}") in held)]
