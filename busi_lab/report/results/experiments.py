"""Runs of one experiment over folds and seeds: the mean of their figures, and its spread over either."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from busi_lab.classes import Classes
from busi_lab.report.results.cases import Cases, pool, read_test_cases
from busi_lab.report.results.estimates import Estimate, estimate, mean_figures
from busi_lab.report.results.metrics import test_metrics
from busi_lab.report.results.settings import Settings
from busi_lab.report.results.tables import Row, Table
from busi_lab.report.words import number, text
from busi_lab.summary import SplitRecord

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
    figure, and are not among them. ``expected_folds`` is None without folds. ``estimated``: whether its figures get
    intervals.
    """

    label: str
    table: Table
    tables: frozenset[int]
    rows: tuple[Row, ...]
    replaced: int
    expected_folds: int | None
    estimated: bool = True

    @property
    def name(self) -> str:
        """The name that its runs share."""
        return self.rows[0].run.name

    @property
    def classes(self) -> Classes:
        """The classes of its test images."""
        return self.rows[0].classes

    @property
    def rank(self) -> float:
        """The mean rank by validation of its runs in their tables; infinite without one."""
        ranks = [row.rank for row in self.rows if row.rank is not None]
        return sum(ranks) / len(ranks) if ranks else math.inf

    @property
    def protocol(self) -> str:
        """The split protocol without fold and seed."""
        return protocol_of(self.rows[0])

    @cached_property
    def parts(self) -> dict[str, Cases]:
        """Test images of each run with readable predictions, by its folder; none that lack what another run has."""
        found = ((row.folder, read_test_cases(row.run)) for row in self.rows)
        known = {folder: cases for folder, cases in found if cases is not None}
        classes = any(cases.probabilities is not None for cases in known.values())
        masks = any(cases.masks for cases in known.values())
        return {
            folder: cases
            for folder, cases in known.items()
            if (cases.probabilities is not None or not classes) and (cases.masks or not masks)
        }

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
        return estimate(list(self.parts.values())) if self.estimated and self.parts else {}

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
        for name in test_metrics([self.classes]):
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
    def of_which(self) -> frozenset[tuple[Seeds, int | None]]:
        """Which seeds and folds its runs have: means of other ones differ by that, too."""
        return frozenset((seeds_of(row), fold_of(row)) for row in self.rows)

    @property
    def folds(self) -> int | None:
        """How many folds have a run with at least one pair of seeds; None without folds."""
        return None if self.expected_folds is None else len({fold_of(row) for row in self.rows})

    @property
    def leaked(self) -> tuple[list[int], float | None] | None:
        """Leaked test images, folds together, for each pair of seeds, and of how many, where that is one number.

        None where not all runs know.
        """
        counts, sizes = [], []
        for rows in self.repeats.values():
            leaks = [number(row.run.summary.split.leaked) for row in rows]
            known = [int(leak) for leak in leaks if leak is not None]
            if len(known) < len(rows):
                return None
            counts.append(sum(known))
            sizes.append(sum(number(row.run.summary.data.test) or math.nan for row in rows))
        return counts, sizes[0] if len(set(sizes)) == 1 else None

    @property
    def unsearched(self) -> bool:
        """Whether near-copies were not looked for, so that groups are patients at most."""
        return all(row.run.summary.split.unsearched for row in self.rows)


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


def version_of(row: Row) -> int:
    """The version of a run's split; folds of different ones are no parts of one whole."""
    return row.run.summary.split.version or 1


def seeds_of(row: Row) -> Seeds:
    """A run's seeds, of its split and of its training; of an evaluation, the split that the run was trained under."""
    summary = row.run.summary
    trained = trained_under(row)
    seed = str(summary.split.seed) if trained is None else f"{trained.seed}, fold {trained.fold}"
    return seed, str(summary.seed)


def trained_under(row: Row) -> SplitRecord | None:
    """The split that an evaluated run was trained under; None for a run itself."""
    source = row.run.summary.source
    return source.split if source else None
