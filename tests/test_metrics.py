"""Metrics against hand-computed and published figures."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from busi_lab.metrics import classification_metrics

# Table IV of Dajam & Qahmash (2025), rows actual, columns predicted, with Table III's macro figures
PUBLISHED = {
    "MobileNet": ([[84, 3, 0], [0, 42, 0], [0, 0, 26]], 152 / 155, (0.98, 0.98, 0.99, 0.98)),
    "InceptionV3": ([[85, 0, 2], [0, 37, 5], [0, 0, 26]], 148 / 155, (0.95, 0.93, 0.95, 0.94)),
}


def from_confusion(matrix: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and labels that give this confusion matrix."""
    pairs = [(a, p) for a, row in enumerate(matrix) for p, count in enumerate(row) for _ in range(count)]
    labels = torch.tensor([actual for actual, _ in pairs])
    predicted = torch.nn.functional.one_hot(torch.tensor([p for _, p in pairs]), len(matrix))
    return predicted.float() * 0.8 + 0.2 / len(matrix), labels


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_confusion_matrices_give_the_published_figures(model: str) -> None:
    matrix, accuracy, printed = PUBLISHED[model]
    metrics = classification_metrics()
    metrics.update(*from_confusion(matrix))
    values = metrics.compute()
    assert values["confusion_matrix"].tolist() == matrix
    assert values["accuracy"].item() == pytest.approx(accuracy)
    for name, figure in zip(("accuracy", "precision", "recall", "f1"), printed, strict=True):
        # the paper cuts or rounds to two decimals
        assert abs(values[name].item() - figure) < 0.01, name


def test_macro_averages_by_hand() -> None:
    metrics = classification_metrics()
    metrics.update(*from_confusion([[3, 1, 0], [0, 2, 0], [1, 0, 1]]))
    values = metrics.compute()
    assert values["precision"].item() == pytest.approx((3 / 4 + 2 / 3 + 1) / 3)
    assert values["recall"].item() == pytest.approx((3 / 4 + 1 + 1 / 2) / 3)
    assert values["f1"].item() == pytest.approx((3 / 4 + 4 / 5 + 2 / 3) / 3)


def test_auroc_by_hand() -> None:
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.4, 0.3], [0.1, 0.35, 0.55]])
    labels = torch.tensor([0, 1, 1, 2])
    metrics = classification_metrics()
    metrics.update(probabilities, labels)
    values = metrics.compute()
    # malignant scores 0.7 and 0.4 against 0.3 and 0.35: all four pairs in order; the other classes likewise
    assert values["auroc_malignant"].item() == 1.0
    assert values["auroc"].item() == pytest.approx(1.0)
    metrics.reset()
    metrics.update(probabilities.flip(0), labels)
    # reversed: malignant scores 0.4 and 0.7 (rows 1, 2) against 0.35 and 0.3, again in order
    assert metrics.compute()["auroc_malignant"].item() == 1.0
    metrics.reset()
    metrics.update(probabilities, torch.tensor([1, 0, 1, 2]))
    # malignant scores 0.3, 0.4 against 0.7, 0.35: one of four pairs in order
    assert metrics.compute()["auroc_malignant"].item() == pytest.approx(0.25)


@settings(deadline=None, max_examples=25)
@given(st.integers(6, 40), st.integers(0, 10_000), st.integers(1, 9))
def test_metrics_do_not_depend_on_batches(count: int, seed: int, batch: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(count, 3, generator=generator).softmax(1)
    labels = torch.arange(count) % 3
    whole, parts = classification_metrics(), classification_metrics()
    whole.update(probabilities, labels)
    for start in range(0, count, batch):
        parts.update(probabilities[start : start + batch], labels[start : start + batch])
    expected, found = whole.compute(), parts.compute()
    for name, value in expected.items():
        assert torch.allclose(value.float(), found[name].float()), name
        assert all(map(math.isfinite, value.flatten().tolist())), name
