"""What evaluations of finished runs hold: the drop on other data, and strata. Probes are in :mod:`.probes`."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from busi_lab.files import read_rows
from busi_lab.report.results.cases import Cases, read_cases, read_test_cases
from busi_lab.report.results.estimates import Estimate, difference_of, estimate
from busi_lab.report.results.metrics import shown_metrics
from busi_lab.report.results.pairwise import joint_weights
from busi_lab.report.results.tables import Comparison
from busi_lab.report.results.uncertainty import Bools, Floats
from busi_lab.report.words import text
from busi_lab.run_directory import FLAGS, Run
from busi_lab.summary import Source, SplitRecord

Rows = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, told apart from others by its ``label``."""

    label: str
    run: Run

    @cached_property
    def cases(self) -> Cases | None:
        """The images that were tested."""
        return read_test_cases(self.run)

    @property
    def elsewhere(self) -> bool:
        """Whether the images are not the run's own test images."""
        summary, source = self.run.summary, self.run.summary.source or Source()
        data, test = source.data_digest, self.split.test_digest
        return (data, test) != (summary.data.digest, summary.split.test_digest)

    @property
    def other_data(self) -> bool:
        """Whether the images are of another dataset than the run's own."""
        source = self.run.summary.source or Source()
        return source.data_digest != self.run.summary.data.digest

    @property
    def split(self) -> SplitRecord:
        """What the run says of the split that it was trained under."""
        source = self.run.summary.source
        return source.split if source and source.split else SplitRecord()

    @property
    def leaked(self) -> int | None:
        """Test images that the run has learnt from, or from a near-copy of; None where nobody has counted them."""
        return self.run.summary.split.leaked

    def rows(self, name: str) -> Rows:
        """Rows of one of the evaluation's tables; none where it is missing or damaged, as when it was cut."""
        try:
            rows = read_rows(self.run.path / name)
        except (OSError, ValueError, csv.Error):
            return []
        return [] if any(None in row or None in row.values() for row in rows) else rows


def evaluations(comparison: Comparison) -> list[Evaluation]:
    """All evaluations in a comparison, in its order."""
    found = [(row.folder, row.run) for table in comparison.tables for row in table.rows if row.evaluated]
    found += comparison.again
    names = [f"{text(run.name)} on {text(run.summary.data.name)}" for _, run in found]
    return [
        Evaluation(name if names.count(name) == 1 else f"{name} ({folder})", run)
        for (folder, run), name in zip(found, names, strict=True)
    ]


@dataclass(frozen=True)
class Change:
    """A figure on the run's own test images, ``here``, without near-copies, and the difference of the first two."""

    name: str
    own: Estimate
    here: Estimate
    rest: Estimate | None
    gap: Estimate

    @property
    def told_apart(self) -> bool:
        """Whether the interval of the difference leaves 0 out."""
        return self.gap.low > 0 or self.gap.high < 0


@dataclass(frozen=True)
class Drop:
    """The figures on other images beside those on the run's own test images.

    ``images`` and ``counts`` (by class, None where no classes are predicted) are those of the run's own test set and of
    the images here, before images without a lesion were left out where one of both has none (``kept``: how many of each
    stayed). ``alike``: both have the same classes, or no classes are predicted. ``has_rest``: near-copies are
    named, and can be left out.
    """

    images: tuple[int, int]
    counts: tuple[dict[str, int], dict[str, int]] | None
    kept: tuple[int, int] | None
    alike: bool
    has_rest: bool
    changes: tuple[Change, ...]
    relation: str


def drop(item: Evaluation) -> Drop | None:
    """The figures here beside those on the run's own test images; None where either side cannot be read."""
    source = item.run.summary.source or Source()
    here, own = item.cases, read_cases(lambda: item.run.source_predictions, source.roles)
    if not item.elsewhere or here is None or own is None:
        return None
    images, kept = (len(own), len(here)), None
    predicted = own.probabilities is not None and here.probabilities is not None
    counts = (_by_class(own), _by_class(here)) if predicted else None
    sides = [_without_lesion(cases) for cases in (own, here)]
    if predicted and sides[0].any() != sides[1].any():
        own, here = (cases.take(np.flatnonzero(~side)) for cases, side in zip((own, here), sides, strict=True))
        if not len(own) or not len(here):
            return None
        kept = len(own), len(here)
    alike = set(own.actual.tolist()) == set(here.actual.tolist()) or not predicted
    rest = _without_near_copies(item, here)
    if item.other_data:
        own = replace(own, images=_prefixed(own.images), clusters=_prefixed(own.clusters))
    changes, relation = _changes(own, here, rest, alike)
    return Drop(images, counts, kept, alike, rest is not None, changes, relation)


