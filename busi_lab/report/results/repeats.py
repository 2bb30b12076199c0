"""Which runs repeat each other as folds and seeds of one experiment."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from busi_lab.errors import UserError
from busi_lab.report.results.experiments import (
    Experiment,
    Seeds,
    fold_of,
    folds_of,
    protocol_of,
    seeds_of,
    trained_under,
    version_of,
)
from busi_lab.report.results.labels import experiment_labels
from busi_lab.report.results.tables import Comparison, Row, Table


def gather(comparison: Comparison) -> list[Experiment]:
    """All finished runs by experiment, in the order of their tables and of their best rank there.

    Runs are of one experiment where name, task, model, weights, data, protocol and the whole configuration agree, but
    for seeds, fold, paths, logger, workers and cache; where seeds and fold agree but test images do not, these make
    experiments of their own, unless there are folds. Runs that are evaluated must have learnt from the same data. A run
    whose configuration cannot be read is a repeat of none.

    Raises:
        UserError: two folds with the same seeds share test images, or one fold has several test sets.
    """
    groups: dict[tuple[str, ...], list[tuple[Table, Row]]] = defaultdict(list)
    for table in comparison.tables:
        for row in table.rows:
            groups[_key(table, row)].append((table, row))
    expected = _expected_folds(entry for entries in groups.values() for entry in entries)
    found = [_experiment(part, expected) for entries in groups.values() for part in _by_test_set(entries)]
    return [replace(item, label=label) for item, label in zip(found, experiment_labels(found), strict=True)]


def _key(table: Table, row: Row) -> tuple[str, ...]:
    summary = row.run.summary
    parts = (row.run.name, summary.task, summary.model, summary.weights, table.dataset, table.data_digest)
    source = trained_under(row)
    trained = source.protocol if source else None
    learnt = summary.source.data_digest if summary.source else None
    classes = str(row.classes)  # probabilities of others stand in other columns
    settings = row.settings
    same = f"unknown, of {row.folder}" if settings is None else str(dict(settings))
    return (*map(str, parts), protocol_of(row), *_split(row), str(trained), str(learnt), classes, same)


def _by_test_set(entries: list[tuple[Table, Row]]) -> list[list[tuple[Table, Row]]]:
    """``entries`` as they are, or apart by test set where a split without folds has several with the same seed."""
    sets: dict[str, set[str | None]] = defaultdict(set)
    for table, row in entries:
        if fold_of(row) is None:
            sets[seeds_of(row)[0]].add(table.test_digest)
    if all(len(digests) == 1 for digests in sets.values()):
        return [entries]
    apart: dict[str | None, list[tuple[Table, Row]]] = defaultdict(list)
    for table, row in entries:
        apart[table.test_digest].append((table, row))
    return list(apart.values())


def _scope(table: Table, row: Row) -> tuple[str, ...]:
    """Runs that agree here were split alike, so that they have equally many folds."""
    return table.dataset, str(table.data_digest), protocol_of(row), *_split(row)


def _split(row: Row) -> tuple[str, str]:
    return str(folds_of(row)), str(version_of(row))


def _expected_folds(entries: Iterable[tuple[Table, Row]]) -> dict[tuple[str, ...], int]:
    """How many folds each scope has: as recorded, or as many as the highest fold of its runs, counted from 0, says."""
    expected: dict[tuple[str, ...], int] = {}
    for table, row in entries:
        fold = fold_of(row)
        if fold is not None:
            scope = _scope(table, row)
            expected[scope] = max(expected.get(scope, 0), fold + 1, folds_of(row) or 0)
    return expected


def _experiment(entries: Sequence[tuple[Table, Row]], expected: Mapping[tuple[str, ...], int]) -> Experiment:
    table, first = entries[0]
    kept: dict[tuple[Seeds, int | None], tuple[Table, Row]] = {}
    for held, row in entries:  # in order of rank, so that the first of equal seeds and fold is the best
        known, _ = kept.setdefault((seeds_of(row), fold_of(row)), (held, row))
        if known.test_digest != held.test_digest:
            other = kept[seeds_of(row), fold_of(row)][1]
            raise UserError(
                f"{other.folder} and {row.folder} are both fold {fold_of(row)} of {row.run.name} with the same seeds, "
                "on different test images: compare runs of one split, and leave the others out"
            )
    rows = tuple(row for _, row in kept.values())
    has_folds = fold_of(first) is not None
    found = Experiment(
        first.run.name,
        table,
        frozenset(held.number for held, _ in entries),
        rows,
        len(entries) - len(rows),
        expected[_scope(table, first)] if has_folds else None,
    )
    if has_folds:
        _refuse_overlap(found)
    return found


def _refuse_overlap(experiment: Experiment) -> None:
    for rows in experiment.repeats.values():
        images = {row.folder: set(part.images.tolist()) for row in rows if (part := experiment.parts.get(row.folder))}
        for first, second in combinations([row for row in rows if row.folder in images], 2):
            if common := images[first.folder] & images[second.folder]:
                raise UserError(
                    f"{first.folder} and {second.folder} are folds {fold_of(first)} and {fold_of(second)} of "
                    f"{experiment.label} with the same seeds and share {len(common)} test images, so they cannot be "
                    "pooled: compare folds of one split, and leave the others out"
                )


def refuse_single_runs(experiments: Sequence[Experiment]) -> None:
    """Make sure that every experiment was repeated.

    Raises:
        UserError: an experiment has one run alone.
    """
    single = [f"{item.label} ({item.protocol})" for item in experiments if len(item.rows) == 1]
    if single:
        more = f" and {len(single) - 3} more" if len(single) > 3 else ""
        raise UserError(
            f"--require-repeats: one run alone of {', '.join(single[:3])}{more}; run further seeds or folds"
        )
