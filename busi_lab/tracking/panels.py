"""What trackers show of a run, as plain data: named values, chosen cases, points of curves."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from busi_lab.run_directory import CLASSES
from busi_lab.summary import Summary

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


def has_classes(rows: Sequence[Row]) -> bool:
    """Whether the rows predict classes."""
    return bool(rows) and "prediction" in rows[0]


def mask_cases(rows: Sequence[Row]) -> dict[str, list[Picked]]:
    """The scans with the lowest, the middle and the highest Dice."""
    judged = sorted((row for row in rows if row["dice"] is not None), key=lambda row: float(row["dice"]))
    count = min(CASES, len(judged))
    middle = (len(judged) - count) // 2
    chosen = {"worst": judged[:count], "median": judged[middle : middle + count], "best": judged[::-1][:count]}
    return {
        name: [Picked(row["image"], f"{row['image']}: Dice {float(row['dice']):.3f}") for row in cases]
        for name, cases in chosen.items()
        if cases
    }


def worst_mistakes(rows: Sequence[Row]) -> list[Picked]:
    """The most confident mistakes."""
    wrong = [row for row in _by_confidence(rows) if row["label"] != row["prediction"]]
    return [
        Picked(
            row["image"],
            f"{row['image']}: {row['label']}, taken for {row['prediction']} "
            f"({float(row['p_' + row['prediction']]):.2f})",
        )
        for row in wrong[:_MISTAKES]
    ]


def explained_cases(rows: Sequence[Row]) -> list[Picked]:
    """The most confident mistakes and the most confident right answers."""
    ordered = _by_confidence(rows)
    wrong = [row for row in ordered if row["label"] != row["prediction"]][:CASES]
    right = [row for row in ordered if row["label"] == row["prediction"]][:CASES]
    return [
        Picked(row["image"], f"{row['image']}: {row['label']}, predicted {row['prediction']}")
        for row in (*wrong, *right)
    ]


def _by_confidence(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -float(row[f"p_{row['prediction']}"]))


def numbered_classes(rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    """Actual and predicted classes as positions in ``CLASSES``."""
    return [CLASSES.index(row["label"]) for row in rows], [CLASSES.index(row["prediction"]) for row in rows]


def curves(rows: Sequence[Row]) -> dict[str, dict[str, Points]]:
    """Points of the ROC and of the precision-recall curve: ``roc`` or ``pr`` -> class -> points."""
    found = {name: _curves(rows, name) for name in CLASSES if any(row["label"] == name for row in rows)}
    return {key: {name: both[number] for name, both in found.items()} for number, key in enumerate(CURVES)}


def _curves(rows: Sequence[Row], name: str) -> tuple[Points, Points]:
    """Points of the ROC curve and of the precision-recall curve of one class against the rest."""
    ordered = sorted(rows, key=lambda row: -float(row[f"p_{name}"]))
    positives = sum(row["label"] == name for row in rows)
    negatives = max(1, len(rows) - positives)
    roc: Points = ([0.0], [0.0])
    recall: Points = ([0.0], [1.0])
    hits = 0
    for count, row in enumerate(ordered, start=1):
        hits += row["label"] == name
        if count < len(ordered) and ordered[count][f"p_{name}"] == row[f"p_{name}"]:
            continue  # equal scores share a threshold
        roc[0].append((count - hits) / negatives)
        roc[1].append(hits / positives)
        recall[0].append(hits / positives)
        recall[1].append(hits / count)
    return roc, recall
