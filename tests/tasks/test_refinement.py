"""Class and mask made consistent, and the focal loss of classes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from busi_lab.classes import BUSI
from busi_lab.errors import UserError
from busi_lab.tasks import MultiTask
from busi_lab.tasks.classification import ClassificationPart
from busi_lab.tasks.refinement import REFINED_METRICS, refined_figures, refined_predictions
from tests.tasks.test_tasks import make_batches, make_mask_task, make_trainer

BENIGN, MALIGNANT, NORMAL = range(3)


def gathered(*rows: tuple[int, int, int, int, int]) -> dict[str, torch.Tensor]:
    """Rows of label, predicted class, lesion, predicted and common pixels."""
    label, called, lesion, predicted, hits = torch.tensor(rows).T
    logits = F.one_hot(called, 3).float()
    return {"label": label, "logits": logits, "lesion": lesion, "predicted": predicted, "true_positive": hits}


def test_a_normal_class_empties_the_mask_and_an_empty_mask_is_normal() -> None:
    rows = gathered(
        (BENIGN, BENIGN, 10, 10, 5),
        (BENIGN, NORMAL, 10, 10, 5),  # the mask is emptied
        (MALIGNANT, MALIGNANT, 10, 0, 0),  # called normal
        (NORMAL, BENIGN, 0, 0, 0),  # called normal, rightly
        (NORMAL, NORMAL, 0, 7, 0),  # the false alarm goes
        (NORMAL, BENIGN, 0, 7, 0),
    )
    assert refined_predictions(rows, BUSI).tolist() == [BENIGN, NORMAL, NORMAL, NORMAL, NORMAL, BENIGN]
    figures = refined_figures(rows, BUSI)
    assert figures["dice_refined"].tolist()[:3] == [0.5, 0.0, 0.0]
    assert figures["dice_refined"][3:].isnan().all()
    assert figures["accuracy_refined"].tolist() == [1, 0, 0, 1, 1, 0]
    assert figures["false_positive_rate_refined"].tolist()[3:] == [0, 0, 1]


def test_figures_of_both_kinds_stand_side_by_side(tmp_path: Path) -> None:
    task = make_mask_task(MultiTask, refine="paper")
    make_trainer(tmp_path).test(task, make_batches(7, batch_size=3), verbose=False)
    values, rows = task.results["test"], task.predictions()
    assert {*REFINED_METRICS, "dice", "accuracy"} <= {*values} & {*task.metric_names}
    right = [row["prediction_refined"] == row["label"] for row in rows]
    assert values["accuracy_refined"].item() == pytest.approx(sum(right) / len(right))
    dice = [row["dice_refined"] for row in rows if row["dice_refined"] is not None]
    assert values["dice_refined"].item() == pytest.approx(sum(dice) / len(dice))
    plain = make_mask_task(MultiTask)
    assert not {*REFINED_METRICS} & {*plain.metric_names}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"refine": "always"}, r"task\.refine=always: expected none or paper"),
        ({"refine": "paper", "roles": {"names": ["a", "b"]}}, r"task\.refine=paper: these data have no class without"),
        ({"class_focal_gamma": -1}, r"task\.class_focal_gamma=-1: expected 0 or more"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_mask_task(MultiTask, **settings)


def test_the_focal_loss_weighs_an_image_by_what_is_missing() -> None:
    logits, label = torch.tensor([[0.0, 0.0, math.log(2)], [0.0, 0.0, math.log(2)]]), torch.tensor([0, 2])
    # probabilities 1/4 and 1/2
    expected = ((3 / 4) ** 2 * math.log(4) + (1 / 2) ** 2 * math.log(2)) / 2
    assert ClassificationPart(focal_gamma=2.0).loss(logits, label, "val").item() == pytest.approx(expected)
    plain = ClassificationPart().loss(logits, label, "val").item()
    assert ClassificationPart(focal_gamma=1e-6).loss(logits, label, "val").item() == pytest.approx(plain, rel=1e-4)
