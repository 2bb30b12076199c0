"""Labels: the name of a run or an experiment, and the least that tells its namesakes apart."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from busi_lab.report.results.experiments import Experiment, protocol_of, trained_under, version_of
from busi_lab.report.results.settings import differences, in_words, settings_of
from busi_lab.report.words import MISSING, text
from busi_lab.run_directory import Run

_NAMED = (
    *("model.name", "model.backbone", "model.arch", "model.encoder", "model.weights"),
    *("split.protocol", "split.folds", "data.name"),
)
"""Settings that labels name by other words."""


def run_labels(runs: Sequence[tuple[str, Run]]) -> list[str]:
    """A label for each run: its name, and the least that tells its namesakes apart.

    That is the seed, the weights, both, what differs in their settings, or the folder.
    """
    namesakes: dict[str, list[tuple[str, Run]]] = defaultdict(list)
    for entry in runs:
        namesakes[entry[1].name].append(entry)
    additions: dict[str, str] = {}
    for group in namesakes.values():
        folders = [folder for folder, _ in group]
        additions.update(zip(folders, _told_apart(group) if len(group) > 1 else [""], strict=True))
    names = ((text(run.name) or folder, additions[folder]) for folder, run in runs)
    return [f"{name} ({addition})" if addition else name for name, addition in names]


def _told_apart(group: Sequence[tuple[str, Run]]) -> list[str]:
    """Words that tell runs of one name apart."""
    seeds = [f"seed {run.summary.seed}" for _, run in group]
    weights = [Path(str(run.summary.weights)).name for _, run in group]
    both = [f"{weight}, {seed}" for weight, seed in zip(weights, seeds, strict=True)]
    settings = [settings_of(run) for _, run in group]
    keys = differences(settings)
    words = [in_words(each, keys, most=3) for each in settings]
    with_seed = [f"{each}, {seed}" for each, seed in zip(words, seeds, strict=True)]
    folders = [folder for folder, _ in group]
    choices = (words, with_seed) if keys else (seeds, weights, both)
    return next((choice for choice in choices if len(set(choice)) == len(group)), folders)


def experiment_labels(experiments: Sequence[Experiment]) -> list[str]:
    """A label for each: with model, weights, test set and settings where they tell namesakes under a protocol apart."""
    namesakes: dict[tuple[str, ...], list[Experiment]] = defaultdict(list)
    for item in experiments:
        table = item.table
        namesakes[item.label, table.task, table.dataset, str(table.data_digest), item.protocol].append(item)
    labels = {}
    for group in namesakes.values():
        summaries = [item.rows[0].run.summary for item in group]
        facts = [
            [text(summary.model) or MISSING for summary in summaries],
            [Path(str(summary.weights)).name for summary in summaries],
            [f"{item.expected_folds} folds" for item in group],
            [f"trained under {_trained_under(item)}" for item in group],
            [f"trained on data {_trained_on(item)}" for item in group],
            [f"split version {version_of(item.rows[0])}" for item in group],
            [f"test set {(item.table.test_digest or 'unknown')[:12]}" for item in group],
        ]
        told = [column for column in facts if len(set(column)) > 1]
        settings = [item.settings for item in group]
        if keys := [key for key in differences(settings) if not key.startswith(_NAMED)]:
            told.append([in_words(each, keys, most=3) for each in settings])
        elif any(each is None for each in settings) and len(set(map(str, settings))) > 1:
            told.append(["configuration unknown" if each is None else "" for each in settings])
        distinct = {tuple(column[i] for column in told) for i in range(len(group))}
        if len(distinct) < len(group):  # nothing that is recorded tells all apart
            told.append([item.rows[0].folder for item in group])
        for i, item in enumerate(group):
            words = ", ".join(column[i] for column in told if column[i])
            labels[id(item)] = f"{text(item.label)} ({words})" if words else text(item.label) or MISSING
    return [labels[id(item)] for item in experiments]


def _trained_under(item: Experiment) -> str:
    source = trained_under(item.rows[0])
    return text(source.protocol if source else None) or protocol_of(item.rows[0])


def _trained_on(item: Experiment) -> str:
    """The digest of the data that its runs have learnt from."""
    summary = item.rows[0].run.summary
    digest = summary.source.data_digest if summary.source else summary.data.digest
    return (text(digest) or "unknown")[:12]
