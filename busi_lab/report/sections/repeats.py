"""Experiments with the uncertainty of their figures, and what their configurations do not share."""

from collections import defaultdict
from collections.abc import Sequence

from busi_lab.report import words
from busi_lab.report.results.analysis import Analysis, Scope
from busi_lab.report.results.experiments import Experiment, fold_of
from busi_lab.report.results.settings import differences, in_words
from busi_lab.report.results.uncertainty import FEW_GROUPS, RESAMPLES
from busi_lab.report.sections.scopes import FACTS, facts, figure_cells, figure_names, where
from busi_lab.report.sections.section import Grid, Section, word

EXPERIMENTS_SHOWN = 30
"""Experiments in a table for people at most, best by validation first; repeats.csv has all."""


def repeats(analysis: Analysis) -> list[Section]:
    """A section for each scope, and one for what differs between the configurations in it."""
    found = []
    for scope in analysis.scopes:
        kinds = (_uncertainty(analysis, scope), _settings(analysis, scope))
        found += [section for section in kinds if section is not None]
    return found


def _uncertainty(analysis: Analysis, scope: Scope) -> Section | None:
    """Experiments with their figures, intervals and spread; None without predictions or repeats."""
    items = scope.experiments
    if not any(item.estimates or len(item.rows) > 1 for item in items):
        return None
    shown = items[:EXPERIMENTS_SHOWN]
    names = figure_names(analysis, shown)
    lines = tuple((word(item.label), *facts(item), *figure_cells(item, names)) for item in shown)
    sentences = [_how_joined(items), *_alone(items)]
    sentences += [f"{gap}." for item in shown for gap in gaps(item)]
    sentences += _about_groups(items, names)
    if plain := sum(not item.estimated for item in items):
        sentences.append(
            f"The best {len(items) - plain} by validation have intervals; the other {plain:,} have none in repeats.csv."
        )
    if len(shown) < len(items):
        sentences.append(f"Shown are the best {len(shown)} of {len(items)} by validation; repeats.csv has all.")
    grid = Grid(("experiment", *FACTS, *names), lines)
    title = f"Experiments with their uncertainty: {where(scope)}"
    return Section(title, tuple(sentences), grids=(grid,), terminal=analysis.repeated)


def _alone(items: Sequence[Experiment]) -> list[str]:
    """Which experiments have no spread."""
    alone = [item.label for item in items if len(item.rows) == 1]
    if len(alone) == len(items):
        return ["No experiment has a second run, so there is no spread over folds or seeds."]
    return [f"One run alone, so without a spread over folds or seeds: {words.some(alone)}."] if alone else []


def _how_joined(items: Sequence[Experiment]) -> str:
    how = (
        f"its 95 % interval, from {RESAMPLES:,} resamples of whole groups (near-copies, or one patient), which holds "
        "the draw of the images and not that of the training"
    )
    if all(len(item.rows) == 1 for item in items):
        return f"In a cell: the figure, and {how}."
    sentence = f"In a cell: the mean over the runs of the figure that each has on its own test images; {how}"
    if any(item.spread for item in items):
        sentence += "; the standard deviation over folds, over seeds of the training and over seeds of the split"
    if any(item.ensemble for item in items):
        sentence += (
            "; and what the networks of all seeds have as one ensemble, their predictions averaged, which is another "
            "system than a single run and is not compared with one"
        )
    return f"{sentence}."


def gaps(item: Experiment) -> list[str]:
    """What the pooled figures of an experiment lack, in sentences without a full stop."""
    found = _missing_folds(item)
    tested = sum(row.run.summary.tested for row in item.rows)
    if tested < len(item.rows):
        found.append(f"{len(item.rows) - tested} of {len(item.rows)} runs of {item.label} were not tested (test=false)")
    if not item.whole:
        lost = [row.folder for row in item.rows if row.run.summary.tested and row.folder not in item.parts]
        found.append(
            f"{item.label} has readable predictions of {len(item.parts)} of {tested} runs and is not tested: "
            f"predictions.csv is missing or damaged in {words.some(lost)}"
        )
    for name, estimate in item.estimates.items():
        if estimate.runs < len(item.parts):
            found.append(
                f"{name} of {item.label} is the mean over {estimate.runs} of {len(item.parts)} runs: the others "
                "do not define it"
            )
    if item.settings is None:
        found.append(f"{item.rows[0].folder} has no readable config.yaml, so that it is taken for no one's repeat")
    if item.replaced:
        found.append(
            f"{item.label} has {words.counted(item.replaced, 'more run')} with the same seeds and fold as another; "
            "of such runs the best by validation stands"
        )
    return found


def _missing_folds(item: Experiment) -> list[str]:
    found = []
    for seeds, rows in item.repeats.items():
        held = {fold_of(row) for row in rows}
        if item.expected_folds is not None and len(held) < item.expected_folds:
            which = f" (split seed {seeds[0]}, seed {seeds[1]})" if len(item.repeats) > 1 else ""
            lacking = [str(fold) for fold in range(item.expected_folds) if fold not in held]
            found.append(
                f"{item.label}{which} has {len(held)} of {item.expected_folds} folds and lacks "
                f"{'fold' if len(lacking) == 1 else 'folds'} {', '.join(lacking)}"
            )
    return found


def _about_groups(items: Sequence[Experiment], names: Sequence[str]) -> list[str]:
    """What limits the intervals."""
    found = []
    loose = [item.label for item in items if item.cases is not None and not item.cases.grouped]
    if loose:
        found.append(
            f"No groups are recorded, so each image is resampled alone and intervals are too narrow: "
            f"{words.some(loose)}."
        )
    few: dict[str, list[str]] = defaultdict(list)
    for item in items:
        found_here = {name: item.estimates[name] for name in names if name in item.estimates}
        if scarce := [f"{name} {each.groups}" for name, each in found_here.items() if each.few]:
            few[", ".join(scarce)].append(item.label)
    found += [
        f"Fewer than {FEW_GROUPS} groups in the smallest part that a figure hangs on, such as a class, so that the "
        f"interval cannot be trusted ({which}): {words.some(labels)}."
        for which, labels in few.items()
    ]
    if any(e.low == e.high for item in items for e in item.estimates.values()):
        found.append("An interval of no width only says that all resamples agree, not that the figure is certain.")
    return found


def _settings(analysis: Analysis, scope: Scope) -> Section | None:
    """What differs between the configurations of experiments."""
    items = scope.experiments
    settings = [item.settings for item in items]
    keys = differences(settings)
    if not keys:
        return None
    shown = tuple(zip(items, settings, strict=True))[:EXPERIMENTS_SHOWN]
    lines = tuple((word(item.label), word(in_words(each, keys))) for item, each in shown)
    same = len({key for each in settings if each is not None for key in each}) - len(keys)
    sentence = (
        f"The configurations agree in {same} settings and differ in {len(keys)}, but for seeds, folds, paths, logger, "
        "workers and cache. Runs count as repeats of one experiment where they agree in all."
    )
    grid = Grid(("experiment", "settings that not all share"), lines)
    title = f"What differs between the configurations: {where(scope)}"
    return Section(title, (sentence,), grids=(grid,), terminal=analysis.repeated, folded=True)
