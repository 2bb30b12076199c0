"""A comparison with what is known beyond single runs: repeats, tests between models and protocols, clinical figures."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from busi_lab.report.results.clinical import RUNS_SHOWN, Clinical, judge, subjects_of
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.metrics import test_metrics
from busi_lab.report.results.pairwise import Difference, compare_models, compare_protocols
from busi_lab.report.results.repeats import gather, refuse_single_runs
from busi_lab.report.results.settings import differences
from busi_lab.report.results.speed import Speeds
from busi_lab.report.results.subjects import Subject
from busi_lab.report.results.tables import Comparison, Failure, Table
from busi_lab.run_directory import Run

ESTIMATED = 200
"""Experiments of a scope that get intervals at most, best by validation first."""

_PROTOCOLS = ("published", "holdout", "grouped_holdout", "grouped_kfold", "curated", "by_source")


@dataclass(frozen=True)
class Scope:
    """Experiments that were judged alike, best by validation first, and the tests between them.

    ``digest`` is that of the one test set that all share; None where there are several, as with folds.
    """

    dataset: str
    data_digest: str | None
    protocol: str
    digest: str | None
    experiments: tuple[Experiment, ...]
    tests: tuple[Difference, ...]


@dataclass(frozen=True)
class Pooled:
    """Clinical figures of a task's experiments over several folds."""

    scope: Scope
    task: str
    clinical: Clinical


@dataclass(frozen=True)
class Analysis:
    """All that a report is made of.

    ``protocols`` has each experiment under several protocols, with the tests between them; ``clinical`` the figures of
    a table by its number; ``fold_tables`` the numbers of tables that are one of several folds, whose images are pooled
    elsewhere. ``keys`` are the settings that not all experiments share. ``speeds`` are there where they were measured.
    """

    comparison: Comparison
    experiments: tuple[Experiment, ...]
    scopes: tuple[Scope, ...]
    protocols: tuple[tuple[tuple[Experiment, ...], tuple[Difference, ...]], ...]
    clinical: Mapping[int, Clinical]
    pooled: tuple[Pooled, ...]
    fold_tables: frozenset[int]
    keys: tuple[str, ...]
    speeds: Speeds | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        """The ranked runs."""
        return self.comparison.tables

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The runs without a result."""
        return self.comparison.failures

    @property
    def again(self) -> tuple[tuple[str, Run], ...]:
        """Evaluations of runs on their own test images, by folder."""
        return self.comparison.again

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all test metrics of the datasets that are compared."""
        return test_metrics(table.classes for table in self.tables)

    @property
    def repeated(self) -> bool:
        """Whether an experiment has several runs."""
        return any(len(item.rows) > 1 for item in self.experiments)


def analyse(comparison: Comparison, require_repeats: bool = False) -> Analysis:
    """``comparison`` with its analysis.

    Raises:
        UserError: folds with the same seeds that cannot be pooled, or a single run where repeats are required.
    """
    experiments = _with_intervals(gather(comparison))
    if require_repeats:
        refuse_single_runs(experiments)
    scopes = _scopes(experiments)
    several = [item for item in experiments if (item.folds or 0) > 1]
    folds = frozenset(number for item in several for number in item.tables)
    return Analysis(
        comparison,
        tuple(experiments),
        scopes,
        tuple((tuple(items), tuple(compare_protocols(items))) for items in several_protocols(experiments)),
        {table.number: judge(subjects_of(table)) for table in comparison.tables if table.number not in folds},
        tuple(pooled for scope in scopes for pooled in _pooled(scope)),
        folds,
        tuple(differences([item.settings for item in experiments])),
    )


def _with_intervals(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The same, of which the best by validation get intervals in each scope: these take the time of a comparison."""
    scopes = defaultdict(list)
    for item in experiments:
        scopes[_scope_of(item)].append(item)
    best = {id(item) for items in scopes.values() for item in sorted(items, key=_rank)[:ESTIMATED]}
    return [item if id(item) in best else replace(item, estimated=False) for item in experiments]


def _pooled(scope: Scope) -> list[Pooled]:
    """Clinical figures of experiments over several folds, a task at a time, best by validation first."""
    found = []
    for task in dict.fromkeys(item.table.task for item in scope.experiments):
        chosen = [item for item in scope.experiments if item.table.task == task and (item.folds or 0) > 1][:RUNS_SHOWN]
        subjects = [
            Subject(item.label, tuple(tuple(row.run for row in rows) for rows in item.repeats.values()))
            for item in chosen
        ]
        if subjects:
            found.append(Pooled(scope, task, judge(subjects)))
    return found


def _scopes(experiments: Sequence[Experiment]) -> tuple[Scope, ...]:
    """Experiments by data, protocol, and test set where there is one.

    Tasks stand together, because a network for both tasks is tested against those for one.
    """
    found: dict[tuple[str, str | None, str, str | None], list[Experiment]] = defaultdict(list)
    for item in experiments:
        found[_scope_of(item)].append(item)
    ranked = {key: sorted(items, key=_rank) for key, items in found.items()}
    return tuple(Scope(*key, tuple(items), tuple(compare_models(items))) for key, items in ranked.items())


def _scope_of(item: Experiment) -> tuple[str, str | None, str, str | None]:
    digests = {row.run.summary.split.test_digest for row in item.rows}
    digest = item.table.test_digest if len(digests) == 1 and item.expected_folds is None else None
    return item.table.dataset, item.table.data_digest, item.protocol, digest


def _rank(item: Experiment) -> float:
    return item.rank


def several_protocols(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Experiments under more than one protocol, each with all of them: published first, then the looser splits."""
    groups: dict[tuple[str | None, ...], list[Experiment]] = defaultdict(list)
    for item in experiments:
        summary = item.rows[0].run.summary
        if summary.source:  # an evaluation was not trained under the protocol that it is tested under
            continue
        names = (item.name, summary.task, summary.model, summary.weights, item.table.dataset)
        settings = {name: value for name, value in (item.settings or {}).items() if not name.startswith("split.")}
        key = (*map(str, names), str(settings))
        groups[key].append(item)
    several = [items for items in groups.values() if len({item.protocol for item in items}) > 1]
    return [sorted(items, key=lambda item: _place(item.protocol)) for items in several]


def _place(protocol: str) -> int:
    return _PROTOCOLS.index(protocol) if protocol in _PROTOCOLS else len(_PROTOCOLS)
