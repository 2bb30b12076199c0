"""Which models differ, as tests on the same images say."""

from busi_lab.report import words
from busi_lab.report.results.analysis import Analysis, Scope
from busi_lab.report.results.pairwise import MEASURES, MODELS_TESTED, Difference
from busi_lab.report.results.uncertainty import FEW_GROUPS, RESAMPLES, SWAPS
from busi_lab.report.sections.scopes import where
from busi_lab.report.sections.section import Cell, Grid, Section, count, difference, figure


def tests(analysis: Analysis) -> list[Section]:
    """A section for each scope with tests."""
    return [_section(analysis, scope) for scope in analysis.scopes if scope.tests]


def _section(analysis: Analysis, scope: Scope) -> Section:
    lines = tuple(
        (
            Cell(f"{outcome(test)} in {MEASURES[test.measure]}", outcome(test)),
            count(test.images),
            count(test.difference.groups),
            *(figure(value) for value in test.values),
            difference(test.difference),
            p_cell(test.p),
            p_cell(test.corrected),
        )
        for test in scope.tests
    )
    titles = ("what the test says", "images", "groups", "first", "second", "difference", "p", "p (Holm)")
    title = f"Which models differ: {where(scope)}"
    return Section(title, tuple(_sentences(scope)), grids=(Grid(titles, lines),), terminal=analysis.repeated)


def _sentences(scope: Scope) -> list[str]:
    found = scope.tests
    told = sum(test.told_apart for test in found)
    few = sum(test.difference.few for test in found)
    sentences = [
        f"Two models differ significantly where p, corrected after Holm for all pairs of a measure, is below 0.05: "
        f"{told} of {words.counted(len(found), 'pair')}. For p, whole groups (near-copies, or one patient) "
        f"swap the results of both models {SWAPS:,} times. The interval of the difference is that of {RESAMPLES:,} "
        "paired resamples of whole groups; it is not corrected, and near 0.05 the two may disagree: p decides.",
    ]
    if few:
        pairs = "One pair has" if few == 1 else f"{few} pairs have"
        sentences.append(f"{pairs} fewer than {FEW_GROUPS} groups: nothing is claimed there.")
    tested = {id(item): item for test in found for item in (test.first, test.second)}.values()
    if any(len(item.repeats) > 1 for item in tested):
        sentences.append(
            "An image counts with the mean over the runs of an experiment: several seeds are a typical run here, not "
            "an ensemble."
        )
    single = [item.label for item in tested if len(item.repeats) == 1]
    if single:
        sentences.append(
            f"Trained with one seed alone, so that the test speaks of these runs, not of their recipe: "
            f"{', '.join(single)}."
        )
    for measure, name in MEASURES.items():
        known = sum(measure in (item.estimates if item.estimated else item.recorded) for item in scope.experiments)
        if known > MODELS_TESTED:
            sentences.append(f"In {name} the best {MODELS_TESTED} of {known} experiments by validation are tested.")
    cut = [item.label for item in scope.experiments if not item.whole]
    if cut:
        sentences.append(f"Predictions are missing or damaged, so nothing is claimed of: {words.some(cut)}.")
    return sentences


def p_cell(value: float) -> Cell:
    """A p; a dash where nothing was tested."""
    return Cell(words.p_value(value), words.number(value))


def outcome(test: Difference) -> str:
    """A plain sentence without a full stop: better, worse, or neither; of two protocols higher or lower."""
    up, down = ("higher", "lower") if test.relation else ("better", "worse")
    first, second = ((item.protocol if test.relation else item.label) for item in (test.first, test.second))
    if test.difference.few:
        groups = words.counted(test.difference.groups, "group")
        return f"{first} and {second} have {groups}, too few (below {FEW_GROUPS}) to tell them apart"
    if not test.told_apart:
        return f"{first} and {second} do not differ significantly"
    return f"{first} is {up if test.difference.value > 0 else down} than {second}"
