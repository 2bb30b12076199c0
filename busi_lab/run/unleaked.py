"""Test figures without the images that a run has learnt from, or whose near-copy or patient it has."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from busi_lab.classes import Classes
from busi_lab.tasks.classification import ClassificationPart

WITHOUT_NEAR_COPIES = "_without_near_copies"
"""What the name of a figure ends with that leaves leaked images out."""


def figures_without(
    rows: Sequence[Mapping[str, Any]], leaked: Collection[str], learnt: Sequence[str], classes: Classes
) -> dict[str, float]:
    """The figures of classes, Dice and IoU over images that have not leaked, as ``test/NAME_without_near_copies``.

    Nothing where no image has leaked, or all have.

    Args:
        rows: of the predictions.
        leaked: images to leave out.
        learnt: the classes that the run has learnt.
        classes: by which it predicts.
    """
    kept = [row for row in rows if row["image"] not in leaked]
    if not kept or len(kept) == len(rows):
        return {}
    found: dict[str, float] = {}
    if "prediction" in kept[0]:
        probabilities = torch.tensor([[row[f"p_{name}"] for name in classes.names] for row in kept])
        labels = torch.tensor([classes.number(row["label"]) for row in kept])
        values = ClassificationPart(classes=classes).summarize(
            "test", {"logits": probabilities.log(), "label": labels}, learnt
        )
        found = {name: value.item() for name, value in values.items() if value.numel() == 1}
    for name in ("dice", "iou"):
        known = [row[name] for row in kept if row.get(name) is not None]
        if known:
            found[name] = sum(known) / len(known)
    return {f"test/{name}{WITHOUT_NEAR_COPIES}": value for name, value in found.items()}
