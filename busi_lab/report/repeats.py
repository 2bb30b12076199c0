"""Runs of one experiment over folds and seeds: the mean of their figures, and its spread over either."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np

from busi_lab.errors import UserError
from busi_lab.report.cases import Cases, pool, read_test_cases
from busi_lab.report.estimates import Estimate, estimate, mean_figures
from busi_lab.report.settings import Settings, differences, in_words
from busi_lab.report.tables import MISSING, TEST_METRICS, Comparison, Row, Table, leak_words, number, text
from busi_lab.summary import SplitRecord

_NAMED = (
    *("model.name", "model.backbone", "model.arch", "model.encoder", "model.weights"),
    *("split.protocol", "split.folds", "data.name"),
)
"""Settings that labels name by other words."""

Seeds = tuple[str, str]
"""Seed of the split and seed of the training, as words."""


@dataclass(frozen=True)
class Spread:
    """How far runs lie apart, as sample standard deviations, None where nothing was repeated that way.

    ``folds``: over the folds of one pair of seeds. ``seeds``: over the seeds of the training on one split, folds as
    their mean. ``splits``: over the seeds of the split, the rest as its mean; it holds the spread over seeds where
    both change together. Several are joined as the root of their mean square.
    """

    folds: float | None
    seeds: float | None
    splits: float | None


@dataclass(frozen=True)
class Experiment:
    """The runs of one experiment under one protocol.

    ``table`` is the first of the ``tables`` (by number) that its runs stand in. ``rows`` has one run for each pair of
    seeds and each fold; ``replaced`` counts runs that had another's seeds and fold with a worse or equal validation
    figure, and are not among them. ``expected_folds`` is None without folds.
    """

    label: str
    table: Table
    tables: frozenset[int]
    rows: tuple[Row, ...]
    replaced: int
    expected_folds: int | None

    @property
    def protocol(self) -> str:
        """The split protocol without fold and seed."""
        return protocol_of(self.rows[0])

    @cached_property
    def parts(self) -> dict[str, Cases]:
        """Test images of each run with readable predictions, by its folder."""
        found = ((row.folder, read_test_cases(row.run)) for row in self.rows)
        return {folder: cases for folder, cases in found if cases is not None}

    @property
    def whole(self) -> bool:
        """Whether the predictions of all runs that were tested can be read; else nothing is claimed."""
        return len(self.parts) >= sum(row.run.summary.tested for row in self.rows)

    @cached_property
    def settings(self) -> Settings | None:
        """What its runs were configured with, but for seeds and folds."""
        return self.rows[0].settings

    @cached_property
    def cases(self) -> Cases | None:
        """The images that any run was tested on, each once; None where no run has predictions."""
        return pool(list(self.parts.values())) if self.parts else None

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """The mean over the runs of each figure, by metric name, with its interval."""
        return estimate(list(self.parts.values())) if self.parts else {}

    @cached_property
    def ensemble(self) -> dict[str, float]:
        """Figures of the networks of several seeds as one, their probabilities averaged; empty without several.

        Folds keep networks of their own, and the figure is the mean over them. Masks have none: what runs record of
        them does not say what an averaged mask would be.
        """
        together: dict[tuple[str, int | None], list[Cases]] = defaultdict(list)
        for row in self.rows:
            if row.folder in self.parts:
                together[seeds_of(row)[0], fold_of(row)].append(self.parts[row.folder])
        sizes = {len(parts) for parts in together.values()}
        if self.cases is None or sizes == {1} or len(sizes) != 1:
            return {}
        pooled = [pool(parts) for parts in together.values()]
        if any(part.probabilities is None for part in pooled):
            return {}
        values = mean_figures(pooled, self.cases, np.ones((1, len(self.cases))), Cases.class_figures)
        return {name: float(value[0]) for name, value in values.items() if np.isfinite(value[0])}

    @cached_property
    def recorded(self) -> dict[str, float]:
        """The mean over the runs of each test metric, as the runs recorded them."""
        found = {}
        for name in TEST_METRICS:
            values = [value for row in self.rows if (value := row.metric(f"test/{name}")) is not None]
            if values:
                found[name] = statistics.fmean(values)
        return found

    @cached_property
    def spread(self) -> dict[str, Spread]:
        """How far the runs' test metrics lie apart, over folds and over seeds."""
        return {name: self._spread_of(name) for name in self.recorded} if len(self.rows) > 1 else {}

    def _spread_of(self, name: str) -> Spread:
        values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for (split_seed, seed), rows in self.repeats.items():
            found = [value for row in rows if (value := row.metric(f"test/{name}")) is not None]
            if found:
                values[split_seed][seed] = found
        whole = max((len(each) for seeds in values.values() for each in seeds.values()), default=0)
        complete = {
            split_seed: [statistics.fmean(each) for each in seeds.values() if len(each) == whole]
            for split_seed, seeds in values.items()
        }
        return Spread(
            _deviation([each for seeds in values.values() for each in seeds.values()]),
            _deviation(list(complete.values())),
            _deviation([[statistics.fmean(means) for means in complete.values() if means]]),
        )

    @cached_property
    def repeats(self) -> dict[Seeds, list[Row]]:
        """The runs by their seeds."""
        found: dict[Seeds, list[Row]] = defaultdict(list)
        for row in self.rows:
            found[seeds_of(row)].append(row)
        return dict(found)

    @property
    def folds(self) -> int | None:
        """How many folds have a run with at least one pair of seeds; None without folds."""
        return None if self.expected_folds is None else len({fold_of(row) for row in self.rows})

    @property
    def leaked(self) -> str | None:
        """Leaked test images in words, folds together and a range over seeds; None where not all runs know."""
        counts, sizes = [], []
        for rows in self.repeats.values():
            leaks = [number(row.run.summary.split.leaked) for row in rows]
            known = [int(leak) for leak in leaks if leak is not None]
            if len(known) < len(rows):
                return None
            counts.append(sum(known))
            sizes.append(sum(number(row.run.summary.data.test) or math.nan for row in rows))
        return leak_words(counts, sizes[0] if len(set(sizes)) == 1 else None)

    @property
    def gaps(self) -> list[str]:
        """What the pooled figures lack, in sentences without a full stop."""
        found = []
        for seeds, rows in self.repeats.items():
            held = {fold_of(row) for row in rows}
            if self.expected_folds is not None and len(held) < self.expected_folds:
                which = f" (split seed {seeds[0]}, seed {seeds[1]})" if len(self.repeats) > 1 else ""
                lacking = [str(fold) for fold in range(self.expected_folds) if fold not in held]
                found.append(
                    f"{self.label}{which} has {len(held)} of {self.expected_folds} folds and lacks "
                    f"{'fold' if len(lacking) == 1 else 'folds'} {', '.join(lacking)}"
                )
        tested = sum(row.run.summary.tested for row in self.rows)
        if tested < len(self.rows):
            found.append(
                f"{len(self.rows) - tested} of {len(self.rows)} runs of {self.label} were not tested (test=false)"
            )
        if not self.whole:
            lost = [row.folder for row in self.rows if row.run.summary.tested and row.folder not in self.parts]
            found.append(
                f"{self.label} has readable predictions of {len(self.parts)} of {tested} runs and is not tested: "
                f"predictions.csv is missing or damaged in {', '.join(lost)}"
            )
        for name, found_here in self.estimates.items():
            if found_here.runs < len(self.parts) and name in TEST_METRICS:
                found.append(
                    f"{name} of {self.label} is the mean over {found_here.runs} of {len(self.parts)} runs: the others "
                    "do not define it"
                )
        if self.settings is None:
            found.append(f"{self.rows[0].folder} has no readable config.yaml, so that it is taken for no one's repeat")
        if self.replaced:
            found.append(
                f"{self.label} has {self.replaced} more runs with the same seeds and fold as another; of such runs "
                "the best by validation stands"
            )
        return found