def _without_lesion(cases: Cases) -> Bools:
    """The images of the class without a lesion; none where there is no such class."""
    name = cases.classes.without_lesion
    return cases.actual == cases.classes.number(name) if name else np.zeros(len(cases), np.bool_)


def _by_class(cases: Cases) -> dict[str, int]:
    names = cases.classes.names
    return dict(zip(names, np.bincount(cases.actual, minlength=len(names)).tolist(), strict=True))


def _changes(
    own: Cases, here: Cases, rest: Mapping[str, Estimate] | None, alike: bool
) -> tuple[tuple[Change, ...], str]:
    _, own_weights, here_weights, relation = joint_weights(own, here)
    estimates = [estimate([cases]) for cases in (own, here)]
    resampled = [cases.figures(weights) for cases, weights in ((own, own_weights), (here, here_weights))]
    changes = []
    for name in shown_metrics([own.classes]):
        if not all(name in each for each in estimates):
            continue
        if name.startswith(("accuracy", "f1", "auroc")) and not alike:
            continue
        before, after = (each[name] for each in estimates)
        moved = resampled[1][name] - resampled[0][name]
        gap = difference_of(own, here, name, after.value - before.value, moved)
        changes.append(Change(name, before, after, None if rest is None else rest.get(name), gap))
    return tuple(changes), relation


def _without_near_copies(item: Evaluation, here: Cases) -> dict[str, Estimate] | None:
    """Figures of the images that are no near-copies of what was learnt; None where there are none of either."""
    known = {row["image"] for row in item.run.predictions if row.get("near_copy_of")}
    kept = np.flatnonzero(~np.isin(here.images, sorted(known)))
    return estimate([here.take(kept)]) if 0 < len(kept) < len(here) else None


def _prefixed(names: NDArray[np.str_]) -> NDArray[np.str_]:
    """Names that no other dataset has."""
    return np.array([f"own test {name}" for name in names.tolist()])


@dataclass(frozen=True)
class Stratum:
    """Images with and without a flag: how many, and by metric both figures and their difference, None where unknown."""

    flag: str
    images: tuple[int, int]
    figures: Mapping[str, tuple[Estimate | None, Estimate | None, Estimate | None]]

    @property
    def few(self) -> bool:
        """Whether one side is too small for a difference."""
        return any(gap is None for _, _, gap in self.figures.values())


def strata(item: Evaluation) -> list[Stratum]:
    """Figures of the images with and without each flag, the most frequent flag first."""
    cases, flags = item.cases, defaultdict(set)
    known = set() if cases is None else set(cases.images.tolist())
    for row in item.rows(FLAGS):
        if row.get("image") in known and (flag := text(row.get("flag"))):
            flags[flag].add(row["image"])
    if cases is None or not flags:
        return []
    wanted = ("accuracy", cases.classes.auroc_positive, "dice")
    names = [name for name in wanted if name and name in cases.figures(np.ones((1, len(cases))))]
    order = sorted(flags, key=lambda flag: (-len(flags[flag]), flag))
    return [_stratum(cases, flag, np.isin(cases.images, sorted(flags[flag])), names) for flag in order]


def _stratum(cases: Cases, flag: str, held: Bools, names: Sequence[str]) -> Stratum:
    parts = [_figures_of(cases, part, names) for part in (held, ~held)]
    marked, unmarked = (cases.take(np.flatnonzero(side)) for side in (held, ~held))
    figures = {}
    for name in names:
        sides = [part[name][0] if name in part else None for part in parts]
        gap = None
        if all(side is not None and not side.few for side in sides):
            (first, draws), (second, other) = (part[name] for part in parts)
            gap = difference_of(marked, unmarked, name, first.value - second.value, draws - other)
        figures[name] = (sides[0], sides[1], gap)
    return Stratum(flag, (int(held.sum()), int((~held).sum())), figures)


def _figures_of(cases: Cases, held: Bools, names: Sequence[str]) -> dict[str, tuple[Estimate, Floats]]:
    """Figures of some of the images with their resamples ``[B]``; those that they do not define are left out."""
    part, weights = cases.take(np.flatnonzero(held)), cases.weights()[:, held]
    found, resampled = estimate([part]), part.figures(weights)
    return {name: (found[name], resampled[name]) for name in names if name in found}
