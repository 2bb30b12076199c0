"""A comparison's repeats, tests and clinical figures, put in words."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from busi_lab.report.blocks import Analysis, Pooled
from busi_lab.report.clinical import RUNS_SHOWN, clinical_blocks, subjects_of
from busi_lab.report.evaluations import evaluation_blocks
from busi_lab.report.experiments import Scope, repeats_block, settings_block, where
from busi_lab.report.pairwise import compare_models, compare_protocols
from busi_lab.report.records import pair_record, repeat_record
from busi_lab.report.repeats import Experiment, gather, refuse_single_runs
from busi_lab.report.settings import differences
from busi_lab.report.subjects import Subject
from busi_lab.report.tables import Comparison
from busi_lab.report.verdicts import protocols_block, several_protocols, tests_block


def analyse(comparison: Comparison, require_repeats: bool = False) -> Comparison:
    """``comparison`` with its analysis.

    Raises:
        UserError: folds with the same seeds that cannot be pooled, or a single run where repeats are required.
    """
    experiments = gather(comparison)
    if require_repeats:
        refuse_single_runs(experiments)
    scopes = _scopes(experiments)
    keys = differences([item.settings for item in experiments])
    folds = _fold_tables(experiments)
    tests = {scope: compare_models(items) for scope, items in scopes.items()}
    protocols = [(items, compare_protocols(items)) for items in several_protocols(experiments)]
    return replace(
        comparison,
        analysis=Analysis(
            tuple(protocols_block(items, found) for items, found in protocols),
            tuple(
                block
                for scope, items in scopes.items()
                for block in (repeats_block(scope, items), settings_block(scope, items))
                if block
            ),
            tuple(tests_block(scope, scopes[scope], found) for scope, found in tests.items() if found),
            {
                table.number: blocks
                for table in comparison.tables
                if table.number not in folds and (blocks := clinical_blocks(subjects_of(table)))
            },
            tuple(repeat_record(item, keys) for item in experiments),
            tuple(pair_record(test) for found in [*tests.values(), *(own for _, own in protocols)] for test in found),
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
            found.append(Pooled(f"Folds together: {task} on {where(scope)}", blocks, subjects[0]))
    return found


def _scopes(experiments: Sequence[Experiment]) -> dict[Scope, list[Experiment]]:
    """Experiments that were judged alike: data, protocol, and one test set where there is one; best ranks first.

    Tasks stand together, because a network for both tasks is tested against those for one.
    """
    found: dict[Scope, list[Experiment]] = defaultdict(list)
    for item in experiments:
        digests = {row.run.summary.split.test_digest for row in item.rows}
        digest = item.table.test_digest if len(digests) == 1 and item.expected_folds is None else None
        found[item.table.dataset, item.table.data_digest, item.protocol, digest].append(item)
    return {scope: sorted(items, key=_rank) for scope, items in found.items()}


def _rank(item: Experiment) -> float:
    """The mean rank by validation of the experiment's runs in their tables."""
    ranks = [row.rank for row in item.rows if row.rank is not None]
    return sum(ranks) / len(ranks) if ranks else float("inf")
