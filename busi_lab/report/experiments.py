"""Experiments with the uncertainty of their figures, and what their configurations do not share, in words."""

from collections import defaultdict
from collections.abc import Sequence

from busi_lab.report.blocks import Block
from busi_lab.report.clinical import interval
from busi_lab.report.repeats import Experiment
from busi_lab.report.settings import differences, in_words
from busi_lab.report.tables import MISSING
from busi_lab.report.uncertainty import FEW_GROUPS, RESAMPLES

EXPERIMENTS_SHOWN = 30
"""Experiments in a table for people at most, best by validation first; repeats.csv has all."""

_SHOWN = (
    *("accuracy", "f1", "f1_present", "auroc", "auroc_malignant", "auroc_benign_malignant"),
    *("dice", "dice_pooled", "hd95", "hd95_pixels", "hd95_mm"),
)
_DIGITS = {"hd95": 1, "hd95_pixels": 1, "hd95_mm": 2}

Scope = tuple[str, str | None, str, str | None]


def where(scope: Scope) -> str:
    """Data, protocol and test set, for titles."""
    dataset, _, protocol, digest = scope
    return f"{dataset}, {protocol} protocol" + (f", test set {digest[:12]}" if digest else "")


def _runs(item: Experiment) -> str:
    """How many runs, folds and pairs of seeds."""
    words = f"{len(item.rows)}"
    if item.expected_folds is not None:
        words += f"\n{item.folds} of {item.expected_folds} folds"
    return words + (f"\n{len(item.repeats)} seeds" if len(item.repeats) > 1 else "")


FACTS = ("runs", "test images", "leaked test images")


def facts(item: Experiment) -> tuple[str, str, str]:
    """Cells under ``FACTS``."""
    cases = item.cases
    groups = f"\n{cases.groups} groups" if cases is not None and cases.grouped else ""
    count, *share = (item.leaked or MISSING).split(" of ")
    leaked = "\nof ".join([count, *share])
    return _runs(item), MISSING if cases is None else f"{len(cases)}{groups}", leaked


def _recorded(item: Experiment, name: str) -> float | None:
    """A figure as runs recorded it, where there are no predictions to take it from."""
    return None if item.estimates else item.recorded.get(name)


def figure_cells(items: Sequence[Experiment]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of the shown metrics that any of ``items`` has: figure, interval, spread, ensemble."""
    names = [name for name in _SHOWN if any(name in item.estimates or _recorded(item, name) for item in items)]
    lines = []
    for item in items:
        cells = []
        for name in names:
            digits = _DIGITS.get(name, 3)
            found, recorded = item.estimates.get(name), _recorded(item, name)
            parts = [interval(found, digits)] if found else [MISSING if recorded is None else f"{recorded:.{digits}f}"]
            if spread := item.spread.get(name):
                kinds = {"folds": spread.folds, "seeds": spread.seeds, "splits": spread.splits}
                parts += [f"± {value:.{digits}f} over {kind}" for kind, value in kinds.items() if value is not None]
            if name in item.ensemble:
                parts.append(f"ensemble {item.ensemble[name]:.{digits}f}")
            cells.append("\n".join(parts))
        lines.append(cells)
    return names, lines


def repeats_block(scope: Scope, items: Sequence[Experiment]) -> Block | None:
    """Experiments with their figures, intervals and spread; None without predictions or repeats."""
    if not any(item.estimates or len(item.rows) > 1 for item in items):
        return None
    shown = items[:EXPERIMENTS_SHOWN]
    repeated = [item for item in items if len(item.rows) > 1]
    names, figures = figure_cells(shown)
    lines = []
    for item, cells in zip(shown, figures, strict=True):
        lines.append((item.label, *facts(item), *cells))
    sentences = [_how_joined(items)]
    if repeated and len(repeated) < len(items):
        alone = [item.label for item in items if len(item.rows) == 1]
        sentences.append(f"One run alone, so without a spread over folds or seeds: {', '.join(alone)}.")
    elif not repeated:
        sentences.append("No experiment has a second run, so there is no spread over folds or seeds.")
    sentences += [f"{gap}." for item in items for gap in item.gaps]
    sentences += _about_groups(items, names)
    if len(shown) < len(items):
        sentences.append(f"Shown are the best {len(shown)} of {len(items)} by validation; repeats.csv has all.")
    titles = ("experiment", *FACTS, *names)
    return Block(f"Experiments with their uncertainty: {where(scope)}", tuple(sentences), titles, tuple(lines))


def _how_joined(items: Sequence[Experiment]) -> str:
    words = (
        f"its 95 % interval, from {RESAMPLES:,} resamples of whole groups (near-copies, or one patient), which holds "
        "the draw of the images and not that of the training"
    )
    if all(len(item.rows) == 1 for item in items):
        return f"In a cell: the figure, and {words}."
    sentence = f"In a cell: the mean over the runs of the figure that each has on its own test images; {words}"
    if any(item.spread for item in items):
        sentence += "; the standard deviation over folds, over seeds of the training and over seeds of the split"
    if any(item.ensemble for item in items):
        sentence += (
            "; and what the networks of all seeds have as one ensemble, their predictions averaged, which is another "
            "system than a single run and is not compared with one"
        )
    return f"{sentence}."


def settings_block(scope: Scope, items: Sequence[Experiment]) -> Block | None:
    """What differs between the configurations of experiments."""
    settings = [item.settings for item in items]
    keys = differences(settings)
    if not keys:
        return None
    lines = tuple((item.label, in_words(each, keys)) for item, each in zip(items, settings, strict=True))
    same = len({key for each in settings if each is not None for key in each}) - len(keys)
    sentence = (
        f"The configurations agree in {same} settings and differ in {len(keys)}, but for seeds, folds, paths, logger, "
        "workers and cache. Runs count as repeats of one experiment where they agree in all."
    )
    title = f"What differs between the configurations: {where(scope)}"
    return Block(title, (sentence,), ("experiment", "settings that not all share"), lines[:EXPERIMENTS_SHOWN])


def _about_groups(items: Sequence[Experiment], names: Sequence[str]) -> list[str]:
    """What limits the intervals."""
    found = []
    loose = [item.label for item in items if item.cases is not None and not item.cases.grouped]
    if loose:
        found.append(
            f"No groups are recorded, so each image is resampled alone and intervals are too narrow: "
            f"{', '.join(loose)}."
        )
    few: dict[str, list[str]] = defaultdict(list)
    for item in items:
        found_here = {name: item.estimates[name] for name in names if name in item.estimates}
        if scarce := [f"{name} {each.groups}" for name, each in found_here.items() if each.few]:
            few[", ".join(scarce)].append(item.label)
    found += [
        f"Fewer than {FEW_GROUPS} groups in the smallest part that a figure hangs on, such as a class, so that the "
        f"interval cannot be trusted ({words}): {', '.join(labels)}."
        for words, labels in few.items()
    ]
    if any(e.low == e.high for item in items for e in item.estimates.values()):
        found.append("An interval of no width only says that all resamples agree, not that the figure is certain.")
    return found
