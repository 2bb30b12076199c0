"""A model card: what one run is, what it rests on, how good it is for whom, and what it is not for.

After "Model Cards for Model Reporting" (Mitchell et al., FAT* 2019).
"""

from pathlib import Path

import numpy as np

from busi_lab.report import words
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.cases import Cases
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.reading import objective_of
from busi_lab.report.results.statistics import weighted_mean
from busi_lab.report.results.uncertainty import Bools, share_interval
from busi_lab.report.sections.basis import basis
from busi_lab.report.sections.section import Cell, Grid, Section, count, figure, interval, word
from busi_lab.summary import Summary

_GIVES = {
    "classification": "the probability of each class",
    "segmentation": "the outline of lesions",
    "multitask": "the probability of each class and the outline of lesions",
    "localization": "the probability of each class and, from its class activation maps, where a lesion is",
}


def card(analysis: Analysis, address: str | None = None) -> list[Section]:
    """The sections of a card; the analysis is of one run.

    With an ``address`` the card is published there: it names no command, which may name folders of this machine.
    """
    item = analysis.experiments[0]
    run = item.rows[0].run
    return [
        _what(item, run.summary, address or run.path.name),
        _use(run.summary),
        *basis(analysis),
        _figures(item),
        *_strata(item),
        _training(run.summary, address is None),
    ]


def _what(item: Experiment, summary: Summary, place: str) -> Section:
    gives = _GIVES.get(str(summary.task), "what its task says")
    size = "" if summary.parameters is None else f", {summary.parameters / 1e6:.2f} million parameters"
    members = f" It is an ensemble of {words.counted(len(summary.members), 'run')}." if summary.members else ""
    sentences = (
        f"{item.name} takes a breast ultrasound scan and gives {gives}. Network: {summary.model}{size}.{members}",
        f"Classes: {', '.join(item.classes.names)}.",
    )
    return Section("The model", sentences, code=f"busi-predict --run {place} scan.png --out predictions")


def _use(summary: Summary) -> Section:
    data = summary.data
    made = "Its scans were made by a program, so it says nothing about patients. " if data.of_phantoms else ""
    sentences = (
        "It is for research: to compare methods, and to study errors. It is not a medical device, and no decision "
        "about a patient may rest on it.",
        f"{made}It has learnt from {words.counted(data.train or 0, 'image')} of {data.name} alone. Scans of other "
        "machines, settings, patients or countries may be read worse, and nothing here says by how much: evaluate it "
        "on your own scans first (busi-eval).",
        "It knows no history, no palpation, no second view and no earlier scan, and it answers for scans of anything.",
    )
    return Section("What it is for, and what not", sentences)


def _figures(item: Experiment) -> Section:
    lines = tuple(
        (word(name), interval(found), count(round(item.cases.effective_groups(name)) if item.cases else None))
        for name, found in item.estimates.items()
    )
    sentences = (
        "On the test images, with 95 % intervals from resamples of whole groups (near-copies, or one patient), which "
        "hold the draw of the images and not that of the training.",
    )
    if not lines:
        return Section("How good it is", ("It has not been tested.",))
    return Section("How good it is", sentences, grids=(Grid(("figure", "value", "groups that it hangs on"), lines),))


def _strata(item: Experiment) -> list[Section]:
    """For whom it is better and worse: by class; nothing without predictions."""
    cases = item.cases
    if cases is None:
        return []
    lines = []
    for number, name in enumerate(cases.classes.names):
        chosen = cases.actual == number
        if chosen.any():
            lines.append((word(name), count(int(chosen.sum())), *_of_class(cases, chosen)))
    titles = ("class", "test images", "called so", "mean Dice")
    kept = [i for i in range(len(titles)) if i < 2 or any(line[i].value is not None for line in lines)]
    grid = Grid(tuple(titles[i] for i in kept), tuple(tuple(line[i] for i in kept) for line in lines))
    sentences = ("Few images of a class mean that little is known of it. No other strata are recorded.",)
    return [Section("For whom it is better and worse", sentences, grids=(grid,))]


def _of_class(cases: Cases, chosen: Bools) -> tuple[Cell, Cell]:
    """The share of images of a class that are called so, with its interval, and their mean Dice."""
    called = Cell(words.MISSING)
    if cases.probabilities is not None:
        right = cases.right[chosen].astype(float)
        share, resampled = float(right.mean()), weighted_mean(right, cases.weights()[:, chosen])
        low, high = share_interval(share, resampled, len(right), len(set(cases.clusters[chosen].tolist())))
        called = figure(share, 3, [words.ends(low, high)])
    dice = cases.masks.get("dice")
    known = None if dice is None or not np.isfinite(dice[chosen]).any() else float(np.nanmean(dice[chosen]))
    return called, figure(known)


def _training(summary: Summary, command: bool) -> Section:
    objective, _ = objective_of(summary)
    value = words.figure(words.number(summary.metrics.get(objective)))
    best = f" Its best epoch was chosen by {objective} on validation ({value})."
    facts = {
        "seed": summary.seed,
        "epochs": summary.epochs,
        "weights that it began with": summary.weights and Path(str(summary.weights)).name,
        "device": summary.device,
        "precision": summary.precision,
        "temperature": None if summary.temperature is None else words.figure(summary.temperature, 2),
        "split": summary.split.digest,
        "data": summary.data.digest,
        "code": summary.git,
    }
    told = "; ".join(f"{key}: {words.text(value)}" for key, value in facts.items() if value is not None)
    versions = ", ".join(f"{name} {version}" for name, version in summary.versions.items())
    return Section(
        "How it was made",
        (f"{told}.{best}", f"{versions}."),
        code=(words.text(summary.command) or "") if command else "",
    )
