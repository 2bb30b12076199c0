"""The contents of a report: every writer shows these sections in this order."""

from collections.abc import Callable

from busi_lab.report.results.analysis import Analysis
from busi_lab.report.sections.ablation import ablation
from busi_lab.report.sections.annotations import annotations
from busi_lab.report.sections.basis import basis
from busi_lab.report.sections.evaluations import evaluations
from busi_lab.report.sections.failures import failures
from busi_lab.report.sections.findings import findings
from busi_lab.report.sections.folds import folds
from busi_lab.report.sections.joint import joint
from busi_lab.report.sections.lesions import lesions
from busi_lab.report.sections.localization import localization
from busi_lab.report.sections.protocols import protocols
from busi_lab.report.sections.published import published
from busi_lab.report.sections.ranking import ranking
from busi_lab.report.sections.repeats import repeats
from busi_lab.report.sections.reproduce import reproduce
from busi_lab.report.sections.search import search
from busi_lab.report.sections.section import Section, shortened
from busi_lab.report.sections.speed import speed
from busi_lab.report.sections.systems import systems
from busi_lab.report.sections.tests import tests

SECTIONS: tuple[Callable[[Analysis], list[Section]], ...] = (
    findings,  # what was found
    basis,  # what that rests on
    search,
    ablation,
    annotations,
    systems,  # our runs of published systems, beside the figures of their sources
    protocols,  # then the details
    evaluations,
    repeats,
    tests,
    folds,
    ranking,
    joint,
    localization,
    lesions,
    speed,
    published,
    failures,
    reproduce,
)


def sections_of(analysis: Analysis) -> list[Section]:
    """All sections that have something to say, in a length that can be read."""
    return [shortened(section) for build in SECTIONS for section in build(analysis)]
