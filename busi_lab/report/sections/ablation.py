"""What each ingredient of a recipe is worth, where runs are variants of another experiment."""

from collections.abc import Mapping

from busi_lab.report import words
from busi_lab.report.results.ablation import Ablation, ablations
from busi_lab.report.results.analysis import Analysis, Scope
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.pairwise import Difference
from busi_lab.report.results.uncertainty import RESAMPLES
from busi_lab.report.sections.scopes import where
from busi_lab.report.sections.section import Cell, Grid, Section, difference, interval, word


def ablation(analysis: Analysis) -> list[Section]:
    """A section for each recipe with variants."""
    found = [(scope, item) for scope in analysis.scopes for item in ablations(scope.experiments)]
    return [_section(scope, item) for scope, item in found]


def _section(scope: Scope, found: Ablation) -> Section:
    measures, recipe = found.measures, found.recipe
    lines = [(word("the whole recipe"), _runs(recipe), *(interval(recipe.estimates[m]) for m in measures))]
    for variant in found.variants:
        cells = (_difference(variant.differences, measure) for measure in measures)
        lines.append((Cell(variant.name, None, (variant.changed,)), _runs(variant.experiment), *cells))
    told = [
        f"{variant.name} in {measure}"
        for variant in found.variants
        for measure, each in variant.differences.items()
        if each.told_apart
    ]
    sentences = [
        f"The first line has the figures of the recipe, each other line what changes with a variant of it: variant "
        f"minus recipe, with the 95 % interval of {RESAMPLES:,} resamples of whole groups of the same images.",
        "An interval on both sides of 0 leaves open whether the ingredient helps. It knows the test images, not the "
        "chance of another seed.",
        f"Told apart after Holm's correction for all variants of a measure: {words.some(told) if told else 'none'}.",
    ]
    if apart := [f"{each.name} ({each.why_not})" for each in found.variants if each.why_not]:
        sentences.append(f"Not compared: {'; '.join(apart)}.")
    grid = Grid(("variant", "runs", *measures), tuple(lines))
    title = f"What each ingredient is worth: {found.label}, {where(scope)}"
    return Section(title, tuple(sentences), grids=(grid,), terminal=True)


def _runs(item: Experiment) -> Cell:
    return Cell(str(len(item.rows)), float(len(item.rows)))


def _difference(differences: Mapping[str, Difference], measure: str) -> Cell:
    found = differences.get(measure)
    return difference(None if found is None else found.difference)
