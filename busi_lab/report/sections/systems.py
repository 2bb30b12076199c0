"""Published systems: their figures as published, and ours under a protocol like theirs and a leak-free one."""

from collections.abc import Sequence

from busi_lab.report import words
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.estimates import Estimate
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.published import PublishedResult
from busi_lab.report.results.systems import System
from busi_lab.report.results.systems import left_out as not_compared
from busi_lab.report.results.systems import systems as compared
from busi_lab.report.results.uncertainty import RESAMPLES
from busi_lab.report.sections.published import figure_of
from busi_lab.report.sections.scopes import leaked_words
from busi_lab.report.sections.section import Cell, Grid, Section, count, word

_TITLES = (
    *("experiment", "figure", "as published", "here, under a protocol like theirs", "here, leak-free"),
    *("what our runs are", "initial weights", "pixels", "epochs", "folds", "seeds"),
    *("source", "also printed", "what is inferred"),
)
_IN_TERMINAL = 8
"""Rows at most that the terminal shows, because each takes several lines there."""


def systems(analysis: Analysis) -> list[Section]:
    """One section, or none without runs of a published system on BUSI."""
    found, others = compared(analysis.experiments), not_compared(analysis.experiments)
    if not found and not others:
        return []
    sentences = _sentences(found) if found else []
    told = [f"{item.label} ({why})" for item, why in others]
    if told:
        sentences.append(f"Not compared with published figures: {'; '.join(told)}.")
    grid = Grid(_TITLES, tuple(_line(system) for system in found), wide=True)
    title = "Published systems: as published, and here"
    return [Section(title, tuple(sentences), grids=(grid,) if found else (), terminal=len(found) <= _IN_TERMINAL)]


def _sentences(found: Sequence[System]) -> list[str]:
    sentences = [
        "A published figure is of the test images of its own source; ours are of BUSI, each with its 95 % interval "
        f"({RESAMPLES:,} resamples of whole groups) and its test images."
    ]
    rehearsals = [system for system in found if system.kind == "rehearsal"]
    if rehearsals:
        sentences.append(
            f"{len(rehearsals)} of {words.counted(len(found), 'row')} "
            f"{'is a rehearsal' if len(rehearsals) == 1 else 'are rehearsals'}: the runs lack a part of the recipe, as "
            "said in the row, so that they say nothing about the published figure."
        )
    if len(rehearsals) < len(found):
        sentences.append(
            "A replication has the initial weights, the pixels and the epochs of the recipe; what the source leaves "
            "open is inferred."
        )
    return sentences


def _line(system: System) -> tuple[Cell, ...]:
    result = system.result
    whole = [item for item in system.experiments if item.expected_folds is not None]
    folds = dict.fromkeys(f"{item.folds} of {item.expected_folds}" for item in whole)
    seeds = sorted({len(item.repeats) for item in system.experiments})
    return (
        word(system.name),
        word(result.main),
        Cell(figure_of(result, result.main), result.metrics.get(result.main), (result.test_set,)),
        _like_theirs(system),
        _here(system.leak_free, result),
        Cell(system.kind, system.kind, system.lacks),
        word(f"{system.weights} (from scratch)" if system.weights == "none" else system.weights),
        count(system.pixels),
        count(system.epochs),
        word(", ".join(folds)),
        word(words.spanned(seeds, 0)),
        word(result.source),
        _also_printed(result),
        word(result.inferred),
    )


def _also_printed(result: PublishedResult) -> Cell:
    """Other figures of the source, and what another source prints for the same system."""
    others = [name for name in (*result.metrics, *result.ranges) if name != result.main]
    told = [f"{name} {figure_of(result, name)}" for name in others] + ([result.note] if result.note else [])
    if quoted := result.quoted:
        figure = words.published(quoted.metrics[result.main])
        told.append(f"{result.main} {figure} on {quoted.test_set}, quoted by {quoted.source}")
    return word("; ".join(told))


def _like_theirs(system: System) -> Cell:
    """Our figure under their protocol; invalid ones stand below it with their mark, never in its place."""
    cell = _here(system.theirs, system.result)
    invalid = tuple(f"{item.protocol}: {_told(item, system.result.main)}" for item in system.invalid)
    return Cell(cell.text, cell.value, (*cell.second, *invalid))


def _here(items: Sequence[Experiment], result: PublishedResult) -> Cell:
    """The figure of the first, with its interval, images and leaks, and those of the others below."""
    if not items:
        return Cell(words.MISSING)
    first, name = items[0], result.main
    found, value = estimate_of(first, name)
    second = [_interval(found)] if found else ["no interval"]
    second.append(f"{first.protocol}, {_images(first)}")
    if name != "dice" and "dice" in {*first.estimates, *first.recorded}:
        second.append(f"dice {_figure(first, 'dice')}")
    second += [f"{item.protocol}: {_told(item, name)}" for item in items[1:]]
    return Cell(words.figure(value), value, tuple(second))


def _told(item: Experiment, name: str) -> str:
    return f"{_figure(item, name)}, {_images(item)}"


def _figure(item: Experiment, name: str) -> str:
    found, value = estimate_of(item, name)
    return f"{words.figure(value)} ({_interval(found)})" if found else words.figure(value)


def estimate_of(item: Experiment, name: str) -> tuple[Estimate | None, float | None]:
    """A figure of our runs with its interval, which is None without readable predictions of all of them."""
    found = item.estimates.get(name) if item.whole else None
    return found, found.value if found else item.recorded.get(name)


def _interval(found: Estimate) -> str:
    few = f", not to be trusted with {words.counted(found.groups, 'group')}" if found.few else ""
    return f"{words.ends(found.low, found.high)}{few}"


def _images(item: Experiment) -> str:
    """How many test images there are, and how many of them leaked."""
    images = item.rows[0].run.summary.data.test if item.cases is None else len(item.cases)
    told = [f"{images if images is not None else 'an unknown number of'} test images"]
    if item.leaked is None:
        told.append("leaks unknown")
    elif any(item.leaked[0]):
        told.append(f"leaked {leaked_words(item)}")
    return ", ".join(told)
