"""A search for hyperparameters: what was tried, what was best, and what a reader must know of such a figure."""

from collections import Counter

from busi_lab.report import words
from busi_lab.report.figures.search import history, slices
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.search import Search, read_search
from busi_lab.report.sections.section import Cell, Grid, Section, count, figure, word

SHOWN = 10
"""Trials in the table, best first."""


def search(analysis: Analysis) -> list[Section]:
    """One section, where the compared folder is that of a search."""
    found = read_search(analysis.comparison.base)
    if found is None or found.best is None:
        return []
    keys = list(dict.fromkeys(key for trial in found.trials for key in trial.params))
    sign = -1 if found.mode == "min" else 1
    ranked = sorted(found.complete, key=lambda trial: -sign * (trial.value or 0.0))[:SHOWN]
    lines = tuple(
        (count(trial.number), figure(trial.value, 4), *(_setting(trial.params.get(key)) for key in keys))
        for trial in ranked
    )
    grid = Grid(("trial", found.objective, *keys), lines, sortable=True)
    return [
        Section(
            "The search",
            tuple(_sentences(found)),
            grids=(grid,),
            groups=(history(found), slices(found)),
            terminal=True,
        )
    ]


def _sentences(found: Search) -> list[str]:
    states = Counter(trial.state for trial in found.trials)
    told = ", ".join(f"{number} {state}" for state, number in states.items())
    sentences = [
        f"{words.counted(len(found.trials), 'trial')} ({told}); the best {found.objective} was chosen among "
        f"{len(found.complete)} on validation images, so it is too good as an estimate. No test image was touched."
    ]
    if found.folds:
        sentences.append(
            f"A trial is the mean over {found.folds} folds. Validation images of one fold are test images of another, "
            "so test figures of the best trial on these folds are a little too good as well."
        )
    return sentences


def _setting(value: object) -> Cell:
    known = words.number(value) if not isinstance(value, bool) else None
    return word(value) if known is None else Cell(f"{known:.4g}", known)