def _deviation(groups: Sequence[Sequence[float]]) -> float | None:
    """The sample standard deviation within groups of at least two, as the root of the mean square; None without one."""
    variances = [statistics.variance(group) for group in groups if len(group) > 1]
    return math.sqrt(statistics.fmean(variances)) if variances else None


def protocol_of(row: Row) -> str:
    """The name of a run's split protocol."""
    return text(row.run.summary.split.protocol) or "unknown"


def fold_of(row: Row) -> int | None:
    """A run's fold; None without folds."""
    fold = number(row.run.summary.split.fold)
    return None if fold is None else int(fold)


def folds_of(row: Row) -> int | None:
    """How many folds a run's split has, as recorded or else as configured; None where neither says so."""
    recorded = number(row.run.summary.split.folds)
    if recorded is None and fold_of(row) is not None:
        configured = (row.settings or {}).get("split.folds", "")
        return int(configured) if configured.isdigit() else None
    return None if recorded is None else int(recorded)


def seeds_of(row: Row) -> Seeds:
    """A run's seeds, of its split and of its training; of an evaluation, the split that the run was trained under."""
    summary = row.run.summary
    source = row.run.summary.source
    trained = trained_under(row)
    seed = f"{trained.seed}, fold {trained.fold}" if source and source.split else str(summary.split.seed)
    return seed, str(summary.seed)


