"""The margin loss of classes against values computed by hand."""

from typing import Any

import pytest
import torch

from busi_lab.errors import UserError
from busi_lab.tasks.classification import ClassificationPart, margin_loss
from tests.tasks.test_tasks import make_task

LENGTHS = torch.tensor([[0.5, 0.3, 0.05], [0.95, 0.1, 0.0001]])
LOGITS = (LENGTHS / (1 - LENGTHS)).log()
FIRST = 0.4**2 + 0.5 * 0.2**2  # the true class is too short by 0.4, another too long by 0.2
SECOND = 0.8**2 + 0.5 * 0.85**2


def test_lengths_between_the_margins_cost_their_squared_distance() -> None:
    assert margin_loss(LOGITS, torch.tensor([0, 1])).tolist() == pytest.approx([FIRST, SECOND], abs=1e-6)
    assert margin_loss(LOGITS[1:], torch.tensor([0])).tolist() == pytest.approx([0.0], abs=1e-9)


def test_it_is_the_loss_of_a_task_and_takes_class_weights_in_training_alone() -> None:
    part = ClassificationPart(class_weights=[1.0, 3.0, 1.0], kind="margin")
    label = torch.tensor([0, 1])
    assert part.loss(LOGITS, label, "train").item() == pytest.approx((FIRST + 3 * SECOND) / 4)
    assert part.loss(LOGITS, label, "val").item() == pytest.approx((FIRST + SECOND) / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "hinge"}, r"task\.class_loss=hinge: expected cross_entropy or margin"),
        ({"kind": "margin", "focal_gamma": 2.0}, r"task\.class_focal_gamma=2\.0 belongs to task\.class_loss=cross_ent"),
        ({"kind": "margin", "label_smoothing": 0.1}, r"task\.label_smoothing=0\.1 belongs to task\.class_loss=cross"),
    ],
)
def test_other_losses_and_what_belongs_to_them_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ClassificationPart(**settings)


def test_the_mean_over_views_has_no_lengths() -> None:
    with pytest.raises(UserError, match=r"^task\.views=flip beside task\.class_loss=margin: "):
        make_task(class_loss="margin", views="flip")
