"""Losses of masks against hand-computed values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from busi_lab.errors import UserError
from busi_lab.losses import LOSSES, SegmentationLoss

TRUTH = torch.tensor([[[[1, 1], [0, 0]]]])
LOGITS = torch.logit(torch.tensor([[[[0.8, 0.5], [0.5, 0.2]]]]))


def test_values_by_hand() -> None:
    # soft overlap 1.3, predicted 2, lesion 2
    expected = {
        "bce": -(2 * torch.log(torch.tensor(0.8)) + 2 * torch.log(torch.tensor(0.5))).item() / 4,
        "dice": 1 - 2 * 1.3 / 4,
        "jaccard": 1 - 1.3 / 2.7,
        "tversky": 1 - 1.3 / (1.3 + 0.3 * 0.7 + 0.7 * 0.7),
        "focal": -sum((1 - p) ** 2 * torch.log(torch.tensor(p)).item() for p in (0.8, 0.5, 0.5, 0.8)) / 4,
    }
    assert set(expected) == set(LOSSES)
    for name, value in expected.items():
        assert SegmentationLoss({name: 1})(LOGITS, TRUTH).item() == pytest.approx(value, rel=1e-4), name
    both = SegmentationLoss({"bce": 1, "dice": 0.5, "focal": 0})(LOGITS, TRUTH).item()
    assert both == pytest.approx(expected["bce"] + 0.5 * expected["dice"], rel=1e-4)


def test_an_image_without_a_lesion_has_no_overlap_loss() -> None:
    empty = torch.zeros_like(TRUTH)
    assert SegmentationLoss({"dice": 1, "tversky": 1, "jaccard": 1})(LOGITS, empty).item() == 0
    assert SegmentationLoss({"bce": 1})(LOGITS, empty).item() > 0


@given(st.lists(st.integers(0, 2**16 - 1), min_size=2, max_size=6), st.integers(0, 2**31 - 1))
@settings(max_examples=25)
def test_a_batch_is_the_mean_of_its_images(masks: list[int], seed: int) -> None:
    truth = torch.tensor([[(mask >> bit) & 1 for bit in range(16)] for mask in masks]).view(-1, 1, 4, 4)
    logits = torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed))
    loss = SegmentationLoss(dict.fromkeys(LOSSES, 1.0))
    single = [loss(logits[i : i + 1], truth[i : i + 1]).item() for i in range(len(masks))]
    assert loss(logits, truth).item() == pytest.approx(sum(single) / len(single), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": {"hinge": 1}}, r"task\.loss\.hinge: unknown loss; known: bce, dice"),
        ({"loss": {"bce": -1}}, r"task\.loss\.bce=-1"),
        ({"loss": {"bce": "much"}}, r"task\.loss\.bce=much"),
        ({"loss": {"bce": 0}}, "at least one factor above 0"),
        ({"focal_gamma": -1}, r"task\.focal_gamma=-1"),
        ({"tversky_beta": 1}, r"task\.tversky_beta=1"),
    ],
)
def test_settings_that_make_no_loss(settings: dict[str, object], message: str) -> None:
    arguments = {"loss": {"bce": 1}, **settings}
    with pytest.raises(UserError, match=message):
        SegmentationLoss(arguments.pop("loss"), **arguments)  # type: ignore[arg-type]
