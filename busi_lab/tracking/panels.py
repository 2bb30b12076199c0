"""What trackers show of a run, as plain data: named values, chosen cases, points of curves."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from busi_lab.report import words
from busi_lab.report.figures.curves import pr_points
from busi_lab.report.results.cases import Cases, read_cases
from busi_lab.report.results.examples import dice_examples, right_classes, wrong_classes
from busi_lab.summary import Summary
from busi_lab.tracking.protocol import Result

CASES = 8
"""Scans in a panel of test cases."""

_MISTAKES = 16
_EPOCH_NAMES = {
    "lr": "optim/lr",
    "images_per_second": "speed/images_per_second",
    "seconds": "speed/epoch_seconds",
}
CURVES = {
    "roc": ("ROC, each class against the rest", "false positive rate", "true positive rate"),
    "pr": ("Precision over recall, each class", "recall", "precision"),
}
"""Title, horizontal and vertical axis of both kinds of curves."""

Row = Mapping[str, Any]
Points = tuple[list[float], list[float]]


class Picked(NamedTuple):
    """A case of a panel, with the words below it."""

    image: str
    caption: str


def start_values(summary: Summary) -> dict[str, Any]:
    """What is known before training and is no part of the configuration."""
    return {
        "parameters": summary.parameters,
        "device": summary.device,
        "split_digest": summary.split.digest,
        "test_digest": summary.split.test_digest,
        "leaked_test_images": summary.split.leaked,
        "data_digest": summary.data.digest,
        "images": {split: getattr(summary.data, split) for split in ("train", "val", "test")},
    }


def epoch_values(row: Row) -> dict[str, Any]:
    """A row of ``metrics.csv``, as it is written or as it is read, under names with a namespace."""
    values = {_EPOCH_NAMES.get(key, key): _number(value) for key, value in row.items() if value not in (None, "")}
    return {**values, "epoch": int(row["epoch"])}


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def final_values(summary: Summary) -> dict[str, Any]:
    """Test metrics, validation metrics of the best epoch, and what the run cost; a figure may be None."""
    scalars: dict[str, Any] = {name: value for name, value in summary.metrics.items() if isinstance(value, int | float)}
    result: dict[str, Any] = {name: value for name, value in scalars.items() if name.startswith("test/")}
    result |= {f"best/{name}": value for name, value in scalars.items() if name.startswith("val/")}
    result |= {"best/epoch": summary.best_epoch, "parameters": summary.parameters}
    for name in ("images_per_second", "inference_milliseconds", "peak_memory_bytes", "peak_gpu_memory_bytes"):
        result[name] = getattr(summary, name)
    return result


def cases_of(result: Result) -> Cases | None:
    """What a result predicted for each image; None without predictions, or where they cannot be used."""
    return read_cases(lambda: result.rows, result.summary.data.roles)


def mask_cases(cases: Cases) -> dict[str, list[Picked]]:
    """The scans with the lowest, the middle and the highest Dice."""
    chosen = {
        "worst": dice_examples(cases, CASES),
        "median": dice_examples(cases, 0, CASES),
        "best": dice_examples(cases, 0, 0, CASES),
    }
    return {
        name: [Picked(each.image, f"{each.image}: Dice {words.figure(each.dice)}") for each in examples]
        for name, examples in chosen.items()
        if examples
    }


def worst_mistakes(cases: Cases) -> list[Picked]:
    """The most confident mistakes."""
    return [
        Picked(
            each.image,
            f"{each.image}: {each.label}, taken for {each.predicted} ({words.figure(each.probability, 2)})",
        )
        for each in wrong_classes(cases, _MISTAKES)
    ]


def explained_cases(cases: Cases) -> list[Picked]:
    """The most confident mistakes and the most confident right answers."""
    chosen = [*wrong_classes(cases, CASES), *right_classes(cases, CASES)]
    return [Picked(each.image, f"{each.image}: {each.label}, predicted {each.predicted}") for each in chosen]


def curves(cases: Cases) -> dict[str, dict[str, Points]]:
    """Points of the ROC and of the precision-recall curve: ``roc`` or ``pr`` -> class -> points."""
    known = {name: curve for name in cases.classes.names if (curve := cases.roc(name)) is not None}
    roc = {
        name: (curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist()) for name, curve in known.items()
    }
    return {key: lines for key, lines in (("roc", roc), ("pr", pr_points(cases))) if lines}