def trained_under(row: Row) -> SplitRecord:
    """The split that an evaluated run was trained under; without content for a run itself."""
    source = row.run.summary.source
    return source.split if source and source.split else SplitRecord()


def gather(comparison: Comparison) -> list[Experiment]:
    """All finished runs by experiment, in the order of their tables and of their best rank there.

    Runs are of one experiment where name, task, model, weights, data, protocol and the whole configuration agree, but
    for seeds, fold, paths, logger, workers and cache; where seeds and fold agree but test images do not, these make
    experiments of their own, unless there are folds. A run whose configuration cannot be read is a repeat of none.

    Raises:
        UserError: two folds with the same seeds share test images, or one fold has several test sets.
    """
    groups: dict[tuple[str, ...], list[tuple[Table, Row]]] = defaultdict(list)
    for table in comparison.tables:
        for row in table.rows:
            groups[_key(table, row)].append((table, row))
    expected = _expected_folds(entry for entries in groups.values() for entry in entries)
    return _with_labels([_experiment(part, expected) for entries in groups.values() for part in _by_test_set(entries)])


def _key(table: Table, row: Row) -> tuple[str, ...]:
    summary = row.run.summary
    parts = (row.run.name, summary.task, summary.model, summary.weights, table.dataset, table.data_digest)
    trained = trained_under(row).protocol
    settings = row.settings
    same = f"unknown, of {row.folder}" if settings is None else str(dict(settings))
    return (*map(str, parts), protocol_of(row), str(folds_of(row)), str(trained), same)


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
    return table.dataset, str(table.data_digest), protocol_of(row), str(folds_of(row))


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


def _with_labels(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Model, weights, test set and settings where they tell namesakes under one protocol apart."""
    namesakes: dict[tuple[str, ...], list[Experiment]] = defaultdict(list)
    for item in experiments:
        table = item.table
        namesakes[item.label, table.task, table.dataset, str(table.data_digest), item.protocol].append(item)
    labels = {}
    for group in namesakes.values():
        summaries = [item.rows[0].run.summary for item in group]
        facts = [
            [text(summary.model) or MISSING for summary in summaries],
            [Path(str(summary.weights)).name for summary in summaries],
            [f"{item.expected_folds} folds" for item in group],
            [
                f"trained under {text(trained_under(item.rows[0]).protocol) or protocol_of(item.rows[0])}"
                for item in group
            ],
            [f"test set {(item.table.test_digest or 'unknown')[:12]}" for item in group],
        ]
        told = [column for column in facts if len(set(column)) > 1]
        settings = [item.settings for item in group]
        if keys := [key for key in differences(settings) if not key.startswith(_NAMED)]:
            told.append([in_words(each, keys, most=3) for each in settings])
        elif any(each is None for each in settings) and len(set(map(str, settings))) > 1:
            told.append(["configuration unknown" if each is None else "" for each in settings])
        distinct = {tuple(column[i] for column in told) for i in range(len(group))}
        if len(distinct) < len(group):  # nothing that is recorded tells all apart
            told.append([item.rows[0].folder for item in group])
        for i, item in enumerate(group):
            words = ", ".join(column[i] for column in told if column[i])
            labels[id(item)] = f"{text(item.label)} ({words})" if words else text(item.label) or MISSING
    return [replace(item, label=labels[id(item)]) for item in experiments]


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
