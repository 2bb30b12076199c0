"""What each ingredient of a recipe is worth: variants of an experiment against the whole of it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.pairwise import Difference, between, corrected

VARIANT = "variant"
MEASURES = ("accuracy", "f1", "auroc_malignant", "dice")
"""Figures that are compared, where both have them."""


@dataclass(frozen=True)
class Ablation:
    """The whole recipe, and its variants with their differences to it, by measure."""

    whole: Experiment
    variants: tuple[tuple[str, Experiment, dict[str, Difference]], ...]

    @property
    def measures(self) -> tuple[str, ...]:
        """Those that some variant has."""
        return tuple(name for name in MEASURES if any(name in found for _, _, found in self.variants))


def ablations(experiments: Sequence[Experiment]) -> list[Ablation]:
    """The recipes among experiments of one scope that stand beside variants of themselves.

    A variant is one whose configuration says so (``variant``).
    """
    named: dict[tuple[str, str | None], list[Experiment]] = defaultdict(list)
    for item in experiments:
        if item.settings is not None and item.whole:
            named[item.name, item.table.task].append(item)
    found = []
    for items in named.values():
        whole = [item for item in items if VARIANT not in (item.settings or {})]
        others = [item for item in items if VARIANT in (item.settings or {})]
        if len(whole) == 1 and others:
            found.append(_compared(whole[0], others))
    return found


def _compared(whole: Experiment, others: Sequence[Experiment]) -> Ablation:
    pairs = [
        between(item, whole, [m for m in MEASURES if m in item.estimates and m in whole.estimates]) for item in others
    ]
    differences: list[dict[str, Difference]] = [{} for _ in others]
    for measure in MEASURES:
        known = [i for i, found in enumerate(pairs) if measure in found]
        for i, difference in zip(known, corrected([pairs[i][measure] for i in known]), strict=True):
            differences[i][measure] = difference
    names = [str((item.settings or {})[VARIANT]) for item in others]
    return Ablation(whole, tuple(zip(names, others, differences, strict=True)))
