"""What each ingredient of a recipe is worth: variants of an experiment against the whole of it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.pairwise import Difference, between, corrected
from busi_lab.report.results.settings import differences, in_words

VARIANT = "variant"
MEASURES = ("accuracy", "f1", "auroc_malignant", "dice")
"""Figures that are compared, where both have them."""


@dataclass(frozen=True)
class Variant:
    """A variant of a recipe: what it changes, its differences to the recipe by measure, or why it has none."""

    name: str
    experiment: Experiment
    changed: str
    differences: dict[str, Difference]
    why_not: str | None


@dataclass(frozen=True)
class Ablation:
    """A recipe and its variants; ``label`` is its name, with what sets it apart from other recipes of that name."""

    label: str
    recipe: Experiment
    variants: tuple[Variant, ...]

    @property
    def measures(self) -> tuple[str, ...]:
        """Those that the recipe has."""
        return tuple(name for name in MEASURES if name in self.recipe.estimates) if self.recipe.whole else ()


def ablations(experiments: Sequence[Experiment]) -> list[Ablation]:
    """The recipes among experiments of one scope that stand beside variants of themselves.

    A variant is one whose configuration says so (``variant``). It belongs to the recipe of its name from which it
    differs in the fewest settings. It is compared where it has the same folds and seeds.
    """
    named: dict[tuple[str, str], list[Experiment]] = defaultdict(list)
    for item in experiments:
        if item.settings is not None:
            named[item.name, item.table.task].append(item)
    return [found for items in named.values() for found in _of_one_name(items)]


def _of_one_name(items: Sequence[Experiment]) -> list[Ablation]:
    recipes = [item for item in items if VARIANT not in (item.settings or {})]
    belonging: list[list[tuple[Experiment, bool]]] = [[] for _ in recipes]  # with whether another recipe is as near
    for item in items:
        if VARIANT in (item.settings or {}) and recipes:
            apart = [len(_changes(item, recipe)) for recipe in recipes]
            nearest = [number for number, count in enumerate(apart) if count == min(apart)]
            for number in nearest:
                belonging[number].append((item, len(nearest) > 1))
    keys = differences([recipe.settings for recipe in recipes])
    return [
        _compared(
            f"{recipe.name} ({in_words(recipe.settings, keys, most=3)})" if keys else recipe.name, recipe, variants
        )
        for recipe, variants in zip(recipes, belonging, strict=True)
        if variants
    ]


def _compared(label: str, recipe: Experiment, variants: Sequence[tuple[Experiment, bool]]) -> Ablation:
    nearest: dict[str, list[int]] = defaultdict(list)  # numbers of settings that differ, by the variant's name
    for item, _ in variants:
        nearest[_name(item)].append(len(_changes(item, recipe)))
    pairs: list[dict[str, Difference]] = []
    reasons: list[str | None] = []
    for item, shared in variants:
        own = len(_changes(item, recipe))
        counts = Counter(nearest[_name(item)])
        reason = "another recipe is as near" if shared else _why_not(item, recipe)
        if own > min(counts) or counts[own] > 1:
            reason = reason or "another experiment of this variant is nearer to the recipe, or as near"
        reasons.append(reason)
        measures = [m for m in MEASURES if m in item.estimates and m in recipe.estimates]
        pairs.append({} if reason else between(item, recipe, measures))
    found: list[dict[str, Difference]] = [{} for _ in variants]
    for measure in MEASURES:
        known = [i for i, pair in enumerate(pairs) if measure in pair]
        for i, difference in zip(known, corrected([pairs[i][measure] for i in known]), strict=True):
            found[i][measure] = difference
    told = [in_words(item.settings, _changes(item, recipe), most=6) for item, _ in variants]
    names = [_name(item) for item, _ in variants]
    items = [item for item, _ in variants]
    return Ablation(label, recipe, tuple(map(Variant, names, items, told, found, reasons)))


def _why_not(item: Experiment, recipe: Experiment) -> str | None:
    """Why a variant is not compared with its recipe; None where it is."""
    if not (item.whole and recipe.whole):
        return "predictions of some runs cannot be read"
    return None if item.of_which == recipe.of_which else "other folds or seeds than the recipe"


def _name(item: Experiment) -> str:
    return str((item.settings or {})[VARIANT])


def _changes(item: Experiment, recipe: Experiment) -> list[str]:
    return [key for key in differences([item.settings, recipe.settings]) if key != VARIANT]
