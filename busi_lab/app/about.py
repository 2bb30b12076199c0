"""What the page says about a model: data, protocol, leaks, figures with intervals, limits.

Unlike the card of a run (:mod:`busi_lab.card`), it is also of exported runs, and says which checks are off.
"""

from dataclasses import dataclass

from busi_lab.app.models import Model
from busi_lab.report.results.cases import read_test_cases
from busi_lab.report.results.estimates import estimate
from busi_lab.report.words import NOT_A_DEVICE
from busi_lab.run_directory import Run
from busi_lab.summary import Summary

LIMITS = (
    NOT_A_DEVICE,
    "Figures hold for scans like those that were tested, of the same devices and clinics; elsewhere they are unknown.",
    "Grad-CAM shows where features speak for a class. It is no proof of a cause.",
)

PHANTOMS = ", made by a program: figures say nothing of patients"

_SHOWN = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC, mean over classes",
    "f1": "F1, mean over classes",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "dice": "Dice",
    "iou": "IoU",
    "ece": "calibration error",
}


@dataclass(frozen=True)
class About:
    """Rows of name and value, figures of name, value and interval, and sentences."""

    rows: tuple[tuple[str, str], ...]
    figures: tuple[tuple[str, str, str], ...]
    off: tuple[str, ...]


def describe_model(model: Model) -> About:
    """What is known of a model."""
    return About(tuple(_rows(model)), tuple(_figures(model)), model.off)


def _rows(model: Model) -> list[tuple[str, str]]:
    summary = model.summary
    data, split = summary.data, summary.split
    rows = [
        ("run", str(model.directory)),
        ("task", summary.task or "unknown"),
        ("network", summary.model or "unknown"),
        ("classes", ", ".join(model.predictor.classes)),
        ("data", f"{data.name or 'unknown'}{PHANTOMS if data.of_phantoms else ''}"),
        ("images", f"{_count(data.train)} training, {_count(data.val)} validation, {_count(data.test)} test"),
        ("split", f"{split.protocol or 'unknown'}{'' if split.fold is None else f', fold {split.fold}'}"),
        ("leaks", _leaks(summary)),
    ]
    if model.temperature is not None:
        rows.append(("temperature", f"{model.temperature:.3g}, of the validation images"))
    if model.coverage is not None:
        rows.append(
            ("prediction sets", f"hold the true class of {model.coverage:.0%} of scans like the validation images")
        )
    if summary.members:
        rows.append(("members", ", ".join(member.experiment or "unknown" for member in summary.members)))
    return rows


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _leaks(summary: Summary) -> str:
    split, tested = summary.split, summary.data.test
    if split.unsearched or split.leaked is None:
        return "not counted"
    return f"{split.leaked} of {_count(tested)} test images have a near-copy or their patient in training or validation"


def _figures(model: Model) -> list[tuple[str, str, str]]:
    """Test figures with their 95 % intervals; without intervals where the test images are not at hand."""
    metrics = {
        name.removeprefix("test/"): value for name, value in model.summary.metrics.items() if name[:5] == "test/"
    }
    cases = read_test_cases(Run(model.directory, model.summary))
    estimates = {} if cases is None else estimate([cases])
    positive = model.summary.data.roles.positive
    found = []
    for name, words in {**_SHOWN, f"auroc_{positive}": f"AUROC of {positive}"}.items():
        if name in estimates:
            one = estimates[name]
            few = ", of few groups" if one.few else ""
            found.append((words, f"{one.value:.3f}", f"{one.low:.3f} to {one.high:.3f}{few}"))
        elif isinstance(metrics.get(name), float):
            found.append((words, f"{metrics[name]:.3f}", "not at hand"))
    return found
